"""`Traced`: where a step's memory and time go by its trace: predicted, nothing of it ran."""

from __future__ import annotations

from thrifty.spec.plain import Plain
from thrifty.spec.proposal import Timeline


class Traced(Plain):
    """One micro-batch of the planned training, replayed from its trace.

    Attributes:
        peak_at: phase, module and operator at which most memory is alive.
        peak_bytes: alive then, as predicted of the whole process or accelerator.
        holds: bytes by what holds them then.
        modules: bytes of results alive then by the module that made them, the most first.
        timeline: memory over the step.
        seconds_by_module: of a micro-batch, by module, repeated blocks together; the most first.
        seconds_by_op: of a micro-batch, by kind of operator; the most first.
    """

    peak_at: str
    peak_bytes: float
    holds: dict[str, float]
    modules: dict[str, float]
    timeline: Timeline
    seconds_by_module: dict[str, float]
    seconds_by_op: dict[str, float]
