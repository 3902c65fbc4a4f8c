"""Where memory goes over a step: bytes held at each operator, and by what; the peak, its instant, its holders."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from thrifty.cost.trace import Trace

HOLDERS = ("weights", "optimizer states", "inputs", "gradients", "activations", "temporaries")
_TOP_MODULES = 8


@dataclass(frozen=True)
class Timeline:
    """Bytes alive over one step, in its steady state: the optimizer's states are there from the start.

    Attributes:
        bytes: by holder of `HOLDERS`, at each operator; all lists are as long as ``ops``.
        ops: label of each operator: phase, module and name.
        peak_op: index of the operator at which most is alive.
        peak_bytes: alive then.
        holds: bytes by holder then.
        modules: the modules whose results hold most of the working memory then, with bytes, largest first.
    """

    bytes: dict[str, tuple[int, ...]]
    ops: tuple[str, ...]
    peak_op: int
    peak_bytes: int
    holds: dict[str, int]
    modules: tuple[tuple[str, int], ...]


def timeline(trace: Trace, *, accumulating: bool = False) -> Timeline:
    """Replay a traced step.

    Args:
        trace: of one micro-batch.
        accumulating: gradients of earlier micro-batches are there from the start.

    >>> import torch
    >>> from thrifty.cost import trace_step
    >>> step = trace_step(
    ...     lambda: torch.nn.Linear(4, 2),
    ...     lambda model, batch: (model(batch["x"]).sum(), 8),
    ...     {"x": ((8, 4), "float32")},
    ...     precision="fp32",
    ...     optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    ... )
    >>> timeline(step).holds["weights"], timeline(step).holds["inputs"]
    (40, 128)
    """
    steady = {
        "weights": trace.parameter_bytes + trace.buffer_bytes,
        "optimizer states": trace.optimizer_bytes,
        "inputs": trace.input_bytes,
        "gradients": trace.gradient_bytes if accumulating else 0,
        "activations": 0,
        "temporaries": 0,
    }
    labels = _labels(trace)
    now, most = dict(steady), dict(steady)
    alive: set[int] = set()
    rows: list[dict[str, int]] = []
    peak_op, peak_alive, peak = 0, frozenset[int](), dict(steady)
    for number, event in trace.step.events:
        block = trace.step.blocks[number]
        op = min(event if event >= 0 else -event - 1, len(labels) - 1)
        while len(rows) < op:
            rows.append(most)
            most = dict(now)
        if block.role != "state":
            sign = 1 if event >= 0 else -1
            now[block.holds] += sign * block.bytes
            (alive.add if event >= 0 else alive.discard)(number)
        if sum(now.values()) > sum(most.values()):
            most = dict(now)
        if sum(now.values()) > sum(peak.values()):
            peak_op, peak_alive, peak = op, frozenset(alive), dict(now)
    rows.append(most)
    rows += [dict(now)] * (len(labels) - len(rows))
    modules: Counter[str] = Counter()
    for number in peak_alive:
        block = trace.step.blocks[number]
        if block.op < len(trace.ops):
            modules[trace.ops[block.op].module or "the loss and the optimizer"] += block.bytes
    return Timeline(
        bytes={holder: tuple(row[holder] for row in rows) for holder in HOLDERS},
        ops=labels,
        peak_op=peak_op,
        peak_bytes=sum(peak.values()),
        holds=peak,
        modules=tuple(modules.most_common(_TOP_MODULES)),
    )


def _labels(trace: Trace) -> tuple[str, ...]:
    return tuple(f"{op.phase} · {op.module or '–'} · {op.name}" for op in trace.ops) or ("nothing",)
