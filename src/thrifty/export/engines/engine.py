"""What an engine is: it makes a form of a model of its own, writes it into a bundle's folder, and loads it to compute.

Shapes: those of the model, N rows first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from thrifty.spec import BundleInfo, Dataset

# Input of a model to its logits, float32.
Compute = Callable[["NDArray[Any]"], "NDArray[np.float32]"]


class Computed:
    """What an engine loads in place of a torch model: the same tensor in, the same logits out.

    Not for several threads at once, as no bundle is.

    Attributes:
        arrays: the same without torch, numpy arrays in and out.
    """

    def __init__(self, arrays: Compute) -> None:
        self.arrays = arrays

    def __call__(self, x: Tensor) -> Tensor:
        """Return float32 logits of one batch."""
        import torch

        return torch.from_numpy(self.arrays(x.numpy()))


def compute_of(model: nn.Module | Computed) -> Compute:
    """Return what computes arrays with a model, where it lies: float32 logits; a torch model alone loads torch."""
    if isinstance(model, Computed):
        return model.arrays
    parameter = None if model is None else next(model.parameters(), None)  # of a bundle that is only read there is none
    device = "cpu" if parameter is None else parameter.device

    def compute(x: NDArray[Any]) -> NDArray[np.float32]:
        import torch  # not before: who makes rows of raw input alone does without

        with torch.inference_mode():
            found: NDArray[np.float32] = model(torch.from_numpy(x).to(device)).float().cpu().numpy()
        return found

    return compute


@dataclass(frozen=True)
class Engine:
    """A row of the table of engines.

    Attributes:
        says: one line about it.
        files: that it writes into a bundle's folder: the most bytes of each, by its name.
        precisions: that it computes in, the first where none is asked for.
        convert: makes the engine's own form of a torch model for data; of the torch engine the model itself. That form
            is what a compressor may change, and `save` writes.
        save: writes a form into a folder, for a precision.
        load: reads the form of a bundle back; ``threads`` of its computing, all that there are when None.
    """

    says: str
    files: Mapping[str, int]
    precisions: tuple[str, ...]
    convert: Callable[[nn.Module, Dataset], Any]
    save: Callable[[Any, Path, str], None]
    load: Callable[[Path, BundleInfo, int | None], nn.Module | Computed]
