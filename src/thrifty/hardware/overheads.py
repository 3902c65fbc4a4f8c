"""What a step costs beside its operators: Python, dispatch and autograd, and pages that the kernel must first clear."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

from thrifty.hardware.capture import Captured
from thrifty.hardware.stopwatch import Timing, Work, repeated
from thrifty.spec.device import KernelPoint

FORWARD, BACKWARD, PARAMETER, PAGES = "forward overhead", "backward overhead", "parameter overhead", "fresh pages"
FLUSH, FORGOTTEN = "flush", "forgotten"
TO_DEVICE, WATCHED, START, MODULE = "to device", "watched", "start", "module overhead"
# beyond glibc's largest threshold for blocks that it maps anew each time (M_MMAP_THRESHOLD's ceiling, 32 MiB)
_FRESH_BYTES = 64 << 20
_REPEATS = 9
# what other data of so many times the last cache's size leaves of a small block
_DISTANCES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4)


class Heads(nn.Module):
    """Views as a Transformer makes them: heads are split off, put first, and put back."""

    def forward(self, x: Tensor) -> Tensor:
        """Return what came in, by way of views alone."""
        return x.view(-1, 4, 4).transpose(0, 1).transpose(0, 1).reshape(x.shape)


def tiny_layers(blocks: int = 4) -> nn.Module:
    """Layers so small that only what surrounds their operators takes time."""
    block = (nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU(), Heads(), nn.Dropout(0.0))
    return nn.Sequential(*(each for _ in range(blocks) for each in block)).train()


class SmallAttention(nn.Module):
    """A block of a Transformer, so small that only the host takes time."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(2))
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Attend over tokens, then work on each; both are added to what came in."""
        heads = self.qkv(self.norms[0](x_BTC)).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        x_BTC = x_BTC + self.dropout(self.out(mixed))
        return x_BTC + self.dropout(self.mlp(self.norms[1](x_BTC)))


class SmallConvolution(nn.Module):
    """A block of a residual network, so small that only the host takes time."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Convolve and norm twice; that is added to what came in."""
        out_BCHW = torch.relu(self.norms[0](self.convolutions[0](x_BCHW)))
        return torch.relu(x_BCHW + self.norms[1](self.convolutions[1](out_BCHW)))


def overheads(last_cache_bytes: int, flush: Work) -> tuple[KernelPoint, ...]:
    """Time what is no operator's own work on a CPU; each point's ``warm_s`` is what its name says.

    Those of `host_overheads`; and ``fresh pages``: seconds to have ``moved_bytes`` mapped, cleared and taken back.
    ``flush``: seconds that ``flush`` costs an operator which touches next to nothing. ``forgotten``: share of a block
    that must come from memory once ``moved_bytes`` of others were touched since.
    """
    return (*host_overheads(), _pages(), _flushed(flush), *_forgotten(last_cache_bytes))


def host_overheads() -> tuple[KernelPoint, ...]:
    """Time what the host does beside operators.

    ``forward overhead``, ``backward overhead``: seconds beside an operator, as small layers take them over the sum of
    their operators called alone. ``parameter overhead``: seconds of a parameter in clipping and update, likewise. And
    those of `watched`.
    """
    whole = Phases(tiny_layers(), torch.randn(4, 16))
    return (
        _beside(FORWARD, whole.forward(), whole.ahead, len(whole.ahead.order)),
        _beside(BACKWARD, whole.backward(), whole.behind, len(whole.behind.order)),
        _beside(PARAMETER, whole.update(), whole.updating, whole.parameters),
        *watched(nn.Sequential(*(SmallAttention() for _ in range(4))), torch.randn(2, 4, 16)),
    )


def watched(model: nn.Module, x: Tensor) -> Iterator[KernelPoint]:
    """Seconds that an operator costs the host more where checkpointing looks at it in Python, full or selective."""

    def policy(*_: object, **__: object) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE

    with Captured() as captured:
        model(x)
    plain = repeated(lambda: model(x), 15)
    ways: dict[str, Any] = {
        "hooks": noop_context_fn,
        "selective": functools.partial(create_selective_checkpoint_contexts, policy),
    }
    for name, contexts in ways.items():
        taken = repeated(functools.partial(checkpoint, model, x, use_reentrant=False, context_fn=contexts), 15)
        more_s = max(taken.median_s - plain.median_s, 0.0) / len(captured.order)
        yield aside(f"{WATCHED} {name}", more_s, taken.spread, 1, 0)


class Phases:
    """The phases of a step of a small model, each to be timed alone.

    Attributes:
        ahead, behind, updating: operators of the forward pass, of the backward pass, of clipping and update.
        parameters: number of tensors.
        modules: whose forward is called in a pass.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, cast: bool = False, optimizer: type[Optimizer] = torch.optim.SGD
    ) -> None:
        self._model, self._x, self._cast = model, x, cast
        self.loss().backward()
        with Captured() as self.ahead:
            loss = self.loss()
        with Captured() as self.behind:
            loss.backward()
        self._optimizer = optimizer(model.parameters(), lr=0.0, fused=True)  # type: ignore[call-arg]
        self._gradients = [parameter.grad for parameter in model.parameters()]
        self.parameters = len(self._gradients)
        self.modules = self._modules()
        # the first makes the optimizer's states
        self._update()
        self._give_back()
        with Captured() as self.updating:
            self._update()
        self._give_back()

    def parts(self, phase: str) -> int:
        """Count what a phase costs by: the modules of a forward pass, operators backward, parameters of an update."""
        return {"forward": self.modules, "backward": len(self.behind.order), "update": self.parameters}[phase]

    def _modules(self) -> int:
        entered: list[nn.Module] = []
        hooks = [
            each.register_forward_pre_hook(lambda module, _: entered.append(module)) for each in self._model.modules()
        ]
        self.loss()
        for hook in hooks:
            hook.remove()
        return len(entered)

    def beside(self, phase: str) -> float:
        """Seconds of a phase over the sum of its operators called alone."""
        timing = {"forward": self.forward, "backward": self.backward, "update": self.update}[phase]()
        captured = {"forward": self.ahead, "backward": self.behind, "update": self.updating}[phase]
        return timing.median_s - alone_seconds(captured)

    def forward(self) -> Timing:
        """Time the forward pass."""
        return repeated(self.loss, _REPEATS, burst=3)

    def backward(self) -> Timing:
        """Time the backward pass."""
        losses: list[Tensor] = []
        return repeated(lambda: losses.pop().backward(), _REPEATS, before=lambda: losses.append(self.loss()))

    def update(self) -> Timing:
        """Time clipping and update."""
        return repeated(self._update, _REPEATS, before=self._give_back)

    def loss(self) -> Tensor:
        """Run the forward pass."""
        with torch.autocast(self._x.device.type, torch.bfloat16, enabled=self._cast):
            loss: Tensor = self._model(self._x).float().sum()
        return loss

    def _update(self) -> None:
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _give_back(self) -> None:
        for parameter, gradient in zip(self._model.parameters(), self._gradients, strict=True):
            parameter.grad = gradient


def _beside(name: str, whole: Timing, captured: Captured, parts: int) -> KernelPoint:
    return aside(name, max(whole.median_s - alone_seconds(captured), 0.0) / parts, whole.spread, 1, 0)


def alone_seconds(captured: Captured) -> float:
    """Seconds of captured operators, each kind called alone."""
    with torch.no_grad():
        alone = {key: repeated(call.again, 5, burst=5).median_s for key, call in captured.calls.items()}
    return sum(alone[key] for key in captured.order)


def _pages() -> KernelPoint:
    """Seconds to map, clear and give back fresh pages, over writing to those that are there."""
    count = _FRESH_BYTES // 4
    there = torch.empty(count).fill_(0.5)

    def fresh() -> None:
        torch.empty(count).fill_(0.5)

    def again() -> None:
        there.fill_(0.5)

    whole, written = repeated(fresh, 5), repeated(again, 5)
    return aside(PAGES, max(whole.median_s - written.median_s, 0.0), whole.spread, 1, _FRESH_BYTES)


def _flushed(flush: Work) -> KernelPoint:
    small = torch.ones(256)
    warm, cold = repeated(lambda: small + 1.0, 7, burst=5), repeated(lambda: small + 1.0, 7, before=flush)
    return aside(FLUSH, max(cold.median_s - warm.median_s, 0.0), cold.spread, 1, 0)


def _forgotten(last_cache_bytes: int) -> list[KernelPoint]:
    # a copy of an eighth of the cache to another: large beside what emptying the caches costs any operator
    source = torch.ones(last_cache_bytes // 8 // 4)
    target = torch.ones_like(source)
    sizes = [int(last_cache_bytes * distance) for distance in _DISTANCES]
    seconds = []
    for size in sizes:
        other = torch.ones(size // 4)
        seconds.append(repeated(lambda: target.copy_(source), 5, before=functools.partial(other.mul_, 1.0)).median_s)
    least, most = min(seconds), max(seconds)
    shares = [(each - least) / max(most - least, 1e-9) for each in seconds]
    return [aside(FORGOTTEN, share, 0.0, 1, size) for share, size in zip(shares, sizes, strict=True)]


def aside(name: str, seconds: float, spread: float, tensors: int, moved_bytes: int, dtype: str = "") -> KernelPoint:
    """Make the point of what is no operator."""
    return KernelPoint(
        name=name, dtype=dtype, shapes="", layouts="", tensors=tensors, moved_bytes=moved_bytes,
        warm_s=seconds, cold_s=seconds, spread=spread,
    )  # fmt: skip
