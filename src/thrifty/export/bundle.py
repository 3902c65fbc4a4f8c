"""`Bundle`: a trained model with all it needs to answer raw input; written whole or not at all, distrusted when read.

Shapes: N images or texts, H × W pixels, C channels, T tokens, K labels.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thrifty.errors import BundleError, DataError, JobError, RequestError
from thrifty.export.check import INFO, TOKENIZER, WEIGHTS, is_name, read_info, sha256
from thrifty.export.folder import recover, replacing
from thrifty.spec import BUNDLE_FORMAT, BundleInfo, Dataset, ModelPlan, Spent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import nn

MAX_PIXELS = 50_000_000
ROWS_AT_ONCE = 256


class Bundle:
    """A model that answers raw input: files of images, texts, or prompts.

    Not for several threads at once: the server gives each bundle one thread that owns it. `image_from`, `tokens_of` and
    `describe` hold no state and may be called from any thread.

    Attributes:
        info: what it is.
        folder: where it lies.
        model: in ``eval`` mode, on the CPU.
    """

    def __init__(self, info: BundleInfo, folder: Path, model: nn.Module, tokenizer: Tokenizer | None) -> None:
        self.info, self.folder, self.model = info, folder, model
        self._tokenizer = tokenizer

    def image_from(self, raw: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """Decode an image file and fit it to the model as its training data was: uint8 of shape [H, W, C].

        Raises:
            DataError: the bytes are no image that can be decoded, or it has over ``max_pixels`` pixels.
        """
        from thrifty.data.image import decode, fit

        channels, side, _ = self._shape()
        color = "gray" if channels == 1 else "rgb"
        return fit(decode(raw, max_pixels=max_pixels), size=side, color=color, crop=self.info.data.crop)

    def classify(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probability of each label for each image: uint8 [N, H, W, C] to float32 [N, K].

        Rows do not know each other: the model is in ``eval`` mode, where no layer looks across images. Guaranteed is
        equality up to rounding (1e-5), not equal bits: kernels add in another order at another batch size.
        """
        import numpy as np
        import torch

        from thrifty.data.image import normalise

        channels, side, _ = self._shape()
        if images.dtype != np.uint8 or images.shape[1:] != (side, side, channels):
            raise RequestError(
                f"images of {images.dtype} {list(images.shape)} do not fit",
                mend=f"The model takes uint8 [N, {side}, {side}, {channels}].",
            )
        answers = [np.zeros((0, len(self.info.data.labels)), dtype=np.float32)]
        with torch.inference_mode():
            for start in range(0, len(images), ROWS_AT_ONCE):
                rows = normalise(images[start : start + ROWS_AT_ONCE], self.info.data.mean, self.info.data.std)
                answers.append(torch.softmax(self.model(torch.from_numpy(rows)).float(), dim=1).numpy())
        return np.concatenate(answers)

    def tokens_of(self, text: str) -> list[int]:
        """Cut a text into token numbers as the model's training texts were: marked, and cut to its length."""
        from thrifty.data.word_pieces import cut

        if self.info.data.kind != "text" or self._tokenizer is None:
            raise RequestError(f"bundle '{self.info.name}' does not classify texts")
        # half of a surrogate pair, which JSON can spell, has no UTF-8
        unicode = text.encode("utf-8", "replace").decode("utf-8")
        return cut(self._tokenizer.encode(unicode).ids, self.info.data.shape[0])

    def classify_texts(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the probability of each label for each text: token numbers of `tokens_of` to float32 [N, K].

        Texts of like length are computed together; rows do not know each other, as in `classify`.
        """
        import numpy as np
        import torch

        from thrifty.data.word_pieces import pad

        answers = np.zeros((len(tokens), len(self.info.data.labels)), dtype=np.float32)
        order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
        with torch.inference_mode():
            for start in range(0, len(order), ROWS_AT_ONCE):
                rows = order[start : start + ROWS_AT_ONCE]
                x_NT = torch.from_numpy(pad([tokens[row] for row in rows], self.info.data.shape[0]))
                answers[rows] = torch.softmax(self.model(x_NT).float(), dim=1).numpy()
        return answers

    def complete(
        self, prompt: str, *, max_tokens: int = 64, temperature: float = 0.8, top_k: int = 50, seed: int = 0
    ) -> str:
        """Continue a text up to its end or ``max_tokens``; the same arguments give the same completion.

        The prompt is not part of what returns.

        Args:
            prompt: any text; of a longer one than the model's context, the end counts. An empty one begins a new text.
            max_tokens: tokens to add.
            temperature: 0 takes the likeliest token each time.
            top_k: of how many likeliest tokens one is drawn.
            seed: of the drawing.

        Raises:
            RequestError: the bundle is no language model, or an argument is out of range.
        """
        import torch

        from thrifty.data.language import END_ID
        from thrifty.models.generate import generate

        if self.info.task != "language" or self._tokenizer is None:
            raise RequestError(f"bundle '{self.info.name}' classifies {self.info.data.kind}s and completes no text")
        if max_tokens < 1 or top_k < 1 or not 0 <= temperature <= 100:
            raise RequestError(f"max_tokens {max_tokens}, top_k {top_k}, temperature {temperature} are out of range")
        new = generate(
            self.model,
            self._tokenizer.encode(prompt).ids or [END_ID],
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            generator=torch.Generator().manual_seed(seed),
            length=self.info.data.shape[0],
        )
        end = new.index(END_ID) if END_ID in new else len(new)
        return str(self._tokenizer.decode(new[:end]))

    def predict(self, raw: bytes | str, **options: Any) -> dict[str, Any]:
        """Answer one raw input: the bytes of an image file, a text, or a prompt with the options of `complete`.

        Returns:
            ``label``, ``probability`` and ``probabilities`` by label; or ``completion``.

        Raises:
            DataError: the bytes are no image.
            RequestError: text for an image model, or bytes for one that reads text.
        """
        if self.info.task == "language":
            if not isinstance(raw, str):
                raise RequestError(f"bundle '{self.info.name}' completes text and takes no bytes")
            return {"completion": self.complete(raw, **options)}
        if self.info.data.kind == "text":
            if not isinstance(raw, str) or options:
                raise RequestError(f"bundle '{self.info.name}' classifies texts and takes one text")
            return self.describe(self.classify_texts([self.tokens_of(raw)])[0])
        if not isinstance(raw, bytes) or options:
            raise RequestError(f"bundle '{self.info.name}' classifies images and takes the bytes of one image file")
        return self.describe(self.classify(self.image_from(raw)[None])[0])

    def describe(self, probabilities: NDArray[np.float32]) -> dict[str, Any]:
        """Name the probabilities of one row, float32 [K]: ``label``, ``probability``, ``probabilities`` by label."""
        labels = self.info.data.labels
        best = int(probabilities.argmax())
        values = probabilities.tolist()
        return {
            "label": labels[best],
            "probability": values[best],
            "probabilities": dict(zip(labels, values, strict=True)),
        }

    def probe(self) -> None:
        """Answer one made-up input, so that a model that cannot answer is found before it is asked.

        Raises:
            BundleError: it does not answer, or with another number of labels or tokens than it has names for.
        """
        import torch

        data = self.info.data
        try:
            with torch.inference_mode():
                if self._tokenizer is None:
                    wanted, found = len(data.labels), self.model(torch.zeros(1, *data.shape))
                elif data.kind == "text":
                    last = self._tokenizer.get_vocab_size() - 1
                    wanted, found = len(data.labels), self.model(torch.tensor([[*self.tokens_of(""), last]]))
                else:
                    wanted, found = self._tokenizer.get_vocab_size(), self.model(torch.zeros(1, 1, dtype=torch.int64))
        except Exception as error:  # whatever a model that does not fit its data raises
            raise BundleError(
                f"the model in '{self.folder}' does not answer: {error}", mend="Write it again."
            ) from error
        if found.shape[-1] < wanted or (data.kind != "language" and found.shape != (1, wanted)):
            raise BundleError(
                f"the model in '{self.folder}' answers with {found.shape[-1]} values for {wanted} names",
                mend="Write the bundle again from its run.",
            )

    def _shape(self) -> tuple[int, int, int]:
        if self.info.data.kind != "image":
            raise RequestError(f"bundle '{self.info.name}' reads text and takes no images")
        channels, height, width = self.info.data.shape
        return channels, height, width


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle, whoever made it: no code of it is run, and no size of it believed before it is checked.

    A model of a user's own is built by code that lies on this machine and that `thrifty.models.own` knows.

    Raises:
        BundleError: which file is missing, damaged, or not what it says, and how to mend it.
    """
    from thrifty.export.weights import load

    folder = Path(folder).absolute()
    recover(folder)
    info = read_info(folder)
    bundle = Bundle(info, folder, load(info.model, folder / WEIGHTS), _tokenizer_of(info, folder))
    bundle.probe()
    return bundle


def write_bundle(
    folder: str | Path,
    *,
    name: str,
    version: int,
    task: str,
    model: nn.Module,
    plan: ModelPlan,
    data: Dataset,
    tokenizer: Path | None,
    metrics: Mapping[str, float],
    isa: Sequence[str],
    bill: Spent,
) -> BundleInfo:
    """Write a bundle and read it back; a kill at any instant leaves the old bundle of this folder or the new.

    Args:
        folder: to make, or a bundle to replace.
        name, version: of the model on the server.
        task: ``classify`` or ``language``.
        model, plan: the trained model and what it was built from.
        data: of the prepared data.
        tokenizer: its file; of data that is text.
        metrics: of the held-out test split.
        isa: instruction sets of this machine.
        bill: spent on the run.

    Raises:
        JobError: the folder holds something else than a bundle, or an argument cannot be meant.
        BundleError: the weights are not finite, or what was written does not read back.
        StorageError: the disk is full or the place read-only; the old bundle is untouched.
    """
    from thrifty.export.weights import save

    folder = Path(folder).absolute()
    if not is_name(name):
        raise JobError(f"a bundle cannot be named {name!r}", mend="Use letters, digits, '.', '_' and '-'.")
    if (tokenizer is not None) != (data.kind != "image"):
        raise JobError(
            f"data of kind '{data.kind}' with tokenizer '{tokenizer}'", mend="A tokenizer belongs to text alone."
        )
    if folder.exists() and not (folder.is_dir() and ((folder / INFO).exists() or not any(folder.iterdir()))):
        raise JobError(f"'{folder}' holds something else than a bundle", mend="Choose another folder.")
    with replacing(folder, "a bundle") as fresh:
        save(model, fresh / WEIGHTS)
        if tokenizer is not None:
            shutil.copyfile(tokenizer, fresh / TOKENIZER)
        info = BundleInfo(
            format=BUNDLE_FORMAT,
            name=name,
            version=version,
            task=task,
            model=plan,
            data=data,
            metrics=dict(metrics),
            isa=tuple(isa),
            files={path.name: sha256(path) for path in sorted(fresh.iterdir())},
            bill=bill,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        (fresh / INFO).write_text(info.model_dump_json(indent=1), encoding="utf-8")
        load_bundle(fresh)
    return info


def _tokenizer_of(info: BundleInfo, folder: Path) -> Tokenizer | None:
    if info.data.kind == "image":
        return None
    from thrifty.data.language import load_tokenizer
    from thrifty.data.word_pieces import load_pieces

    try:
        return load_pieces(folder) if info.data.kind == "text" else load_tokenizer(folder)
    except DataError as error:
        raise BundleError(f"the bundle is damaged: {error.what}", mend="Write it again from its run.") from error
