"""The head of a run's page: its result, its target, and how it was computed, in both languages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import thrifty.report.rows as rows
from thrifty.ledger import Entry
from thrifty.report.words import Pair, chinese, joined, pair
from thrifty.spec import Dataset, Plan
from thrifty.spec.events import Evaluated, StepDone
from thrifty.spec.units import format_seconds

# among the figures of a split, what was counted
COUNTS = frozenset({"samples", "tokens", "words"})


def head(
    entry: Entry, plan: Plan | None, dataset: Dataset | None, steps: Sequence[StepDone],
    evaluations: Sequence[Evaluated],
) -> dict[str, Any]:  # fmt: skip
    """Return what the head says of a run's result, as far as it came."""
    watched = plan.stop.metric if plan is not None else ""
    name = watched if watched in entry.metrics else next(iter(entry.metrics), "")
    hidden = (
        pair("{count} hidden words of ", count=f"{entry.metrics['words']:,.0f}") if "words" in entry.metrics else ""
    )
    metric = _of_what(name, dataset)
    return {
        "known": bool(name),
        "value": rows.metric_text(name, entry.metrics[name]) if name else "no result",
        "metric": metric._asdict(),
        "metric_pair": metric,
        "hidden": hidden,
        "count": f"{dataset.counts.get('test', 0):,}" if dataset is not None else "",
        "unit": rows.samples_name(dataset) if dataset is not None else "samples",
        "reason": entry.reason,
        "others": joined(_others(entry, name)),
        "target": _target(plan, evaluations) if plan is not None else "",
        "taken": f"{taken(steps):,}",
        "wall": format_seconds(entry.total.wall_s),
    }


def taken(steps: Sequence[StepDone]) -> int:
    """Return the last step that was taken."""
    return max((each.step for each in steps), default=0)


def how(plan: Plan) -> Pair:
    """Say how its steps were computed, in a few words."""
    batch, devices = plan.batch, plan.devices
    packed = "documents apart" if plan.task == "language" else "packed"
    order = {"padded": "", "by_length": "by length", "packed": packed}[batch.batching]
    cut = batch.micro * devices < batch.size
    spread = "on {devices} devices, all shared out" if plan.zero else "on {devices} devices"
    said: list[str | Pair] = [
        plan.precision,
        *([pair(spread, devices=devices)] if devices > 1 else []),
        *([pair("{count} at once", count=f"{batch.micro:,}")] if cut or devices > 1 else []),
        *([order] if order else []),
        *([pair("{kind} checkpointing", kind=plan.checkpointing)] if plan.checkpointing != "none" else []),
        *(["compiled"] if plan.compile != "none" else []),
    ]
    return joined(said)


def _of_what(name: str, dataset: Dataset | None) -> Pair:
    metric = rows.metric_name(name)
    if dataset is not None and dataset.table is not None and not dataset.labels:
        return pair("{metric} of {target}", metric=Pair(metric, chinese(metric)), target=dataset.table.target)
    return Pair(metric, chinese(metric))


def _others(entry: Entry, name: str) -> list[Pair]:
    """The other figures of the test split; the interval of the one above comes first."""
    metrics = {n: v for n, v in entry.metrics.items() if n not in COUNTS and not n.endswith(("_low", "_high"))}
    said = {n: _figure(n, value) for n, value in metrics.items()}
    for each in metrics:
        if f"{each}_low" in entry.metrics:
            low, high = (rows.metric_text(each, entry.metrics[f"{each}_{end}"]) for end in ("low", "high"))
            bounds = {"low": low, "high": high}
            said[each] = (
                pair("95 % interval {low} to {high}", **bounds)
                if each == name
                else pair("{figure} (95 % interval {low} to {high})", figure=said[each], **bounds)
            )
        elif each == name:
            del said[each]
    return [text for _, text in sorted(said.items(), key=lambda each: each[0] != name)]


def _figure(name: str, value: float) -> Pair:
    called, text = rows.metric_name(name), rows.metric_text(name, value)
    return Pair(f"{called} {text}", f"{chinese(called)} {text}")


def _target(plan: Plan, evaluations: Sequence[Evaluated]) -> Pair | str:
    stop = plan.stop
    if not math.isfinite(stop.target):
        return ""
    sign = 1 if stop.higher_is_better else -1
    reached = (e.step for e in evaluations if sign * (e.metrics.get(stop.metric, math.nan) - stop.target) >= 0)
    step = next(reached, 0)
    wanted = {"metric": rows.metric_name(stop.metric), "value": rows.metric_text(stop.metric, stop.target)}
    if not step:
        return pair("Target: validation {metric} {value}, not reached", **wanted)
    says = "Target: validation {metric} {value}, reached at step {step} of {steps}"
    return pair(says, **wanted, step=f"{step:,}", steps=f"{stop.steps:,}")
