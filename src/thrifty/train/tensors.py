"""Copies of tensors, to be written while their originals change; weights as a safetensors file without more copies."""

from __future__ import annotations

import copy
import json
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor, nn

from thrifty.models.adapters import changing

Tree = TypeVar("Tree")

# names of the format: https://huggingface.co/docs/safetensors
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_ALIGNED = 8
# tensors of other kinds may lie nowhere, and copy themselves in their own way
_PLAIN = (Tensor, nn.Parameter)


class Copies:
    """Copies of tensors in the memory of the host; the same tensor, wherever it occurs, is copied once.

    A GPU goes on at once: its copies are ordered before whatever it is given next.

    Args:
        known: copies made before, for those tensors that have not changed since; none of them may have been freed.

    >>> weight = torch.ones(2)
    >>> copied = Copies().of({"a": weight, "b": [weight]})
    >>> _ = weight.zero_()
    >>> copied["a"].tolist(), copied["a"] is copied["b"][0]
    ([1.0, 1.0], True)
    """

    def __init__(self, known: Copies | None = None) -> None:
        self._made: dict[tuple[Any, ...], Tensor] = dict(known._made) if known is not None else {}
        self._device: torch.device | None = None
        self._arrived: torch.cuda.Event | None = None

    @torch.no_grad()
    def of(self, tree: Tree) -> Tree:
        """Copy the tensors of nested dicts, lists and tuples; the rest is shared."""
        copied: Tree = self._copied(tree)
        if self._device is not None:
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(self._device))
        return copied

    def wait(self) -> None:
        """Wait until the copies of a GPU's tensors have arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()

    def _copied(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if type(value) not in _PLAIN or value.numel() == 0:
                return value.detach().to("cpu", copy=True)
            # its version tells a tensor that was written to since from one that was not
            place = (value.data_ptr(), value._version, value.device, value.dtype, value.shape, value.stride())
            if place not in self._made:
                self._made[place] = self._copy(value)
            return self._made[place]
        if isinstance(value, dict):
            made = copy.copy(value)  # a state dict brings its versions along
            for key, each in value.items():
                made[key] = self._copied(each)
            return made
        if isinstance(value, list | tuple):
            return type(value)(self._copied(each) for each in value)
        return value

    def _copy(self, tensor: Tensor) -> Tensor:
        if tensor.device.type != "cuda":
            return tensor.detach().to("cpu", copy=True)
        self._device = tensor.device
        host = torch.empty_like(tensor, device="cpu", pin_memory=True, requires_grad=False)
        return host.copy_(tensor.detach(), non_blocking=True)


def bytes_of(tree: Any) -> int:
    """Bytes of the tensors of nested dicts, lists and tuples; a tensor that occurs twice counts once.

    >>> weight = torch.ones(2)
    >>> bytes_of({"a": weight, "b": [weight, 1]})
    8
    """
    found: dict[int, int] = {}

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            # tensors of other kinds may lie nowhere
            found[value.data_ptr() if type(value) in _PLAIN else id(value)] = value.nbytes
        elif isinstance(value, dict):
            add(list(value.values()))
        elif isinstance(value, list | tuple):
            for each in value:
                add(each)

    add(tree)
    return sum(found.values())


def own_weights(model: nn.Module) -> dict[str, Tensor]:
    """What training changes of a model, each shared tensor named once, as safetensors wants it."""
    seen: dict[tuple[int, torch.Size], str] = {}
    own = {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, value in changing(model).items():
        # a tensor that is shared out over ranks has no place in memory to be known by
        place = value.data_ptr() if type(value) in _PLAIN else id(parameters.get(name, value))
        if seen.setdefault((place, value.shape), name) == name or value.numel() == 0:
            own[name] = value
    return own


def write_safetensors(file: BinaryIO, weights: dict[str, Tensor]) -> None:
    """Write tensors as a safetensors file; the package's own writing holds them twice more in memory.

    Raises:
        KeyError: the format has no name for a dtype.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    # the widest first, so that each begins at a multiple of its width
    ordered = sorted(weights.items(), key=lambda item: (-item[1].element_size(), item[0]))
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    said = json.dumps(header).encode()
    said += b" " * (-len(said) % _ALIGNED)
    file.write(len(said).to_bytes(8, "little") + said)
    for _, tensor in ordered:
        if tensor.numel():
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
