"""Score the time model on the published tables, and the choices it would have made among their measured plans.

    python -m benchmarks.published [--quick] [--tables DIR] [--no-fit]

Without options the calibrations are fitted anew on half of each table and scored on the other half. ``--quick`` scores
that other half with the calibrations that ship. ``--no-fit`` scores every row of the folder with those that ship.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pricing import name_of, predict, priced_by
from benchmarks.record import record
from benchmarks.tables import PUBLISHED, Row, read_tables, scored_rows
from thrifty.cost.calibrations import Calibration, shipped_calibrations
from thrifty.cost.cluster import step_cost
from thrifty.cost.transformer import model_flops
from thrifty.errors import JobError
from thrifty.hardware.cluster import find_cluster
from thrifty.spec import Layout, TransformerShape

CHOICES = ("bigscience_a100", "vtrain_a100_multinode", "vtrain_a100_singlenode_sample")
# Highest median error that issue 3 asks for, by table; 10 % where none is named.
BARS = {"vtrain_a100_multinode": 0.12, "vtrain_a100_singlenode_sample": 0.2}
# Fewer rows than this say little of a model: their tables are in the report, not among the figures.
LEAST = 4


@dataclass(frozen=True)
class Scored:
    """A row, what was predicted for it, and whether the measured time lies within the interval."""

    row: Row
    seconds: float
    inside: bool
    doubts: tuple[str, ...]

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.seconds / (self.row.step_seconds or 1) - 1


def score(row: Row, calibration: Calibration) -> Scored:
    """Predict one row; where the source tuned what it does not state, with the fastest choice."""
    assert row.shape is not None and row.cluster is not None and row.step_seconds is not None
    costs = [
        step_cost(row.shape, layout, row.cluster, calibration=calibration, shard=row.shard, logits=row.logits)
        for layout in row.layouts
    ]
    best = min(costs, key=lambda cost: cost.seconds.value)
    inside = best.seconds.low <= row.step_seconds <= best.seconds.high
    return Scored(row, best.seconds.value, inside, best.doubts)


def _work(row: Row) -> float:
    """FLOPs of a row's step on one device."""
    assert row.shape is not None
    return model_flops(row.shape) * row.batch * row.shape.length / row.layout.devices


def constant_errors(rows: Sequence[Row], scored: Iterable[Row]) -> list[float]:
    """Errors of the guess that a row's utilisation is the median of all others on its machine at its precision."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        assert row.cluster is not None
        groups[row.cluster.device.name, row.layout.precision].append(row)
    errors = []
    for row in scored:
        assert row.cluster is not None and row.step_seconds is not None
        others = [r for r in groups[row.cluster.device.name, row.layout.precision] if r is not row]
        if others:
            rate = statistics.median(_work(other) / (other.step_seconds or 1) for other in others)
            errors.append(_work(row) / rate / row.step_seconds - 1)
    return errors


def choice_losses(rows: Sequence[Row], calibrations: Mapping[int, Calibration]) -> list[tuple[float, Row, Row]]:
    """Of rows that do the same work: time lost by the plan predicted fastest against the fastest measured, and both.

    A plan measured more than once counts by its median.
    """
    groups: dict[tuple[object, ...], dict[tuple[object, ...], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if len(row.layouts) > 1:
            continue  # its source does not state the whole plan
        work = (row.shape, row.layout.devices, row.batch, row.layout.precision)
        groups[work][row.layouts].append(row)
    losses = []
    for plans in groups.values():
        if len(plans) < 2:
            continue
        measured = {plan: statistics.median(row.step_seconds or 0 for row in same) for plan, same in plans.items()}
        predicted = {plan: predict(same[0], calibrations[id(same[0])]) for plan, same in plans.items()}
        chosen = min(predicted, key=lambda plan: predicted[plan])
        best = min(measured, key=lambda plan: measured[plan])
        losses.append((measured[chosen] / measured[best] - 1, plans[chosen][0], plans[best][0]))
    return losses


def gpt3_days(calibration: Calibration) -> tuple[float, Layout]:
    """Days to train GPT-3 175B on 300 B tokens with 1,024 A100 (published: 34, arXiv 2104.04473 section 5.1).

    The paper fixes batch 1,536, full recomputation and 8-way tensor parallelism; pipeline 16 (a divisor of its 96
    layers that leaves 8 replicas); the micro-batch, which it tuned, is the fastest of 1, 2 and 4.
    """
    shape = TransformerShape(
        layers=96, hidden=12288, heads=96, kv_heads=96, head_dim=128, ffn=4 * 12288, vocabulary=51200, length=2048
    )
    cluster = find_cluster("a100-80g:8x128")
    layouts = [
        Layout(
            data=8, tensor=8, pipeline=16, micro_batch=micro, accumulation=192 // micro, precision="fp16",
            checkpointing="full", flash=False,
        )
        for micro in (1, 2, 4)
    ]  # fmt: skip
    seconds = {lay: step_cost(shape, lay, cluster, calibration=calibration).seconds.value for lay in layouts}
    best = min(seconds, key=lambda layout: seconds[layout])
    return 300e9 / (1536 * 2048) * seconds[best] / 86400, best


def _oom(tables: Mapping[str, list[Row]]) -> dict[str, list[float]]:
    """Rows out of memory that were called fitting, and the reverse: of the sweeps of `CHOICES`, and elsewhere."""
    from benchmarks.published_memory import oom_counts

    found: dict[str, list[float]] = {}
    for name, chosen in (("", True), ("_elsewhere", False)):
        missed, false = oom_counts(
            row for table, rows in tables.items() if (table in CHOICES) == chosen for row in rows
        )
        found |= {f"oom_missed{name}": [float(missed)], f"oom_false{name}": [float(false)]}
    return found


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def _line(scored: Scored) -> str:
    row, layout = scored.row, scored.row.layout
    plan = f"t{layout.tensor} p{layout.pipeline} d{layout.data} c{layout.context} mb{layout.micro_batch}"
    doubts = f" ({'; '.join(scored.doubts)})" if scored.doubts else ""
    times = f"{row.step_seconds:.4g} | {scored.seconds:.4g} | {scored.error:+.0%}"
    return f"| {row.table}:{row.line} | {row.model} | {plan} | {times}{doubts} |"


def main() -> None:
    """Score, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="score the held-out half with the calibrations that ship")
    parser.add_argument("--tables", type=Path, default=PUBLISHED, help="a folder in the form of ../shared/published")
    parser.add_argument("--no-fit", action="store_true", help="score every row with the calibrations that ship")
    asked = parser.parse_args()
    tables = read_tables(asked.tables)
    known = dict(shipped_calibrations())
    if not (asked.quick or asked.no_fit):
        from benchmarks.fit_devices import fit_all  # needs scipy, which scoring does not

        known |= {calibration.name: calibration for calibration in fit_all(list(scored_rows(tables)))}

    def calibrated(row: Row) -> Calibration:
        return known.get(name_of(row)) or known.get(priced_by(row).name, priced_by(row))

    samples: dict[str, list[float]] = {}
    sections = []
    inside: list[bool] = []
    for table, rows in tables.items():
        timed = [row for row in rows if row.timed]
        found = []
        refused = []
        for row in timed:
            if asked.no_fit or not row.fitted:
                try:
                    found.append(score(row, calibrated(row)))
                except JobError as error:
                    refused.append(f"line {row.line}: {error.what}")
        counted = [each.row for each in found]
        if not counted:
            continue
        constant = [abs(error) for error in constant_errors(timed, counted)]
        errors = [abs(each.error) for each in found]
        covered = statistics.mean(each.inside for each in found)
        inside += [each.inside for each in found]
        if len(counted) >= LEAST:
            samples[f"published_{table}_median_error"] = [statistics.median(errors)]
            if constant:
                samples[f"published_{table}_constant_error"] = [statistics.median(constant)]
            samples[f"published_{table}_p90_error"] = [_quantile(errors, 0.9)]
        sections.append(_section(table, rows, found, constant, covered, refused))
    if not inside:
        raise SystemExit(f"no row of {asked.tables} can be scored: is it a folder in the form of {PUBLISHED}?")
    samples["published_interval_coverage"] = [statistics.mean(inside)]

    choices = []
    for table in CHOICES:
        timed = [row for row in tables.get(table, []) if row.timed]
        losses = choice_losses(timed, {id(row): calibrated(row) for row in timed})
        if losses:
            samples[f"choice_{table}_median_loss"] = [statistics.median(loss for loss, _, _ in losses)]
            samples[f"choice_{table}_worst_loss"] = [max(loss for loss, _, _ in losses)]
            lost = sorted(losses, key=lambda each: -each[0])[:4]
            choices.append(f"### {table}: {len(losses)} groups of plans\n")
            choices += [
                f"- {loss:.1%} lost: line {chosen.line} ({_plan(chosen)}, {chosen.step_seconds:.4g} s) taken for line "
                f"{best.line} ({_plan(best)}, {best.step_seconds:.4g} s)"
                for loss, chosen, best in lost
            ]
    samples |= _oom(tables)
    days, layout = gpt3_days(known["a100 / megatron 2021-04"])
    samples["gpt3_days"] = [days]
    says = "\n".join(
        [
            _says(asked),
            "## What went against us\n",
            *_against(samples),
            "",
            *sections,
            "## Choosing among measured plans\n",
            *choices,
            f"\n## GPT-3\n\n{days:.1f} days (published: 34) with {_describe(layout)}.",
        ]
    )
    from thrifty import api

    print(record("published", api.hardware()[0], says, samples))


def _against(samples: Mapping[str, Sequence[float]]) -> list[str]:
    """Lines for every figure beyond its bar, and for tables on which the constant guess is better."""
    lines = []
    for name, (value, *_) in samples.items():
        if name.endswith("_median_error"):
            table = name.removeprefix("published_").removesuffix("_median_error")
            bar = BARS.get(table, 0.1)
            guess = samples.get(f"published_{table}_constant_error", [math.inf])[0]
            if value > bar:
                lines.append(f"- {table}: median error {value:.1%}, where {bar:.0%} is asked for.")
            if value > guess:
                lines.append(f"- {table}: the constant guess is off by {guess:.1%}, less than {value:.1%}.")
        elif name.startswith("choice") and value > (0.03 if name.endswith("median_loss") else 0.1):
            lines.append(f"- {name} is {value:.1%}.")
        elif name.startswith("oom_") and value:
            lines.append(f"- {name} is {value:.0f}.")
    return lines or ["Nothing: every figure keeps its bar."]


def _plan(row: Row) -> str:
    return _describe(row.layout)


def _describe(layout: Layout) -> str:
    return (
        f"tensor {layout.tensor}, pipeline {layout.pipeline}, data {layout.data}, context {layout.context}, "
        f"micro-batch {layout.micro_batch}"
    )


def _says(asked: argparse.Namespace) -> str:
    how = "every row, with the calibrations that ship" if asked.no_fit else "the rows that no calibration was fitted on"
    return (
        f"Step times of published training runs against what the time model predicts. Scored: {how}. Errors are "
        "fractions of the measured time. The constant guess takes the median utilisation of all other rows of the "
        "table on the same device at the same precision.\n"
    )


def _section(
    table: str,
    rows: Sequence[Row],
    found: Sequence[Scored],
    constant: Sequence[float],
    covered: float,
    refused: Sequence[str],
) -> str:
    errors = [abs(each.error) for each in found]
    guess = f"{statistics.median(constant):.1%}" if constant else "none"
    reasons: dict[str, int] = defaultdict(int)
    for row in rows:
        for why in row.missing:
            reasons[why.split("'")[0].strip()] += 1
    left = "; ".join(f"{count} for {why}" for why, count in sorted(reasons.items(), key=lambda each: -each[1]))
    assumed = sorted({text for each in found for text in each.row.assumptions})
    worst = sorted(found, key=lambda each: -abs(each.error))[:5]
    return "\n".join(
        [
            f"## {table}\n",
            f"{len(found)} rows scored of {len(rows)}: median error {statistics.median(errors):.1%}, ninth decile "
            f"{_quantile(errors, 0.9):.1%}, bias {statistics.median(each.error for each in found):+.1%}; "
            f"constant guess {guess}; {covered:.0%} inside the nominal 90 % interval.\n",
            f"Assumed where a row does not say: {'; '.join(assumed)}.\n" if assumed else "",
            f"Left out: {left}.\n" if left else "",
            f"Refused: {'; '.join(refused)}.\n" if refused else "",
            "| row | model | plan | measured s | predicted s | error |\n|---|---|---|---:|---:|---:|",
            *map(_line, worst),
            "",
        ]
    )


if __name__ == "__main__":
    main()
