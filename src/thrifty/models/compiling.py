"""Compilation from outside: the repeated blocks of any model, or all of it, run as kernels made for their shapes.

Blocks of one class and shape share one compilation, however many there are (PyTorch's "regional compilation"), so that
its seconds do not grow with the depth. What is learned stays the same to rounding.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thrifty.errors import JobError, unknown_name
from thrifty.models.chunked_loss import Pull, pull_in_place, pull_of
from thrifty.models.recompute import repeated_blocks
from thrifty.spec import KINDS, BatchPlan, KindName
from thrifty.spec.events import Compiled, Event, Warned

COMPILE = ("none", "blocks", "whole")
# kinds of blocks and of shapes that a model may have before torch would leave the rest as it is: a ResNet has eight
MOST_COMPILATIONS = 64
# characters of an error that are told
_SAID = 300


def compiling(
    model: nn.Module,
    how: str,
    *,
    samples: Collection[int] = (),
    lengths_vary: bool = False,
    backend: str | Callable[..., Any] = "inductor",
) -> nn.Module:
    """Have a model compile itself when it first computes what a gradient is wanted of; returns the model.

    Without gradients it runs as it was made, so that batches of a validation, of other shapes, compile nothing. The
    last call counts; names of parameters and buffers do not change. What cannot be compiled runs as it was made, which
    `compile_news` tells. Call it before `recomputing`, which then computes
    compiled blocks again, and take both away in the other order.

    Args:
        model: any module; its blocks are found by `repeated_blocks`.
        how: ``none``, as the model was made; ``blocks``, each block, and what a large vocabulary's loss takes beside
            its products where the model has one; ``whole``, the model in one piece.
        samples: of a batch, counts that are worth a compilation; others run as the model was made. All are when left
            out.
        lengths_vary: one compilation serves all lengths, at some loss of speed.
        backend: of ``torch.compile``.

    Raises:
        JobError: an unknown way, a model without repeated blocks, or a forward that others have put in place.

    >>> model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(3)))
    >>> [type(block.forward).__name__ for block in compiling(model, "blocks", backend="eager")]
    ['_Compiled', '_Compiled', '_Compiled']
    >>> [type(block.forward).__name__ for block in compiling(model, "none")]
    ['method', 'method', 'method']
    """
    if how not in COMPILE:
        raise unknown_name("way of compiling", how, COMPILE)
    _undo(model)
    if how == "none":
        return model
    parts = [model] if how == "whole" else list(repeated_blocks(model))
    if not parts:
        raise JobError(f"{type(model).__name__} has no repeated blocks to compile", mend="Use compile 'whole'.")
    for part in parts:
        if "forward" in vars(part):
            raise JobError(
                f"the forward of {type(part).__name__} is replaced by {type(part.forward).__name__}, and only a "
                "module's own is compiled",
                mend="Use compile 'none'.",
            )
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_COMPILATIONS)
    run = torch.compile(_run, dynamic=lengths_vary, backend=backend)
    gate = _Gate(frozenset(samples))
    gate.handle = model.register_forward_pre_hook(gate)
    for part in parts:
        part.forward = _Compiled(part, run, gate)
    if getattr(model, "head_weight", None) is not None:
        model.pull_of = _Pull(torch.compile(pull_of, dynamic=lengths_vary, backend=backend), gate)  # type: ignore[assignment]
    return model


def compiled_for(batch: BatchPlan, kind: KindName) -> dict[str, Any]:
    """Return the keywords of `compiling` for the micro-batches of a whole step of data of a kind.

    >>> sorted(compiled_for(BatchPlan(size=10, micro=4, accumulation=3, evaluation=4), "image")["samples"])
    [3, 4]
    """
    if KINDS[kind].varies or batch.batching == "packed":
        return {"lengths_vary": True}
    return {"samples": {batch.size // batch.accumulation, math.ceil(batch.size / batch.accumulation)}}


def compile_seconds() -> float:
    """Return the seconds that this process has spent in compiling so far."""
    if "torch._dynamo" not in sys.modules:
        return 0.0
    spent_ns = torch._dynamo.utils.cumulative_time_spent_ns
    return sum(spent_ns.get(phase, 0.0) for phase in ("entire_frame_compile", "entire_backward_compile")) / 1e9


def compile_news(model: nn.Module, step: int, seconds: float) -> Iterator[Event]:
    """Say what was compiled in a step that spent so many seconds in it, or why that failed."""
    if not seconds:
        return
    parts = [forward for _, forward in _compiled(model)]
    failure = parts[0].gate.failure if parts else ""
    if failure:
        yield Warned(f"compiling failed, and the model runs as it was made: {failure}")
    else:
        yield Compiled(step, len(parts), seconds)


def compiled_parts(model: nn.Module) -> int:
    """Count the modules that run compiled: blocks, or the model itself."""
    return sum(1 for _ in _compiled(model))


def lacking(device: str) -> str:
    """Name the tool that compiling for a device needs and this machine lacks; empty where it has all.

    Args:
        device: ``cpu``, whose code is C++; ``cuda``, whose kernels Triton makes, with a C compiler for their launch.
    """
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton"
    own, names = ("CC", ("gcc", "clang", "cc")) if device == "cuda" else ("CXX", ("g++", "clang++"))
    if not any(map(shutil.which, filter(None, (os.environ.get(own), *names)))):
        return f"a {'C' if device == 'cuda' else 'C++'} compiler ({' or '.join(names)})"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "the headers of Python (Python.h)"
    return ""


def _run(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """What is compiled: a module is an argument, so that its likes share the code."""
    return type(module).forward(module, *args, **kwargs)


class _Gate:
    """Looks at each batch that goes into a model: whether its parts are to run compiled."""

    handle: torch.utils.hooks.RemovableHandle

    def __init__(self, samples: frozenset[int]) -> None:
        self._samples, self.open, self.failure = samples, True, ""

    def __call__(self, model: nn.Module, args: tuple[Any, ...]) -> None:
        self.open = not self.failure and (not self._samples or len(args[0]) in self._samples)

    def fails(self, error: Exception) -> None:
        """Run nothing compiled from here on."""
        self.open, self.failure = False, " ".join(str(error).split())[:_SAID]


class _Compiled:
    """The forward of a module, compiled where a gradient is wanted; ``plain`` is the module's own."""

    def __init__(self, module: nn.Module, run: Callable[..., Any], gate: _Gate) -> None:
        self._module, self.plain, self._run, self.gate = module, module.forward, run, gate
        functools.update_wrapper(self, module.forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and self.gate.open:
            try:
                return self._run(self._module, *args, **kwargs)
            except torch._dynamo.exc.TorchDynamoException as error:
                self.gate.fails(error)
        return self.plain(*args, **kwargs)


class _Pull:
    """`pull_of`, compiled for the batches that are."""

    def __init__(self, run: Pull, gate: _Gate) -> None:
        self._run, self._gate = run, gate

    def __call__(self, logits_nV: Tensor, y_n: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
        if self._gate.open:
            try:
                return self._run(logits_nV, y_n, ignored)
            except torch._dynamo.exc.TorchDynamoException as error:
                self._gate.fails(error)
        return pull_in_place(logits_nV, y_n, ignored)


def _compiled(model: nn.Module) -> Iterator[tuple[nn.Module, _Compiled]]:
    for module in model.modules():
        if isinstance(module.forward, _Compiled):
            yield module, module.forward


def _undo(model: nn.Module) -> None:
    for module, forward in list(_compiled(model)):
        forward.gate.handle.remove()
        del module.forward
    vars(model).pop("pull_of", None)
