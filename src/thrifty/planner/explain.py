"""Say why a way was chosen: for each field, what the best way with any other value would take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thrifty.planner.moves import name_of
from thrifty.planner.search import Bound, Price, Settings, Space, Way, search
from thrifty.spec import Cost, Decision
from thrifty.spec.units import format_bytes

# Differences under this are not worth a word: no prediction here is that sharp.
NEGLIGIBLE = 0.005
MEMORY_TOLD = 0.02
NOTHING_ELSE = "nothing else divides"
# said as one product, in this order
DEGREES_TOLD = ("tensor", "pipeline", "context", "data")


@dataclass(frozen=True)
class Quote:
    """What is known of a way beyond its price.

    Attributes:
        cost: of the whole training, with intervals; ``peak_bytes`` of one device.
        step_seconds: of one optimizer step.
        time_goes: shares of a step.
        memory_holds: bytes at the peak.
        note: a prediction outside what was calibrated says so here; else empty.
    """

    cost: Cost
    step_seconds: float
    time_goes: Mapping[str, float]
    memory_holds: Mapping[str, float]
    note: str = ""


def quote_of(way: Way) -> Quote:
    """Return the quote that a way was priced with."""
    assert isinstance(way.price.detail, Quote)
    return way.price.detail


def words(settings: Settings, than: Settings | None = None, *, batch: int = 0) -> str:
    """Say a way in the words of its moves; beside another way, only what differs, while that is little.

    A micro-batch that is the whole ``batch`` goes without saying.

    >>> chosen = {"precision": "bf16", "tensor": 8, "checkpointing": "full", "offload": False}
    >>> words(chosen)
    'bf16 · tensor 8 · checkpointed'
    >>> words({"precision": "bf16", "zero": 1, "tensor": 4, "data": 2, "checkpointing": "none"})
    'bf16 · tensor 4 x data 2 · ZeRO-1'
    >>> words({**chosen, "tensor": 4}, than=chosen)
    'the same, tensor 4'
    """
    if than is not None:
        differs = [field for field in settings if settings[field] != than[field]]
        if 0 < len(differs) <= 2:
            return "the same, " + ", ".join(name_of(field, settings[field]) for field in differs)
    degrees = [f"{field} {settings[field]}" for field in DEGREES_TOLD if settings.get(field, 1) != 1]
    said = {
        field: name_of(field, value)
        for field, value in settings.items()
        if field not in DEGREES_TOLD and not _plain(field, value) and not (field == "micro_batch" and value == batch)
    }
    first = [said.pop(field) for field in ("precision",) if field in said]
    return " · ".join([*first, *([" x ".join(degrees)] if degrees else []), *said.values()])


def decisions(
    chosen: Way,
    space: Space,
    price: Price,
    *,
    limits: Mapping[str, float],
    bounds: Sequence[Bound],
    fixed: Sequence[str] = (),
) -> list[Decision]:
    """Give a reason for each field of the chosen way by the best way that has another value there; what matters first.

    Args:
        chosen: the way.
        space, price, limits, bounds: as they were searched.
        fixed: fields that the job decided.
    """
    ranked: list[tuple[float, Decision]] = []
    for field, value in chosen.settings.items():
        if field in fixed:
            line = Decision(field=field, value=str(value), reason="asked for in the job", source="job")
            ranked.append((0.0, line))
            continue
        others = [each for each in space.dimensions[field] if each != value]
        if not others:
            continue
        without = Space({**space.dimensions, field: others}, space.constraints)
        found = search(without, price, limits=limits, bounds=bounds, objectives=("seconds",))
        best = found.choice
        if best is not None:
            reason, doubt = _compare(chosen, best, field)
            loss = best.price.seconds / chosen.price.seconds
        else:
            reason, doubt = _nothing_else(without, price, limits, bounds, field), ""
            loss = 0.0 if reason == NOTHING_ELSE else math.inf
        line = Decision(field=field, value=str(value), reason=reason, source="search", doubt=doubt)
        ranked.append((loss, line))
    return [line for _, line in sorted(ranked, key=lambda pair: -pair[0])]


def _plain(field: str, value: object) -> bool:
    """Whether a value goes without saying: it is what a step on one device would have."""
    usual = {"checkpointing": "none", "offload": False, "state_bytes": 4, "zero": 0, "memory_format": "contiguous"}
    return value == usual[field] if field in usual else value == 1 and field != "micro_batch"


def _compare(chosen: Way, best: Way, field: str) -> tuple[str, str]:
    slower = best.price.seconds / chosen.price.seconds - 1
    saved = 1 - best.price.peak_bytes / chosen.price.peak_bytes
    name = name_of(field, best.settings[field])
    seconds = quote_of(chosen).cost.seconds
    spread = seconds.high / seconds.value - 1
    doubt = f"less than the {100 * spread:.0f} % the prediction may be off" if abs(slower) < spread else ""
    memory = (
        f" and {100 * abs(saved):.0f} % {'less' if saved > 0 else 'more'} memory" if abs(saved) > MEMORY_TOLD else ""
    )
    if abs(slower) <= NEGLIGIBLE:
        return f"the best way with {name} takes as long{memory}", doubt
    if slower > 1:
        return f"the best way with {name} takes {1 + slower:.1f} times as long{memory}", doubt
    share = f"{abs(slower):.1%}".replace("%", " %")
    return f"the best way with {name} takes {share} {'longer' if slower > 0 else 'less time'}{memory}", doubt


def _nothing_else(space: Space, price: Price, limits: Mapping[str, float], bounds: Sequence[Bound], field: str) -> str:
    """Every other value oversteps a limit: by how much at least, if it is memory."""
    most = limits.get("peak_bytes", float("inf"))
    nearest = search(space, price, limits={}, bounds=bounds, objectives=("peak_bytes",)).front
    if not nearest:
        return NOTHING_ELSE
    least = nearest[0]
    if least.price.peak_bytes > most:
        name = name_of(field, least.settings[field])
        return f"with any other it does not fit: {name} needs at least {format_bytes(least.price.peak_bytes)}"
    return "with any other it does not keep the budget"
