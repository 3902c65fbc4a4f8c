"""Turn ways into the rows of a `Proposal`: which of a front are worth showing, and in which words."""

from __future__ import annotations

from collections.abc import Sequence

from thrifty.planner.explain import quote_of, words
from thrifty.planner.search import Found, Settings, Way
from thrifty.spec import Budget, Cost
from thrifty.spec.proposal import Limit, Mark, Offer
from thrifty.spec.units import format_bytes, format_joules, format_seconds, format_usd

# a row of the front must take this much less memory than the one before it to be worth a line
LESS_MEMORY = 0.1
# and one that takes longer than so many times the chosen way is no answer to anything
MOST_LONGER = 2.0
FORMATS = {"peak_bytes": format_bytes, "seconds": format_seconds, "joules": format_joules, "usd": format_usd}
NAMES = {"peak_bytes": "memory", "seconds": "time", "joules": "energy", "usd": "money"}


def offer(
    way: Way, mark: Mark, *, than: Settings | None = None, remark: str = "", fits: bool = True, batch: int = 0
) -> Offer:
    """Make a row of a way; beside another way it may say only what differs, of a ``batch`` only how it is cut."""
    quote = quote_of(way)
    return Offer(
        says=words(way.settings, than, batch=batch),
        settings=dict(way.settings),
        cost=quote.cost,
        step_seconds=quote.step_seconds,
        mark=mark,
        remark=remark,
        fits=fits,
    )


def front_offers(found: Found, most: int, *, batch: int = 0) -> list[Offer]:
    """Return the chosen way, then those of the front that trade time for memory in steps worth a line.

    Args:
        found: by a search.
        most: rows at most, the chosen one included.
        batch: samples of a step on one device; a micro-batch of as many goes without saying.
    """
    chosen = found.choice
    if chosen is None:
        return []
    rows = [offer(chosen, "chosen", batch=batch)]
    fastest = min(found.front, key=lambda way: way.price.seconds)
    if fastest.price.seconds < 0.99 * chosen.price.seconds:
        rows.append(offer(fastest, "front", than=chosen.settings, remark="the fastest"))
    steps = []
    last = chosen.price.peak_bytes
    for way in found.front:
        worth = way.price.seconds <= MOST_LONGER * chosen.price.seconds
        if worth and way.price.peak_bytes <= last * (1 - LESS_MEMORY):
            steps.append(way)
            last = way.price.peak_bytes
    for way in _spread(steps, most - len(rows)):
        remark = "the least memory" if way is steps[-1] else ""
        rows.append(offer(way, "front", than=chosen.settings, remark=remark))
    return rows


def limits_beside(cost: Cost, budget: Budget, memory: tuple[float, str]) -> tuple[Limit, ...]:
    """Set a cost beside the job's budget and the memory there is.

    Args:
        cost: of the chosen way.
        budget: of the job.
        memory: bytes there are, and what of; the budget's own limit is taken where it is lower.
    """
    most, said = memory
    if budget.memory is not None and budget.memory <= most:
        most, said = budget.memory, "your budget"
    asked = {"seconds": budget.time, "joules": budget.energy, "usd": budget.money}
    given = [("peak_bytes", most, said), *((name, limit, "your budget") for name, limit in asked.items() if limit)]
    return tuple(
        Limit(
            quantity=name,
            limit=limit,
            predicted=getattr(cost, name).value,
            high=getattr(cost, name).high,
            says=says,
        )
        for name, limit, says in given
    )


def _spread(ways: Sequence[Way], most: int) -> list[Way]:
    """Take at most so many of a row, its last among them, evenly."""
    if len(ways) <= most:
        return list(ways)
    return [ways[round((index + 1) * len(ways) / most) - 1] for index in range(most)] if most > 0 else []
