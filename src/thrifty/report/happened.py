"""What happened to a run on its way, beside its steps: told in sentences, counted, and marked in the plots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from thrifty.report.words import Pair, pair, sentences
from thrifty.spec.events import (
    CheckpointDamaged,
    CheckpointFailed,
    CheckpointsRemoved,
    Compiled,
    Event,
    Lowered,
    Narrowed,
    Paused,
    RateLowered,
    Resumed,
    RolledBack,
    Skipped,
    Warned,
    WentOn,
)
from thrifty.spec.units import format_seconds


class Told(NamedTuple):
    """One thing that happened: a sentence, the time of work it wasted as text, and whether it is trouble."""

    says: str
    wasted: str
    trouble: bool


class Mark(NamedTuple):
    """A step at which the plots show that something happened, and the name of its kind in their keys."""

    step: int
    kind: str


def told(event: Event) -> str:
    """Say in a sentence what went wrong and what was done about it; empty for what goes as it should.

    >>> told(Skipped(7, float("nan"), 1.0, 4.2, 0.5))
    'step 7 was skipped: loss nan, gradient norm 1, at most 4.2 was expected; 500 ms wasted'
    """
    says = _trouble(event)
    return f"{says}; {wasted} wasted" if (wasted := _wasted(event)) else says


def _trouble(event: Event) -> str:
    match event:
        case Warned(message):
            return message
        case CheckpointFailed(step, reason):
            return f"step {step:,} could not be saved: {reason}; earlier checkpoints are whole, training goes on"
        case CheckpointDamaged(checkpoint, path, reason):
            return f"the checkpoint of step {checkpoint:,} is damaged: {reason}; it is kept as {path}"
        case CheckpointsRemoved(step, files):
            return f"removed to make room for the checkpoint of step {step:,}: {files}"
        case Skipped(step, loss, norm, bound):
            expected = f", at most {bound:.4g} was expected" if math.isfinite(bound) else ""
            return f"step {step:,} was skipped: loss {loss:.4g}, gradient norm {norm:.4g}{expected}"
        case RateLowered(step, until, factor, _, _, seconds):
            after = f", after {format_seconds(seconds)} of skipped steps" if seconds else ""
            return f"step {step:,}: the learning rate is {factor:g} of the schedule's until step {until:,}{after}"
        case RolledBack(step, to, factor):
            return f"step {step:,}: back to the weights of step {to:,}, at {factor:g} of the learning rate"
        case Narrowed(step, stage, before, to, reason):
            return f"{stage} at step {step:,}: {to:,} samples at once from here on, {before:,} until now: {reason}"
        case _:
            return ""


def noted(event: Event) -> str:
    """Say in a sentence what went as it should and is worth a line all the same; empty for the rest.

    >>> noted(Resumed(1500))
    'going on from step 1,500'
    """
    match event:
        case Compiled(step, parts, seconds):
            what = "the model" if parts == 1 else f"{parts} blocks"
            return f"compiled {what} in {format_seconds(seconds)}, at step {step:,}"
        case Resumed(step):
            return f"going on from step {step:,}"
        case Paused(step):
            return f"paused as asked{_at(step)}; what was learned is saved"
        case WentOn(step, seconds):
            return f"going on{_at(step)} after a pause of {format_seconds(seconds)}, which is on no bill"
        case Lowered(step, budget):
            # between the trials of a search there is no step
            where, what = (f"step {step:,}", "run") if step else ("here", "search")
            return f"the budget is lower from {where} on: {budget} of the whole {what}"
        case _:
            return ""


def _at(step: int) -> str:
    return f" at step {step:,}" if step else ""


def happened(events: Iterable[Event]) -> list[Told]:
    """Tell, in their order, the events that there is something to say of."""
    lines = []
    for event in events:
        trouble = _trouble(event)
        if says := trouble or noted(event):
            lines.append(Told(f"{says[:1].upper()}{says[1:]}", _wasted(event), bool(trouble)))
    return lines


def summary(events: Sequence[Event], wasted_s: float) -> Pair:
    """Count in a sentence or two what the guard and a lack of memory did to a run; empty where they did nothing.

    Args:
        events: of the run.
        wasted_s: seconds of training on steps that were skipped or rolled back.

    >>> summary([Skipped(7, 9.0, 1.0, 4.2, 0.5), RolledBack(8, 2, 0.5, 9.0, 1.0, 2.0)], 2.5).en
    '1 step was skipped and weights were rolled back once: 2.5 s of training wasted.'
    """
    skipped, lowered, back = (_count(events, kind) for kind in (Skipped, RateLowered, RolledBack))
    said = [
        *([pair("1 step was skipped")] if skipped == 1 else []),
        *([pair("{count} steps were skipped", count=f"{skipped:,}")] if skipped > 1 else []),
        *([pair("the rate was lowered {times}", times=_times(lowered))] if lowered else []),
        *([pair("weights were rolled back {times}", times=_times(back))] if back else []),
    ]
    parts = []
    if said:
        first = [each.en for each in said]
        listed = " and ".join([*([", ".join(first[:-1])] if first[1:] else []), first[-1]])
        what = Pair(f"{listed[:1].upper()}{listed[1:]}", "，".join(each.zh for each in said))
        parts.append(pair("{what}: {time} of training wasted.", what=what, time=format_seconds(wasted_s)))
    for stage in ("training", "validation"):
        cuts = [event for event in events if isinstance(event, Narrowed) and event.stage == stage]
        if cuts:
            counts = {"count": f"{cuts[-1].to:,}", "before": f"{cuts[0].before:,}"}
            says = "For memory, {stage} took {count} samples at once in the end, not {before}."
            parts.append(pair(says, stage=stage, **counts))
    return sentences(parts)


def marks(events: Iterable[Event]) -> list[Mark]:
    """Return the steps that the plots mark."""
    found = []
    for event in events:
        match event:
            case Skipped(step):
                found.append(Mark(step, "skipped"))
            case RateLowered(step):
                found.append(Mark(step, "rate lowered"))
            case RolledBack(step):
                found.append(Mark(step, "rolled back"))
            case Narrowed(step, stage) if stage == "training":
                found.append(Mark(step, "fewer at once"))
            case Resumed(step):
                found.append(Mark(step, "gone on"))
            case Compiled(step):
                found.append(Mark(step, "compiled"))
    return found


def _wasted(event: Event) -> str:
    return format_seconds(event.seconds) if isinstance(event, Skipped | RolledBack) else ""


def _count(events: Iterable[Event], kind: type[Event]) -> int:
    return sum(isinstance(event, kind) for event in events)


def _times(count: int) -> Pair:
    return pair({1: "once", 2: "twice"}.get(count, "{count} times"), count=f"{count:,}")
