"""A traced step at any number of samples: on the line through traces of two, for all that is counted is affine in them.

Operators, blocks and the order in which they come are the same whatever the samples; sides, FLOPs and bytes grow by the
same amount with each. So two traces, of a second each, stand for every micro-batch there is. The one kink: a lookup
reads no more than its table, however many samples ask.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from thrifty.cost.allocations import Allocations
from thrifty.cost.recorder import Op
from thrifty.cost.trace import Trace
from thrifty.errors import JobError

# Small enough that nothing is slow, and apart; one sample alone can run by other operators than several.
SAMPLES = (4, 8)

_NUMBER = re.compile(r"\d+")
Line = Callable[[int, int], int]


@dataclass(frozen=True)
class ScaledTrace:
    """Two traces of the same step.

    Attributes:
        few, many: the traces.
        samples: in each of them.
    """

    few: Trace
    many: Trace
    samples: tuple[int, int] = SAMPLES

    def __post_init__(self) -> None:
        for one, other in zip(self.few.ops, self.many.ops, strict=False):
            if (one.name, one.phase, one.dtype) != (other.name, other.phase, other.dtype):
                raise self._differs(f"operator '{one.name}' of module '{one.module}' is '{other.name}' in the other")
        for name in ("step", "evaluation"):
            # what is let go at once is so in any order
            if sorted(getattr(self.few, name).events) != sorted(getattr(self.many, name).events):
                raise self._differs("they do not ask for memory in the same order")
        if len(self.few.ops) != len(self.many.ops):
            raise self._differs(f"{len(self.few.ops):,} operators and {len(self.many.ops):,}")

    def _differs(self, how: str) -> JobError:
        few, many = self.samples
        return JobError(
            f"steps of {few} and of {many} samples do different things: {how}; what lies between cannot be told",
            mend="Plan it on this machine, where each micro-batch is traced: leave out --on.",
        )

    @cached_property
    def _grown(self) -> frozenset[int]:
        """Indices of operators that depend on the samples."""
        pairs = zip(self.few.ops, self.many.ops, strict=True)
        return frozenset(index for index, (one, other) in enumerate(pairs) if one != other)

    def at(self, samples: int) -> Trace:
        """Return the trace of a step of so many samples.

        >>> import torch
        >>> from thrifty.cost import trace_step
        >>> def traced(samples):
        ...     return trace_step(
        ...         lambda: torch.nn.Linear(4, 2),
        ...         lambda model, batch: (model(batch["x"]).sum(), samples),
        ...         {"x": ((samples, 4), "float32")},
        ...         precision="fp32",
        ...         optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        ...     )
        >>> ScaledTrace(traced(4), traced(8)).at(100).forward_flops
        1600
        """
        few, many = self.samples

        def line(one: int, other: int) -> int:
            return one + round((other - one) * (samples - few) / (many - few))

        pairs = enumerate(zip(self.few.ops, self.many.ops, strict=True))
        return replace(
            self.few,
            ops=tuple(_op(one, other, line) if index in self._grown else one for index, (one, other) in pairs),
            step=_allocations(self.few.step, self.many.step, line),
            evaluation=_allocations(self.few.evaluation, self.many.evaluation, line),
            input_bytes=line(self.few.input_bytes, self.many.input_bytes),
        )


def _op(one: Op, other: Op, line: Line) -> Op:
    counted: dict[str, Any] = {
        name: line(getattr(one, name), getattr(other, name))
        for name in ("flops", "bytes_read", "bytes_written", "bytes_kept")
    }
    sides = iter(_NUMBER.findall(other.shapes))
    shapes = _NUMBER.sub(lambda found: str(line(int(found[0]), int(next(sides)))), one.shapes)
    touched = tuple((number, line(a, b)) for (number, a), (_, b) in zip(one.touched, other.touched, strict=True))
    return replace(one, shapes=shapes, touched=touched, **counted)


def _allocations(one: Allocations, other: Allocations, line: Line) -> Allocations:
    pairs = zip(one.blocks, other.blocks, strict=True)
    blocks = tuple(a if a.bytes == b.bytes else replace(a, bytes=line(a.bytes, b.bytes)) for a, b in pairs)
    return Allocations(blocks, one.events)
