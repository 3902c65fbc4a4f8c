"""Figures of a race: rates of steady training, the time to a target, ratios of rivals; and the table of a report."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from benchmarks.race import DISTURBED, Finish, Race, told
from benchmarks.record import record
from thrifty.spec import Device

# first steps compile kernels, allocate and fill caches
WARM_UP = 2


def rate(finish: Finish, what: Literal["samples", "tokens"] = "samples", *, warm_up: int = WARM_UP) -> float:
    """Samples or tokens a second of steady training, from the end of a step to the end of the next.

    Left out are the first steps, and those with something else before them: an evaluation.

    Raises:
        ValueError: there is no such step.
    """
    intervals = seconds(finish, warm_up=warm_up)
    if not intervals:
        raise ValueError(f"{finish.entrant} took {len(finish.steps)} steps; more than {warm_up} in a row are needed")
    done = sum(getattr(finish.steps[at], what) for at in intervals)
    return float(done / sum(intervals.values()))


def rates(
    finishes: Iterable[Finish], what: Literal["samples", "tokens"] = "samples", *, warm_up: int = WARM_UP
) -> list[float]:
    """The rate of each run; those that took too few steps have none."""
    return [rate(finish, what, warm_up=warm_up) for finish in finishes if seconds(finish, warm_up=warm_up)]


def medians_s(finishes: Iterable[Finish], *, warm_up: int = WARM_UP) -> list[float]:
    """The median seconds of a steady step of each run; those that took too few steps have none."""
    found = (seconds(finish, warm_up=warm_up) for finish in finishes)
    return [statistics.median(each.values()) for each in found if each]


def seconds(finish: Finish, *, warm_up: int = WARM_UP) -> dict[int, float]:
    """Seconds of each step of steady training, by its place."""
    steps = finish.steps
    return {
        at: steps[at].at_s - steps[at - 1].at_s for at in range(max(warm_up, 1), len(steps)) if not steps[at].paused
    }


def reached_s(finish: Finish, figure: str, target: float, *, rising: bool, training: bool = False) -> float:
    """Seconds until an evaluation was as good as wanted; ``inf`` where none was.

    Args:
        finish: a run.
        figure: name of the held-out figure.
        target: what is wanted of it.
        rising: more is better.
        training: count from the first step on, and not from the start of the process.
    """
    began = finish.first("ready").get("at_s", 0.0) if training else 0.0
    for event in finish.said:
        value = event.get(figure)
        if event["event"] == "evaluated" and value is not None and (value >= target if rising else value <= target):
            return float(event["at_s"]) - began
    return math.inf


def best(finish: Finish, figure: str, *, rising: bool) -> float:
    """The best held-out figure of a run; ``nan`` where it was never evaluated."""
    values = [event[figure] for event in finish.said if event["event"] == "evaluated" and figure in event]
    return (max if rising else min)(values) if values else math.nan


def ratios(mine: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """How many times as fast, round by round; rounds that only one of them finished do not count.

    >>> ratios([4.0, 6.0], [2.0, 2.0])
    [2.0, 3.0]
    """
    return [ours / peer for ours, peer in zip(mine, theirs, strict=False)]


def target_ratio(mine: Sequence[float], theirs: Sequence[tuple[float, float]]) -> float:
    """How many times as soon the target is reached: median over median.

    A run of ours that does not reach it counts as never done; of a peer that does not, all of its time counts, which
    is less than it would need.

    Args:
        mine: seconds to the target; ``inf`` where it was not reached.
        theirs: likewise, each with the seconds of the whole run.

    >>> target_ratio([10.0, 12.0, math.inf], [(100.0, 110.0), (math.inf, 144.0), (120.0, 130.0)])
    10.0
    """
    peer = statistics.median(whole if math.isinf(target) else target for target, whole in theirs)
    return peer / statistics.median(mine)


def matched(
    name: str, mine: Sequence[Finish], theirs: Sequence[Finish], figure: str, *, rising: bool
) -> dict[str, list[float]]:
    """The target's ratio for what the peer's median run reaches at its best, be that better than the target or worse.

    Args:
        name: of the benchmark, with which the figures begin.
        mine, theirs: runs to the target.
        figure: of validations.
        rising: more is better.
    """
    if not (mine and theirs):
        return {}
    bests = [best(run, figure, rising=rising) for run in theirs]
    level = statistics.median_low(bests) if rising else statistics.median_high(bests)
    ratio = target_ratio(
        [reached_s(run, figure, level, rising=rising) for run in mine],
        [(reached_s(run, figure, level, rising=rising), run.wall_s) for run in theirs],
    )
    return {
        f"{name}_best_{figure}_peer": bests,
        f"{name}_matched_{figure}": [level],
        f"{name}_matched_speedup": [ratio],
    }


def spread(values: Iterable[float]) -> str:
    """Write a median with the least and the most of its samples.

    >>> spread([2.0, 1.0, 4.0])
    '2 (1 to 4)'
    """
    found = sorted(values)
    if not found:
        return "failed"
    middle = f"{statistics.median(found):.4g}"
    return middle if len(found) == 1 else f"{middle} ({found[0]:.4g} to {found[-1]:.4g})"


def table(race: Race, names: Sequence[str], what: Literal["samples", "tokens"] = "samples") -> str:
    """Write what each entrant did and took: medians over the rounds, with the least and the most."""
    rows = [f"| entrant | runs | {what}/s | ms a step | wall, s | processors, s | peak, MiB |"]
    rows += ["|---|---:|---:|---:|---:|---:|---:|"]
    for name in names:
        runs = [finish for finish in race.of(name) if seconds(finish)]
        cells = [
            spread(rates(runs, what)),
            spread(1e3 * each for each in medians_s(runs)),
            spread(finish.wall_s for finish in runs),
            spread(finish.cpu_s for finish in runs),
            spread(finish.peak_bytes / 2**20 for finish in runs),
        ]
        rows.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def notes(race: Race) -> str:
    """Say what was planned and with which versions, what failed, and whether the machine was quiet."""
    lines = []
    for name, finishes in race.finishes.items():
        planned, ready = finishes[-1].first("planned"), finishes[-1].first("ready")
        if planned:
            how = ", ".join(f"{key} {value}" for key, value in planned.items() if key not in {"event", "at_s"})
            lines.append(f"- {name} planned: {how}.")
        if versions := ready.get("versions"):
            used = ", ".join(f"{package} {version}" for package, version in versions.items())
            flags = f"; flags {', '.join(ready['flags'])}" if ready.get("flags") else ""
            lines.append(f"- {name}: {used}; {ready['precision']}{flags}.")
    lines += [f"- {failure.entrant} failed: {' '.join(failure.failed.split())[:400]}" for failure in race.failed]
    finished = [finish for finishes in race.finishes.values() for finish in finishes]
    noisy = [finish for finish in finished if finish.others > DISTURBED]
    if noisy:
        worst = max(noisy, key=lambda finish: finish.others)
        lines.append(
            f"- **Disturbed:** in {len(noisy)} of {len(finished)} runs other processes took more than {DISTURBED:.0%} "
            f"of the cores, up to {worst.others:.0%} ({worst.entrant})."
        )
    return "\n".join(lines)


def conclude(
    name: str,
    device: Device,
    says: str,
    samples: Mapping[str, Sequence[float]],
    found: Race,
    *,
    quick: bool,
    optional: str = "",
) -> int:
    """Print the figures, write the report, and return the exit status: 1 when a run failed, but for an optional one.

    What a failed run leaves without a measurement is left out. A quick run does not take the place of a whole one.
    """
    measured = {figure: values for figure, values in samples.items() if values}
    told(str(record(f"{name}{'_quick' * quick}", device, says, measured)))
    return int(any(failure.entrant != optional for failure in found.failed))
