"""`write_page`: one run as one HTML file that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import thrifty.report.rows as rows
from thrifty.files import write_atomic
from thrifty.ledger import Comparison, Entry
from thrifty.report.compression import compression_figures, payback_text, trial_rows, verdict_text
from thrifty.report.decided import value_text
from thrifty.report.document import render
from thrifty.report.figures import MOST_POINTS, curves, stages
from thrifty.report.happened import happened, marks, summary
from thrifty.report.scales import scales
from thrifty.report.told import part_text, told_rows
from thrifty.spec import Compression, Dataset, Device, Plan
from thrifty.spec.events import Evaluated, Event, Initialised, StepDone
from thrifty.spec.units import format_seconds

MOST_REJECTS = 200
MOST_TOLD = 200
MOST_LABELS = 24
MOST_NOTES = 6
MOST_CONFUSED = 20
# among the figures of a split, what was counted
COUNTS = frozenset({"samples", "tokens", "words"})
Row = TypeVar("Row")


def write_page(
    path: Path,
    *,
    entry: Entry,
    plan: Plan,
    dataset: Dataset,
    device: Device,
    steps: Sequence[StepDone],
    evaluations: Sequence[Evaluated],
    others: Sequence[Event] = (),
    aside: rows.Aside = rows.NOTHING,
    kept: int = 0,
    confusion: Sequence[Sequence[int]] = (),
    by_label: Sequence[Sequence[int]] = (),
    prompt: str = "",
    completion: str = "",
    rejects: Sequence[Mapping[str, Any]] = (),
    job_text: str = "",
    compression: Compression | None = None,
) -> Path:
    """Write the page of one run, whole or not at all, and return its path.

    The page works from a disk and offline; its content policy forbids the network, and runs no script but its
    own two, known by their hashes. Everything that came from a user's files is escaped.

    Args:
        path: where to write it.
        entry: the bill.
        plan, dataset, device: what was decided, prepared and found.
        steps, evaluations: what training said; a long run is drawn thinned, and the page says so.
        others: what else happened, in order: steps that were skipped, checkpoints, resumes.
        aside: what training wasted, and what its ranks held.
        kept: the step whose weights the run keeps; 0 where it has none.
        confusion: test samples by true label (row) and answer (column); empty for language.
        by_label: of several labels of a sample, how often each was said rightly, said, and wanted.
        prompt, completion: what a language model was given and wrote; empty for images.
        rejects: rejected inputs, with ``path`` and ``reason``; the first 200 are listed.
        job_text: the job file as it was written.
        compression: of its bundle, where there is one.

    Raises:
        StorageError: the disk is full or the folder read-only.
    """
    figures = {
        "curves": curves(plan, steps, evaluations, marks(others)),
        "scales": scales(others),
        "stages": stages(entry),
        "compression": [] if compression is None else compression_figures(compression),
    }
    lines = happened(others)
    told, told_left = _ends(told_rows(dataset.labels, by_label) if by_label else [])
    html = render(
        "page.html",
        [each._asdict() for group in figures.values() for each in group],
        figures=figures,
        thinned=_thinned(len(steps)),
        first_samples=next((each.samples for each in reversed(others) if isinstance(each, Initialised)), 0),
        entry=entry,
        plan=plan,
        device=device,
        head=_head(entry, plan, dataset, steps, evaluations),
        how=_how(plan),
        kept=f"{kept:,}" if entry.status == "done" and 0 < kept < _taken(steps) else "",
        happened=summary(others, aside.wasted_s),
        told=lines[:MOST_TOLD],
        told_left=max(0, len(lines) - MOST_TOLD),
        told_all="One thing is told" if len(lines) == 1 else f"{len(lines):,} things are told, in their order",
        ranks=f"{rows.ranks_text(aside.rank_bytes)}, and what started them" if aside.rank_bytes else "",
        part=rows.WASTED,
        tiles=[_tile(each) for each in entry.comparisons() if each.quantity != "flops"],
        bill=rows.bill_rows(entry, aside),
        compared=[rows.compared_row(each) for each in entry.comparisons()],
        notes=rows.notes(entry, aside),
        short=rows.share_text(entry.work_done()) if entry.work_done() < 0.995 else "",
        dataset_rows=rows.dataset_rows(dataset),
        cleaning_rows=rows.cleaning_rows(dataset),
        cleaning_notes=dataset.cleaning.notes,
        notes_shown=MOST_NOTES,
        labels=_labels(dataset),
        rejects=rejects[:MOST_REJECTS],
        rejected="1 input was not used" if len(rejects) == 1 else f"{len(rejects):,} inputs were not used",
        rejects_left=max(0, len(rejects) - MOST_REJECTS),
        confusion=_confusion(dataset.labels, confusion),
        by_label=told,
        by_label_left=told_left,
        value_text=value_text,
        prompt=prompt,
        completion=completion,
        hardware=rows.hardware_rows(device),
        job_text=job_text,
        compression=compression,
        tried=[] if compression is None else trial_rows(compression),
        judged=[] if compression is None else _judged(compression),
    )
    # a file name that is not UTF-8 comes in with lone surrogates, which no encoding takes
    write_atomic(path, html.encode("utf-8", errors="replace"), purpose="the report")
    return path


def _judged(made: Compression) -> list[tuple[str, str]]:
    said = [("validation", verdict_text(made.validation))]
    said += [("test", verdict_text(made.test))] if made.test is not None else []
    return [*said, ("bill", payback_text(made)), ("ended", made.ended)]


def _thinned(count: int) -> str:
    if count <= MOST_POINTS:
        return ""
    return (
        f"{count:,} steps are drawn as at most {MOST_POINTS:,} points a curve: "
        "the least and the greatest of each stretch, so every spike shows."
    )


def _head(
    entry: Entry, plan: Plan, dataset: Dataset, steps: Sequence[StepDone], evaluations: Sequence[Evaluated]
) -> dict[str, str]:
    name = plan.stop.metric if plan.stop.metric in entry.metrics else next(iter(entry.metrics), "")
    unit = rows.samples_name(dataset)
    metrics = {n: v for n, v in entry.metrics.items() if n not in COUNTS and not n.endswith(("_low", "_high"))}
    said = {n: f"{rows.metric_name(n)} {rows.metric_text(n, v)}" for n, v in metrics.items()}
    for each in metrics:
        if f"{each}_low" in entry.metrics:
            low, high = (rows.metric_text(each, entry.metrics[f"{each}_{end}"]) for end in ("low", "high"))
            interval = f"95 % interval {low} to {high}"
            said[each] = interval if each == name else f"{said[each]} ({interval})"
        elif each == name:
            del said[each]
    # the interval of the figure above comes first
    others = [text for n, text in sorted(said.items(), key=lambda pair: pair[0] != name)]
    hidden = f"{entry.metrics['words']:,.0f} hidden words of " if "words" in entry.metrics else ""
    of_what = f" of {dataset.table.target}" if dataset.table is not None and not dataset.labels else ""
    return {
        "value": rows.metric_text(name, entry.metrics[name]) if name else "no result",
        "metric": f"{rows.metric_name(name)}{of_what}",
        "of": f"on {hidden}{dataset.counts.get('test', 0):,} held-out test {unit}" if name else entry.reason,
        "others": ", ".join(others),
        "target": _target(plan, evaluations),
        "taken": f"{_taken(steps):,}",
        "wall": format_seconds(entry.total.wall_s),
    }


def _taken(steps: Sequence[StepDone]) -> int:
    return max((each.step for each in steps), default=0)


def _how(plan: Plan) -> str:
    """How its steps were computed, in a few words."""
    batch, devices = plan.batch, plan.devices
    packed = "documents apart" if plan.task == "language" else "packed"
    order = {"padded": "", "by_length": "by length", "packed": packed}[batch.batching]
    cut = batch.micro * devices < batch.size
    said = [
        plan.precision,
        *([f"on {devices} devices" + (", all shared out" if plan.zero else "")] if devices > 1 else []),
        *([f"{batch.micro:,} at once"] if cut or devices > 1 else []),
        *([order] if order else []),
        *([f"{plan.checkpointing} checkpointing"] if plan.checkpointing != "none" else []),
        *(["compiled"] if plan.compile != "none" else []),
    ]
    return ", ".join(said)


def _target(plan: Plan, evaluations: Sequence[Evaluated]) -> str:
    stop = plan.stop
    if not math.isfinite(stop.target):
        return ""
    sign = 1 if stop.higher_is_better else -1
    reached = (e.step for e in evaluations if sign * (e.metrics.get(stop.metric, math.nan) - stop.target) >= 0)
    step = next(reached, 0)
    wanted = f"Target: validation {rows.metric_name(stop.metric)} {rows.metric_text(stop.metric, stop.target)}"
    return f"{wanted}, reached at step {step:,} of {stop.steps:,}" if step else f"{wanted}, not reached"


def _tile(each: Comparison) -> dict[str, Any]:
    """One quantity with a gauge: the due interval as a band, the measurement as a mark, from zero on the left."""
    row = rows.compared_row(each)
    most = max(each.due.high, each.measured, 1e-12) * 1.06
    return {
        "row": row,
        "known": row.inside is not None,
        "low": 100 * each.due.low / most,
        "width": 100 * (each.due.high - each.due.low) / most,
        "due": 100 * each.due.value / most,
        "at": 100 * each.measured / most,
    }


def _labels(dataset: Dataset) -> dict[str, Any]:
    most = max(dataset.label_counts.values(), default=0)
    counts = sorted(dataset.label_counts.items(), key=lambda pair: -pair[1])
    shown, left = _ends(counts)
    what = rows.labels_name(dataset)
    return {
        "caption": "Training samples by label" if what == "labels" else f"{what.capitalize()} of training transcripts",
        "what": what,
        "bars": [(label if label.strip() else "␣", f"{count:,}", 100 * count / max(1, most)) for label, count in shown],
        "left": left,
    }


def _ends(rows: list[Row]) -> tuple[list[Row], int]:
    """The first and the last, where there are too many, and how many lie between them."""
    if len(rows) <= MOST_LABELS:
        return rows, 0
    return rows[: MOST_LABELS // 2] + rows[-MOST_LABELS // 2 :], len(rows) - MOST_LABELS


def _confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """A shaded table while it can be read; with more labels, the pairs most often taken for one another."""
    wrong = [
        (count, labels[truth], labels[answer])
        for truth, row in enumerate(counts)
        for answer, count in enumerate(row)
        if truth != answer and count
    ]
    wrong.sort(key=lambda each: -each[0])
    lines = []
    for truth, row in enumerate(counts):
        # shaded by the root of the share: a rare mistake should show too
        cells = [(count, math.sqrt(count / max(1, sum(row))), truth == answer) for answer, count in enumerate(row)]
        lines.append((labels[truth], cells, part_text(row[truth], sum(row))))
    return {
        "labels": list(labels),
        "lines": lines if len(labels) <= MOST_LABELS else [],
        "pairs": wrong[:MOST_CONFUSED],
        "wrong": sum(count for count, _, _ in wrong),
        "all": sum(map(sum, counts)),
        "tall": max(map(len, labels), default=0) > 4,
    }
