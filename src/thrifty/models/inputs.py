"""Batches of numpy arrays as the tensors a model takes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from thrifty.models.packed import Packed

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def to_tensors(
    batch: Mapping[str, np.ndarray], device: str = "cpu", memory_format: str = "contiguous"
) -> dict[str, Tensor]:
    """Move a batch to the device: whole numbers as int64, the rest as float32, images in the memory format.

    An array that is already as wanted is shared on the CPU, not copied; the model does not write to it.

    >>> import numpy as np
    >>> to_tensors({"y": np.array([1, 2], dtype=np.uint16)})["y"].dtype
    torch.int64
    """
    return {key: _tensor(array, device, memory_format) for key, array in batch.items()}


def input_of(batch: Mapping[str, Tensor]) -> Tensor | Packed:
    """Return what a model takes of a batch: ``x``, or packed texts where their places are told."""
    places = [batch[key] for key in sorted(batch) if key.startswith("places")]
    return Packed(batch["x"], tuple(places)) if places else batch["x"]


def to_device(model: nn.Module, device: str, memory_format: str) -> nn.Module:
    """Move a model's weights to the device, its convolutions into the memory format; returns the model."""
    moved: nn.Module = model.to(device).to(memory_format=MEMORY_FORMATS[memory_format])  # type: ignore[call-overload]
    return moved


def _tensor(array: np.ndarray, device: str, memory_format: str) -> Tensor:
    kind = np.int64 if array.dtype.kind in "iu" else np.float32
    # a read-only array, such as a memory-mapped one, is copied: torch has no read-only tensors
    array = array.astype(kind, copy=not array.flags.writeable)
    tensor = torch.from_numpy(array)
    # from pinned memory a copy waits for nothing: kernels of the micro-batch before may still run
    if device == "cuda":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    elif device != "cpu":
        tensor = tensor.to(device)
    return tensor.contiguous(memory_format=MEMORY_FORMATS[memory_format]) if tensor.dim() == 4 else tensor
