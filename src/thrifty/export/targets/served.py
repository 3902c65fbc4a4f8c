"""What is exported of a bundle: its model under names for others, with its preprocessing as far as a graph holds it.

Shapes: N rows, H × W pixels, C channels, T tokens, V vocabulary, K labels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from thrifty.export.bundle import Bundle, torch_model
from thrifty.export.engines import Computed
from thrifty.export.examples import has_length, served_example
from thrifty.export.program import traced
from thrifty.export.targets.decoder import traced_decoder
from thrifty.spec import Dataset

# a model of torch, or what another engine computes: the same tensor in, the same logits out
Answering = nn.Module | Computed


class Served(nn.Module):
    """A classifier with its preprocessing: uint8 [N, H, W, C] to ``probabilities`` and ``logits`` [N, K].

    Pixels are scaled to 0..1, then normalised with the statistics of the training split, as in training.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Answering, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def before(self, pixels: Tensor) -> Tensor:
        """Make the model's input."""
        x_NCHW = pixels.permute(0, 3, 1, 2).float() / 255
        return (x_NCHW - self.mean) / self.std

    def after(self, logits: Tensor) -> dict[str, Tensor]:
        """Make answers of what the model gives."""
        return {"probabilities": torch.softmax(logits, dim=1), "logits": logits}

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Answer images as a client sends them."""
        return self.after(self.model(self.before(pixels)))


class ServedTexts(nn.Module):
    """A classifier of texts: token numbers int64 [N, T] to ``probabilities`` and ``logits`` [N, K].

    Texts are cut into numbers outside, by the ``tokenizer.json`` of the bundle, and filled up with 0. Where a text may
    have several labels each has a probability by itself.
    """

    def __init__(self, model: Answering, *, several: bool = False) -> None:
        super().__init__()
        self.model, self.several = model, several

    def after(self, logits: Tensor) -> dict[str, Tensor]:
        """Make answers of what the model gives."""
        probabilities = torch.sigmoid(logits) if self.several else torch.softmax(logits, dim=1)
        return {"probabilities": probabilities, "logits": logits}

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Answer token numbers."""
        return self.after(self.model(tokens))


class ServedRows(nn.Module):
    """Encoded rows of a table, float32 [N, F], to ``probabilities`` and ``logits`` [N, K], or to ``value`` [N].

    Cells are encoded outside, by the ``bundle.json`` of the bundle.
    """

    units: dict[str, float]

    def __init__(self, model: Answering, mean: float, deviation: float, *, labels: bool) -> None:
        super().__init__()
        self.model, self.mean, self.deviation, self.labels = model, mean, deviation, labels
        # what one deviation of each output is
        self.units = {"value": deviation}

    def after(self, logits: Tensor) -> dict[str, Tensor]:
        """Make answers of what the model gives."""
        if self.labels:
            return {"probabilities": torch.softmax(logits, dim=1), "logits": logits}
        return {"value": logits.flatten() * self.deviation + self.mean}

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        """Answer encoded rows."""
        return self.after(self.model(rows))


class ServedTokens(nn.Module):
    """A model that tells tokens under the names of its exported form: int64 [N, T] to ``logits`` [N, T, V]."""

    def __init__(self, model: Answering) -> None:
        super().__init__()
        self.model = model

    def after(self, logits: Tensor) -> dict[str, Tensor]:
        """Make answers of what the model gives."""
        return {"logits": logits}

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Answer token numbers."""
        return self.after(self.model(tokens))


class ServedFrames(nn.Module):
    """A reader of sound under names for others: frames float32 [N, T, M] to ``logits``; a classifier's are [N, K], and
    it answers ``probabilities`` too.

    Sound files become normalised frames outside, as ``bundle.json`` says under ``sound``, and are filled up with -100.
    """

    def __init__(self, model: Answering, transcribes: bool) -> None:
        super().__init__()
        self.model, self.transcribes = model, transcribes

    def after(self, logits: Tensor) -> dict[str, Tensor]:
        """Make answers of what the model gives."""
        return {"logits": logits} if self.transcribes else {"probabilities": torch.softmax(logits, 1), "logits": logits}

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Answer normalised frames."""
        return self.after(self.model(frames))


class Before(nn.Module):
    """What is done to input before a model sees it, as a module that can be traced."""

    def __init__(self, served: Any) -> None:
        super().__init__()
        self.served = served

    def forward(self, x: Tensor) -> Tensor:
        """Make the model's input."""
        return cast(Tensor, self.served.before(x))


class After(nn.Module):
    """What is made of a model's output, as a module that can be traced: `Before`'s other half."""

    def __init__(self, served: Any) -> None:
        super().__init__()
        self.served = served

    def forward(self, logits: Tensor) -> dict[str, Tensor]:
        """Make answers."""
        return cast("dict[str, Tensor]", self.served.after(logits))


class Source:
    """A bundle that is exported: several targets share what is made of it.

    What torch computes in bf16 is exported in fp32, of the weights as they are rounded: other runtimes say themselves
    what they compute in.

    Attributes:
        bundle: of any engine; targets that trace want torch's.
        module: its model as it is served.
        x: an example of its input.
        input: the name of that.
        outputs: the names of its outputs.
        units: what one deviation of an output is, of those that are told in units of their own.
    """

    def __init__(self, bundle: Bundle) -> None:
        info = bundle.info
        self.bundle = bundle
        model = bundle.model if isinstance(bundle.model, Computed) else torch_model(bundle, plain=True)
        self.module = SERVED[info.data.kind, info.task](model, info.data).eval()
        self.x = served_example(info.data)
        self.units: dict[str, float] = getattr(self.module, "units", {})
        self.input = next(iter(self.module.forward.__annotations__))
        with torch.inference_mode():
            self.outputs = tuple(self.module(self.x))

    @cached_property
    def program(self) -> ExportedProgram:
        """The served model as a program of torch.export, its numbers of rows and of tokens open.

        Raises:
            BundleError: another engine than torch computes the bundle, or it cannot be traced.
        """
        torch_model(self.bundle)
        return traced(self.module, self.x, self.bundle.info.data)

    @cached_property
    def before(self) -> nn.Module | None:
        """What is done to input before the model sees it; None where nothing is."""
        return Before(self.module) if hasattr(self.module, "before") else None

    @cached_property
    def after(self) -> nn.Module:
        """What is made of the model's output."""
        return After(self.module)

    @cached_property
    def logits(self) -> Tensor:
        """What the model gives for the example."""
        with torch.inference_mode():
            model: Any = self.module.model
            return cast(Tensor, model(self.before(self.x) if self.before else self.x)).clone()

    @cached_property
    def decoder(self) -> ExportedProgram:
        """Of a GPT or Llama: what it has read as inputs and outputs, as a program of torch.export."""
        return traced_decoder(torch_model(self.bundle, plain=True))

    @property
    def least_length(self) -> int:
        """The fewest tokens or frames that the program takes: the tracer holds some inner sizes to be over 1."""
        if not has_length(self.bundle.info.data):
            return 1
        places = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        size = places[-1].meta["val"].shape[1]
        limits = self.program.range_constraints.get(getattr(size, "node", None) and size.node.expr)
        return max(1, int(limits.lower)) if limits else 1


def _served_rows(model: Answering, data: Dataset) -> nn.Module:
    assert data.table is not None
    return ServedRows(model, data.table.mean, data.table.deviation, labels=bool(data.labels))


# What is exported of a model, by the kind of its data and its task.
SERVED: dict[tuple[str, str], Callable[[Answering, Dataset], nn.Module]] = {
    ("audio", "classify"): lambda model, data: ServedFrames(model, transcribes=False),
    ("audio", "transcribe"): lambda model, data: ServedFrames(model, transcribes=True),
    ("image", "classify"): lambda model, data: Served(model, data.mean, data.std),
    ("table", "classify"): _served_rows,
    ("table", "regress"): _served_rows,
    ("text", "classify"): lambda model, data: ServedTexts(model),
    ("text", "tag"): lambda model, data: ServedTexts(model, several=True),
    ("text", "mask"): lambda model, data: ServedTokens(model),
    ("language", "language"): lambda model, data: ServedTokens(model),
}
