"""How much a unit or a layer matters, measured on calibration rows.

Of a unit: the first-order change of the loss were it gone, |activation x gradient|, as a gate of one on it has for its
gradient (Molchanov et al. 2017, arXiv 1611.06440, equation 2; for heads Michel et al. 2019, arXiv 1905.10650, equation
2), taken of each row by itself and averaged. Of a layer: what the loss becomes without it, for there are few.

Shapes: B rows, U units.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thrifty.data import Batch
from thrifty.models.inputs import to_tensors
from thrifty.models.losses import LOSS_SUMS
from thrifty.models.units import Units
from thrifty.spec import Task


@dataclass(frozen=True)
class Importance:
    """Of the units of one place.

    Attributes:
        scores: [U], mean over rows of what their losses would change by.
        work: products that a row takes for one unit: its weights, at each token, frame or pixel where it is computed.
    """

    scores: Tensor
    work: float


def measure_importance(
    model: nn.Module, units: Mapping[str, Units], batches: Iterable[Batch], task: Task
) -> dict[str, Importance]:
    """Measure how much each unit matters to a model's loss; the model is left as it was.

    Args:
        model: in ``eval`` mode, on the CPU.
        units: of `thrifty.models.units.units_of`.
        batches: of the training split, with answers.
        task: whose loss it is.
    """
    sums = {name: torch.zeros(each.count) for name, each in units.items()}
    places, rows = dict.fromkeys(units, 0.0), 0
    for arrays in batches:
        batch = to_tensors(arrays)
        gates: dict[str, Tensor] = {}
        with _gated(model, units, gates, places), torch.enable_grad():
            loss = LOSS_SUMS[task](model, batch)
            names = sorted(gates)
            pulls = torch.autograd.grad(loss, [gates[name] for name in names])
        for name, pull_BU in zip(names, pulls, strict=True):
            sums[name] += pull_BU.abs().sum(0)
        rows += len(batch["y"])
    return {
        name: Importance(sums[name] / rows, places[name] / rows * _weights(model, each)) for name, each in units.items()
    }


def _weights(model: nn.Module, units: Units) -> float:
    """Numbers of one unit in the matrices and filters of its place."""
    tensors = (model.get_parameter(axis.tensor) for axis in units.axes if ".running_" not in axis.tensor)
    return sum(each.numel() for each in tensors if each.dim() > 1) / units.count


@contextlib.contextmanager
def _gated(
    model: nn.Module, units: Mapping[str, Units], gates: dict[str, Tensor], places: dict[str, float]
) -> Iterator[None]:
    """Put a gate of one on every unit, of each row its own, while in the block."""

    def gate(name: str, x: Tensor) -> Tensor:
        count, maps = units[name].count, x.dim() == 4
        ones_BU = torch.ones(len(x), count, requires_grad=True)
        gates[name] = ones_BU
        width = x.shape[1 if maps else -1] // count
        places[name] += x.numel() / (count * width)
        wide = ones_BU.repeat_interleave(width, 1)
        shape = (len(x), -1, 1, 1) if maps else (len(x), *[1] * (x.dim() - 2), -1)
        return x * wide.view(shape)

    handles = []
    for each in units.values():
        module = model.get_submodule(each.watched)
        if each.side == "input":
            handles.append(
                module.register_forward_pre_hook(lambda module, args, name=each.name: (gate(name, args[0]), *args[1:]))
            )
        else:
            handles.append(module.register_forward_hook(lambda module, args, out, name=each.name: gate(name, out)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def left_out(layer: nn.Module) -> Iterator[None]:
    """Have a layer give what it is given, while in the block."""

    def same(module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        return args[0]

    handle = layer.register_forward_hook(same)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Iterable[Batch], task: Task) -> float:
    """Mean loss of a row."""
    total, rows = 0.0, 0
    for arrays in batches:
        batch = to_tensors(arrays)
        total += float(LOSS_SUMS[task](model, batch))
        rows += len(batch["y"])
    return total / rows
