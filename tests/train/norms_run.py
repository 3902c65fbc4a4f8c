"""How far batch norm over two ranks is from one device's, for the tests: each kind of norm, each share of a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from thrifty.train.norms import SharedNorms
from thrifty.train.ranks import World


def norms_apart(world: World) -> dict[str, dict[str, dict[str, float]]]:
    """How far each norm's results, gradients and statistics are from those of one device, the most over the ranks."""
    return {
        name: {share: norm_apart(make, shape, ours, world) for share, ours in SHARES.items()}
        for name, (make, shape) in NORMS.items()
    }


def norm_apart(
    make: Callable[[], nn.Module], shape: tuple[int, ...], ours: list[slice], world: World
) -> dict[str, float]:
    """Two passes of a norm over a batch, whole on one device and cut among two."""
    torch.manual_seed(3)
    spread = make().train()
    for each in spread.parameters():
        nn.init.normal_(each)
    # torch's own takes no tensors of a CPU
    alone = nn.BatchNorm2d(5).double() if isinstance(spread, nn.SyncBatchNorm) else copy.deepcopy(spread)
    alone.load_state_dict(spread.state_dict())
    shared = SharedNorms(world, spread)
    apart: dict[str, float] = {}
    for number in range(2):
        x = (torch.randn(shape, dtype=torch.float64) * 3 + number).to(getattr(alone, "kind", torch.float64))
        pull = torch.randn(shape, dtype=torch.float64).to(x.dtype)
        mine = ours[world.rank]
        # one without samples computes along with one that does not count
        lone = len(x[mine]) == 0
        whole, part = x.clone().requires_grad_(), (x[:1] if lone else x[mine]).clone().requires_grad_()
        shared.begin(np.array([-100 if lone else 0]))
        expected, found = alone(whole), spread(part)
        expected.backward(pull)
        found.backward(torch.zeros_like(found) if lone else pull[mine])
        assert whole.grad is not None and part.grad is not None
        pairs = {"x": (part.grad, torch.zeros_like(part) if lone else whole.grad[mine])}
        pairs |= {} if lone else {"result": (found, expected[mine])}
        for at, (one, other) in enumerate(zip(spread.parameters(), alone.parameters(), strict=True)):
            assert one.grad is not None and other.grad is not None
            gradient = one.grad.clone()
            dist.all_reduce(gradient)
            pairs[f"parameter {at}"] = gradient, other.grad
        pairs["buffers"] = tuple(torch.cat([torch.zeros(1), *map(flat, each.buffers())]) for each in (spread, alone))
        for name, (one, other) in pairs.items():
            apart[name] = max(apart.get(name, 0.0), float((one - other).detach().abs().max()))
        spread.zero_grad()
        alone.zero_grad()
    spread.eval()
    alone.eval()
    apart["evaluated"] = float((spread(x) - alone(x)).detach().abs().max())
    shared.release()
    assert "forward" not in vars(spread)
    every = world.everyones(apart)
    return {name: max(each.get(name, 0.0) for each in every) for name in every[0]}


def flat(buffer: torch.Tensor) -> torch.Tensor:
    return buffer.flatten().double()


def mixed() -> nn.Module:
    """A norm as autocast meets it: numbers in bf16, all else in float32."""
    norm = nn.BatchNorm2d(5)
    norm.kind = torch.bfloat16  # type: ignore[assignment]
    return norm


NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "features": (lambda: nn.BatchNorm1d(5).double(), (7, 5)),
    "series": (lambda: nn.BatchNorm1d(5, momentum=None).double(), (7, 5, 3)),
    "images": (lambda: nn.BatchNorm2d(5, momentum=0.3).double(), (7, 5, 4, 4)),
    "images without weights": (lambda: nn.BatchNorm2d(5, affine=False).double(), (7, 5, 4, 4)),
    "images without statistics": (lambda: nn.BatchNorm2d(5, track_running_stats=False).double(), (7, 5, 4, 4)),
    "videos": (lambda: nn.BatchNorm3d(5).double(), (7, 5, 2, 3, 4)),
    "torch's own": (lambda: nn.SyncBatchNorm(5).double(), (7, 5, 4, 4)),
    "images in bf16": (mixed, (7, 5, 4, 4)),
}
SHARES = {"uneven": [slice(0, 5), slice(5, 7)], "lone": [slice(0, 1), slice(1, 7)], "none": [slice(0, 7), slice(7, 7)]}
