"""`write_page`: one run as one HTML file that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from markupsafe import Markup

import thrifty.report.rows as rows
from thrifty.files import write_atomic
from thrifty.ledger import Comparison, Entry
from thrifty.report.answering import answering_figures, cores_text
from thrifty.report.beside import beside_text, with_beside
from thrifty.report.compression import compression_figures, payback_text, trial_rows, verdict_text
from thrifty.report.decided import value_text
from thrifty.report.document import render
from thrifty.report.figures import MOST_POINTS, Figure, curves, stages
from thrifty.report.happened import happened, marks, summary
from thrifty.report.head import head, how, taken
from thrifty.report.left import NOTHING_LEFT, Left
from thrifty.report.mistakes import calibration_figures, calibration_shown, mistakes_shown
from thrifty.report.rejects import examples
from thrifty.report.scales import scales
from thrifty.report.told import part_text, told_rows
from thrifty.report.traced import traced_figures, traced_shown
from thrifty.report.words import Language, Pair, both, chinese
from thrifty.spec import Compression, Dataset, Device, Plan
from thrifty.spec.events import Evaluated, Event, Initialised, StepDone

MOST_REJECTS = 200
MOST_TOLD = 200
MOST_LABELS = 24
MOST_NOTES = 6
MOST_CONFUSED = 20
Row = TypeVar("Row")


def write_page(
    path: Path,
    *,
    entry: Entry,
    plan: Plan | None = None,
    dataset: Dataset | None = None,
    device: Device | None = None,
    steps: Sequence[StepDone] = (),
    evaluations: Sequence[Evaluated] = (),
    others: Sequence[Event] = (),
    aside: rows.Aside = rows.NOTHING,
    kept: int = 0,
    confusion: Sequence[Sequence[int]] = (),
    by_label: Sequence[Sequence[int]] = (),
    prompt: str = "",
    completion: str = "",
    rejects: Sequence[Mapping[str, Any]] = (),
    job_text: str = "",
    left: Left = NOTHING_LEFT,
    language: Language = "en",
) -> Path:
    """Write the page of one run, whole or not at all, and return its path.

    The page works from a disk and offline; its content policy forbids the network, and runs no script but its
    own two, known by their hashes. Everything that came from a user's files is escaped. It is in English and Chinese,
    of which a button shows one.

    Args:
        path: where to write it.
        entry: the bill.
        plan, dataset, device: what was decided, prepared and found; None where a run broke off before.
        steps, evaluations: what training said; a long run is drawn thinned, and the page says so.
        others: what else happened, in order: steps that were skipped, checkpoints, resumes.
        aside: what training wasted, and what its ranks held.
        kept: the step whose weights the run keeps; 0 where it has none.
        confusion: test samples by true label (row) and answer (column); empty for language.
        by_label: of several labels of a sample, how often each was said rightly, said, and wanted.
        prompt, completion: what a language model was given and wrote; empty for images.
        rejects: rejected inputs, with ``path`` and ``reason``; the first 200 are listed.
        job_text: the job file as it was written.
        left: what else the run left.
        language: that the page opens in.

    Raises:
        StorageError: the disk is full or the folder read-only.
    """
    made, mistakes = left.compression, left.mistakes
    calibration = mistakes.calibration if mistakes is not None else None
    labels = dataset.labels if dataset is not None else ()
    cleaning = dataset.cleaning if dataset is not None else None
    figures = _figures(entry, plan, steps, evaluations, others, left)
    lines = happened(others)
    told, told_left = _ends(told_rows(labels, by_label) if by_label and labels else [])
    html = render(
        "page.html",
        [each._asdict() for group in figures.values() for each in group],
        language=language,
        figures=figures,
        thinned=_thinned(len(steps)),
        reason=_sentence(entry.reason),
        beside=beside_text(left.beside) if left.beside is not None else "",
        first_samples=next((each.samples for each in reversed(others) if isinstance(each, Initialised)), 0),
        entry=entry,
        plan=plan,
        dataset=dataset,
        device=device,
        head=head(entry, plan, dataset, steps, evaluations),
        how=how(plan) if plan is not None else "",
        kept=f"{kept:,}" if entry.status == "done" and 0 < kept < taken(steps) else "",
        happened=summary(others, aside.wasted_s),
        told=lines[:MOST_TOLD],
        told_left=max(0, len(lines) - MOST_TOLD),
        told_all=_counted(len(lines), "One thing is told", "{count} things are told, in their order"),
        ranks=rows.ranks_text(aside.rank_bytes) if aside.rank_bytes else "",
        part=rows.WASTED,
        tiles=[_tile(each) for each in entry.comparisons() if each.quantity != "flops"],
        bill=rows.bill_rows(entry, aside),
        compared=[rows.compared_row(each) for each in entry.comparisons()],
        notes=rows.notes(entry, aside),
        short=rows.share_text(entry.work_done()) if entry.work_done() < 0.995 else "",
        dataset_rows=rows.dataset_rows(dataset) if dataset is not None else [],
        cleaning_rows=rows.cleaning_rows(dataset) if dataset is not None else [],
        cleaning_notes=cleaning.notes if cleaning is not None else (),
        notes_shown=MOST_NOTES,
        labels=_labels(dataset) if dataset is not None else {},
        examples=examples(rejects, cleaning.rejected if cleaning is not None else {}),
        rejects=rejects[:MOST_REJECTS],
        rejected=_counted(len(rejects), "1 input was not used", "{count} inputs were not used"),
        rejects_left=max(0, len(rejects) - MOST_REJECTS),
        confusion=_confusion(labels, confusion if labels else ()),
        by_label=told,
        by_label_left=told_left,
        mistakes=mistakes_shown(mistakes) if mistakes is not None else None,
        calibration=calibration_shown(calibration) if calibration is not None else None,
        answering_cores=cores_text(left.answerings),
        traced=traced_shown(left.traced) if left.traced is not None else None,
        value_text=value_text,
        prompt=prompt,
        completion=completion,
        hardware=rows.hardware_rows(device) if device is not None else [],
        job_text=job_text,
        compression=made,
        tried=[] if made is None else trial_rows(made),
        judged=[] if made is None else _judged(made),
    )
    # a file name that is not UTF-8 comes in with lone surrogates, which no encoding takes
    write_atomic(path, html.encode("utf-8", errors="replace"), purpose="the report")
    return path


def _figures(
    entry: Entry, plan: Plan | None, steps: Sequence[StepDone], evaluations: Sequence[Evaluated],
    others: Sequence[Event], left: Left,
) -> dict[str, list[Figure]]:  # fmt: skip
    drawn = curves(plan, steps, evaluations, marks(others)) if plan is not None else []
    if left.beside is not None and plan is not None:
        drawn = with_beside(drawn, left.beside, plan, evaluations)
    calibration = left.mistakes.calibration if left.mistakes is not None else None
    return {
        "curves": drawn,
        "scales": scales(others),
        "stages": stages(entry),
        "traced": traced_figures(left.traced) if left.traced is not None else [],
        "answering": answering_figures(left.answerings),
        "calibration": calibration_figures(calibration) if calibration is not None else [],
        "compression": compression_figures(left.compression) if left.compression is not None else [],
    }


def _sentence(reason: str) -> Pair | str:
    """Why training ended, as a sentence in both languages."""
    if not reason:
        return ""
    english = f"{reason[:1].upper()}{reason[1:]}"
    other = chinese(reason)
    return Pair(english if english.endswith(".") else f"{english}.", f"{other}。" if other != reason else f"{english}.")


def _counted(count: int, one: str, many: str) -> Markup:
    return both(one) if count == 1 else both(many, count=f"{count:,}")


def _judged(made: Compression) -> list[tuple[str, str]]:
    said = [("validation", verdict_text(made.validation))]
    said += [("test", verdict_text(made.test))] if made.test is not None else []
    return [*said, ("bill", payback_text(made)), ("ended", made.ended)]


def _thinned(count: int) -> Markup | str:
    if count <= MOST_POINTS:
        return ""
    says = (
        "{steps} steps are drawn as at most {points} points a curve: the least and the greatest of each stretch, "
        "so every spike shows."
    )
    return both(says, steps=f"{count:,}", points=f"{MOST_POINTS:,}")


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
