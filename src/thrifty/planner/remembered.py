"""What plans of like models share while they are made one after the other: traces, and what fake tensors said."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from thrifty.cost import Trace
from thrifty.cost.hearsay import Hearsay
from thrifty.models import FAMILIES
from thrifty.planner.learning import Learning


@dataclass
class _Memory:
    """Traces by what decides them, and what dry runs of a model told each other."""

    traces: dict[tuple[object, ...], Trace] = field(default_factory=dict)
    told: dict[str, Hearsay] = field(default_factory=dict)


_MEMORY: ContextVar[_Memory | None] = ContextVar("memory", default=None)


@contextlib.contextmanager
def remembering() -> Iterator[None]:
    """Trace each step once within, however many plans ask for it: for runs of a few sizes that differ in all else."""
    if _MEMORY.get() is not None:
        yield
        return
    memory = _Memory()
    before = _MEMORY.set(memory)
    try:
        yield
    finally:
        _MEMORY.reset(before)
        for each in memory.told.values():
            each.close()


def remembered(learning: Learning, asked: tuple[object, ...], make: Callable[[], Trace]) -> Trace:
    """Make a trace, or find the one that was made of the same.

    Args:
        learning: whose model is traced.
        asked: what else decides the trace.
        make: it.
    """
    memory = _MEMORY.get()
    # the files of other models may change
    if memory is None or learning.model.family not in FAMILIES:
        return make()
    of_model = (learning.model.model_dump_json(), learning.adapt.model_dump_json(), learning.traits)
    key = (*of_model, learning.task, learning.optim.optimizer, learning.rows, *asked)
    if key not in memory.traces:
        memory.traces[key] = make()
    return memory.traces[key]


@contextlib.contextmanager
def hearsay(learning: Learning) -> Iterator[Hearsay]:
    """Give what dry runs of a model tell each other, and told before."""
    memory = _MEMORY.get()
    if memory is None:
        with contextlib.closing(Hearsay()) as told:
            yield told
        return
    key = learning.model.model_dump_json()
    if key not in memory.told:
        memory.told[key] = Hearsay()
    yield memory.told[key]
