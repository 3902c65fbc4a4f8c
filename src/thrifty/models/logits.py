"""The contract of a model, for those that thrifty did not write: logits out, whatever they are wrapped in, and checked.

Shapes: B batch, C channels, H × W pixels, T tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    unset_fake_temporarily,
)

from thrifty.errors import JobError
from thrifty.spec import Dataset, KindName


class Logits(nn.Module):
    """Any model of one tensor that returns logits, or an output that holds them as ``logits``.

    Attributes:
        weights, revision: directory or id of weights that `thrifty.models.hf.load_weights` takes; empty for none.
    """

    def __init__(self, model: nn.Module, *, weights: str = "", revision: str = "") -> None:
        super().__init__()
        self.model = model
        self.weights, self.revision = weights, revision

    def forward(self, x: Tensor) -> Tensor:
        with _one_text_a_row() if _is_hugging_face(self.model) else contextlib.nullcontext():
            out = self.model(x)
        return out if isinstance(out, Tensor) else getattr(out, "logits", out)


def _is_hugging_face(model: nn.Module) -> bool:
    library = sys.modules.get("transformers")
    return library is not None and isinstance(model, library.PreTrainedModel)


@contextlib.contextmanager
def _one_text_a_row() -> Iterator[None]:
    """Tell transformers that no row packs several texts.

    It would look at the values of positions to find out: a wait on a GPU, and another kernel of attention where there
    are no values, so that what is traced would not be what runs.
    """
    masks = sys.modules.get("transformers.masking_utils")
    looks = getattr(masks, "find_packed_sequence_indices", None)
    if masks is None or looks is None:
        yield
        return
    masks.find_packed_sequence_indices = lambda *_, **__: None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        masks.find_packed_sequence_indices = looks  # type: ignore[attr-defined]


def check_logits(
    build: Callable[[], nn.Module], dataset: Dataset, name: str, failure: Callable[[Exception], JobError]
) -> None:
    """Ask a model on tensors without values, and compare the shape of its answer with the contract.

    A model that looks at values passes: the trace of its step says which operator does.

    Args:
        build: makes it.
        dataset: what it will learn from.
        name: for the error.
        failure: makes an error of what the model raises.

    Raises:
        JobError: it fails, or returns something else than [B, classes] or [B, T, V] of floating point.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        try:
            model = build().eval()
        except DataDependentOutputException:
            with unset_fake_temporarily():
                model = build().eval()
        for shape, dtype, wanted in _QUESTIONS[dataset.kind](dataset):
            try:
                out: Any = model(torch.zeros(shape, dtype=dtype))
            except (DataDependentOutputException, DynamicOutputShapeException):
                return
            except Exception as error:
                raise failure(error) from error
            if not isinstance(out, Tensor) or tuple(out.shape) != wanted or not out.is_floating_point():
                raise JobError(
                    f"model '{name}' answers {list(shape)} with {_describe(out)}, and logits of {list(wanted)} were "
                    "wanted",
                    mend=_CONTRACT[dataset.kind],
                )


_CONTRACT = {
    "audio": (
        "It takes frames [B, T, width], -100 for padding, and returns logits [B, classes], or of transcripts [B, U, "
        "tokens with the blank first], where U is T / 4 rounded up, and of waves T."
    ),
    "image": "It takes images [B, C, H, W] and returns logits [B, classes].",
    "language": "It takes tokens [B, T], T up to the data's length, and returns logits [B, T, vocabulary].",
    "table": "It takes rows [B, F], numbers in 0..1 and then codes, and returns logits [B, classes] or numbers [B, 1].",
    "text": "It takes tokens [B, T], T up to the data's length, 0 for padding, and returns logits [B, classes], or "
    "[B, T, vocabulary] where words are hidden.",
}


# shape and type of what is asked, and the shape of the answer
Question = tuple[tuple[int, ...], torch.dtype, tuple[int, ...]]


def _of_recordings(dataset: Dataset) -> Iterator[Question]:
    assert dataset.sound is not None
    for samples, frames in ((2, dataset.shape[0]), (1, 9)):
        said = (samples, dataset.sound.answered(frames), dataset.vocabulary)
        wanted = said if dataset.task == "transcribe" else (samples, len(dataset.labels))
        yield (samples, frames, dataset.shape[1]), torch.float32, wanted


def _of_images(dataset: Dataset) -> Iterator[Question]:
    yield (2, *dataset.shape), torch.float32, (2, len(dataset.labels))


def _of_rows(dataset: Dataset) -> Iterator[Question]:
    yield (2, *dataset.shape), torch.float32, (2, max(1, len(dataset.labels)))


def _of_texts(dataset: Dataset) -> Iterator[Question]:
    for shape in ((2, dataset.shape[0]), (1, 1)):
        told = (*shape, dataset.vocabulary) if dataset.task == "mask" else (shape[0], len(dataset.labels))
        yield shape, torch.int64, told


def _of_windows(dataset: Dataset) -> Iterator[Question]:
    for shape in ((2, dataset.shape[0]), (1, 1)):
        yield shape, torch.int64, (*shape, dataset.vocabulary)


_QUESTIONS: dict[KindName, Callable[[Dataset], Iterator[Question]]] = {
    "audio": _of_recordings,
    "image": _of_images,
    "language": _of_windows,
    "table": _of_rows,
    "text": _of_texts,
}


def _describe(out: Any) -> str:
    if isinstance(out, Tensor):
        return f"{str(out.dtype).removeprefix('torch.')} {list(out.shape)}"
    if isinstance(out, tuple | list):
        return f"a {type(out).__name__} of {len(out)}"
    return f"a {type(out).__name__}"
