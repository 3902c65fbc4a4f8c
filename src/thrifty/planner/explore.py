"""The ways of doing a job on the machine at hand, each traced and priced, the most promising first.

A trace takes a second or two, so not every combination is tried: the moves that gain most are tried one after another
from the best way so far, and trying stops when it has cost a hundredth of the training it plans, or a few seconds.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

from thrifty.errors import BudgetError, JobError
from thrifty.planner.local import Local
from thrifty.planner.search import Found, Settings, Space, Way, search
from thrifty.planner.settle import settle
from thrifty.spec.units import format_bytes

# Trying another way stops when what was tried took this share of the training it plans, within these seconds.
PATIENCE_SHARE, LEAST_PATIENCE_SECONDS, MOST_PATIENCE_SECONDS = 0.01, 2.0, 3.0


def explore(local: Local) -> Found:
    """Try ways from the most promising on; return those tried, their front and the choice.

    Raises:
        BudgetError: not even one sample at a time fits.
    """
    began = time.perf_counter()
    dimensions = local.dimensions()
    best: Way | None = None
    for settings in _plain_first(dimensions):
        best = _better(local, best, local.widest(settings))
        if best is not None and _spent(best, began):
            break
    micro = best.settings["micro_batch"] if best is not None and local.job.plan.micro_batch is None else 1
    while best is not None and micro > 1 and math.ceil(micro / 2) >= local.fewest and not _spent(best, began):
        micro = math.ceil(micro / 2)
        way = local.way({**best.settings, "micro_batch": micro})
        if way.price.seconds > 1.1 * best.price.seconds:
            break  # smaller ones pay the overheads of an operator for fewer samples
        best = _better(local, best, way)
    if best is None or not local.fits(best):
        best = _until_it_fits(local, dimensions, best, began)
    else:
        _try_checkpointing(local, dimensions["checkpointing"][1:], best, began)
    if best is None:
        raise _too_small(local, dimensions)
    for other in dimensions.get("batching", ())[:-1]:
        local.way({**best.settings, "batching": other})
        if other == "packed" and best.settings["micro_batch"] < local.learning.size:
            local.widest({**best.settings, "batching": other})  # less padding leaves room for more samples at once
    settle(local)
    ways = list(local.known.values())
    space = Space({"at": range(len(ways))})
    found = search(space, lambda settings: ways[settings["at"]].price, limits=local.limits)
    if found.choice is None:
        raise _too_small(local, dimensions)
    own = {id(way.price): way for way in ways}

    def named(each: Way) -> Way:
        return own[id(each.price)]

    return Found(
        feasible=tuple(map(named, found.feasible)),
        front=tuple(map(named, found.front)),
        choice=named(found.choice),
        candidates=math.prod(map(len, dimensions.values())) * (math.floor(math.log2(local.share)) + 1),
        priced=len(ways),
    )


def _until_it_fits(local: Local, dimensions: dict[str, tuple[Any, ...]], best: Way | None, began: float) -> Way | None:
    """Compute more and more again, until some way fits; the best there is, None where no way takes even one sample.

    Code of a model that does not bear being run twice leaves that way out.
    """
    for how in dimensions["checkpointing"][1:]:
        for plain in _plain_first(dimensions):
            settings = {**plain, "checkpointing": how}
            with contextlib.suppress(JobError):
                one = local.peak({**settings, "micro_batch": local.fewest})
                if one.high <= local.memory[0]:
                    best = _better(local, best, local.widest(settings))
        if best is not None and local.fits(best):
            whole = best.settings["micro_batch"] in (local.job.plan.micro_batch, local.share)
            if whole or _spent(best, began):
                break
    return best


def _try_checkpointing(local: Local, kinds: Sequence[str], best: Way, began: float) -> None:
    """Price what computes more again than the best way: where that lets more samples through at once, or to show it.

    Computing again never makes a micro-batch faster. So it can only win where memory cut the micro-batch and the whole
    batch would have been faster; elsewhere it is shown for its memory, while there is patience for a trace.
    """
    settings, size = best.settings, local.share
    cut = settings["micro_batch"] < size and not local.job.plan.micro_batch
    if cut and local.price({**settings, "micro_batch": size}).seconds < best.price.seconds:
        for how in kinds:
            with contextlib.suppress(JobError):
                local.widest({**settings, "checkpointing": how})
            if _spent(best, began):
                break
        return
    for how in reversed(kinds):
        if _spent(best, began):
            break
        with contextlib.suppress(JobError):
            local.way({**settings, "checkpointing": how})


def _better(local: Local, one: Way | None, other: Way | None) -> Way | None:
    """The faster of two ways, where both or none fit."""
    ways = [way for way in (one, other) if way is not None]
    return min(ways, key=lambda way: (not local.fits(way), way.price.seconds), default=None)


def _plain_first(dimensions: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Combinations with the likeliest gain first: channels-last where there is a choice, then the cheaper precision.

    Of checkpointing the first value alone: the others never make a micro-batch faster.
    """
    # texts of like length together first: they are seldom slower
    rest = {"checkpointing": dimensions["checkpointing"][0]}
    if "batching" in dimensions:
        rest["batching"] = dimensions["batching"][-1]
    formats = sorted(dimensions["memory_format"], key=lambda value: value != "channels_last")
    for precision in reversed(dimensions["precision"]):
        yield {"precision": precision, "memory_format": formats[0], **rest}
    for other in formats[1:]:
        for precision in reversed(dimensions["precision"]):
            yield {"precision": precision, "memory_format": other, **rest}


def _spent(best: Way, began: float) -> bool:
    patience = min(max(LEAST_PATIENCE_SECONDS, PATIENCE_SHARE * best.price.seconds), MOST_PATIENCE_SECONDS)
    return time.perf_counter() - began > patience


def _too_small(local: Local, dimensions: dict[str, tuple[Any, ...]]) -> BudgetError:
    plain, needed = next(_plain_first(dimensions)), {}
    for how in dimensions["checkpointing"]:
        with contextlib.suppress(JobError):
            needed[how] = local.peak({**plain, "checkpointing": how, "micro_batch": local.fewest}).high
    how = min(needed, key=lambda each: needed[each])
    samples = "one sample at a time needs" if local.fewest == 1 else f"{local.fewest:,} samples at a time need"
    again = "" if how == "none" else f", with {how} checkpointing"
    lower = "Lower plan.micro_batch, raise" if local.job.plan.micro_batch and local.fewest > 1 else "Raise"
    if moved := _moved_out(local, {**plain, "checkpointing": how, "micro_batch": local.fewest}):
        lower = f"{moved}, {lower.lower()}"
    asked = local.job.budget.memory
    limit, beside = local.memory[0], ""
    if asked is not None and limit < asked:
        limit, beside = asked, f" beside {format_bytes(local.held)} that are held before the run" if local.held else ""
    return BudgetError(
        f"memory {format_bytes(limit)} is too small: {samples} about {format_bytes(needed[how])}{beside}{again}",
        mend=f"{lower} budget.memory, choose a smaller model, or plan on another machine: thrifty plan JOB --on any.",
    )


def _moved_out(local: Local, settings: Settings) -> str:
    """Say that a way would fit with its optimizer's states in another memory; an empty string where it would not."""
    other = local.offloading()
    if other is None:
        return ""
    peak = other.peak(settings).high
    return f"Set plan.offload: true (it needs {format_bytes(peak)})" if peak <= other.memory[0] else ""
