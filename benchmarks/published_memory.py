"""Score the closed-form memory model against every published row that tells its memory, or that it did not fit.

    python -m benchmarks.published_memory [--tables DIR] [--no-report]

Prints ``name=value`` lines. Neither this nor the model knows more of a row or a table than which software it was run
with, and which counter its source read.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.record import REPORTS
from benchmarks.tables import PUBLISHED, Row, read_tables
from thrifty.cost import sharded_memory
from thrifty.cost.sharded_memory import MemoryBreakdown, device_bytes
from thrifty.errors import JobError
from thrifty.spec import Interval

GIB = 2**30

# How a table's software keeps its states, of `thrifty.cost.stacks.STACKS`; the first whose name it begins with.
_STACK_OF = {
    "megatron-deepspeed": "megatron_deepspeed",
    "megatron-bridge": "nemo",
    "megatron": "megatron",
    "nemo": "nemo",
    "llm-foundry": "llm_foundry",
    "maxtext": "fsdp",
    "torchtitan": "fsdp",
    "torchtune": "torch",
    "transformers": "torch",
    "hand-written": "torch",
}
# Software whose runs were compiled: torchtitan's rows are of its graph trainer.
_COMPILED = ("torchtitan", "maxtext")
# Sources whose counter is told elsewhere: BigScience's pages read nvidia-smi throughout, torchtitan's log prints the
# highest reserved, torchtune's the highest allocated (``../shared/reference/planners.md``, section 5).
_COUNTERS = {"bigscience": "nvidia-smi", "torchtitan": "reserved", "torchtune": "allocated"}
# Words by which a source says that it did what no `Layout` describes.
_BEYOND = (
    "adafactor",
    "cpu offload",
    "activation offloading",
    "fuse optimizer",
    "low-memory recipe",
    "full finetune *",
    "technique: baseline",
    "chunked",
    "muon",
    "lora",
)


@dataclass(frozen=True)
class Scored:
    """A row whose memory was measured, and what is predicted for the counter it was read from."""

    row: Row
    memory: MemoryBreakdown
    counter: str
    predicted: Interval

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted.value / self.row.memory_bytes - 1

    @property
    def inside(self) -> bool:
        """Whether the measured lies in the predicted interval."""
        return self.predicted.low <= self.row.memory_bytes <= self.predicted.high


def predict(row: Row, at: int = 0) -> MemoryBreakdown:
    """Predict a row's memory under one of its layouts.

    Raises:
        JobError: when the degrees do not divide the shape, as where a shape stands in for what it cannot say.
    """
    assert row.shape is not None and row.cluster is not None
    layout = row.layouts[at]
    stack = next((stack for software, stack in _STACK_OF.items() if row.software.startswith(software)), None)
    if stack == "torch" and layout.zero == 3:
        stack = "fsdp"
    if stack == "megatron_deepspeed" and "none" in row.key.split("|"):
        stack = "megatron"  # BigScience's rows without DeepSpeed
    if layout.precision == "bf16_weights":
        layout = layout.model_copy(update={"state_bytes": 2})  # torch's optimizers keep states as the weights are
    return device_bytes(
        row.shape,
        layout,
        row.cluster.device,
        stack=stack,
        dropout=False if stack == "llm_foundry" else None,
        logits="classification" not in row.model,
        shards=row.shard or None,
        compiled=row.software.startswith(_COMPILED),
    )


def fits(row: Row) -> bool:
    """Tell whether a described row is predicted to fit, under any of its layouts; True where no prediction is made."""
    assert row.cluster is not None
    device = row.cluster.device
    try:
        return any(sharded_memory.fits(predict(row, at), device) for at in range(len(row.layouts)))
    except JobError:
        return True


def oom_counts(rows: Iterable[Row]) -> tuple[int, int]:
    """Return how many rows that ran out of memory are called fitting, and how many that ran are called out of memory.

    A row that ran, and whose source does not say what was computed again, is called fitting if it fits under any
    checkpointing. Rows on TPUs are left out: XLA recomputes and shares buffers at its own choice to fit.
    """
    missed = false = 0
    for row in rows:
        if _judged(row):
            fit = fits(row)
            missed += row.status == "oom" and fit
            false += row.status == "ok" and not (fit or any(fits(other) for other in _unsaid(row)))
    return missed, false


def _unsaid(row: Row) -> list[Row]:
    """The row under full checkpointing, where its source is silent about it."""
    # the key lists what the source says; recomputation is its last column but two
    if row.key.split("|")[-3]:
        return []
    layouts = tuple(layout.model_copy(update={"checkpointing": "full"}) for layout in row.layouts)
    return [replace(row, layouts=layouts)]


def _described(row: Row) -> bool:
    """Whether all but its time is known."""
    without_time = all(why.startswith("no time") for why in row.missing)
    return row.shape is not None and bool(row.layouts) and row.cluster is not None and without_time


def _judged(row: Row) -> bool:
    return _described(row) and row.cluster is not None and row.cluster.device.kind == "cuda"


def _counter(row: Row, memory: MemoryBreakdown) -> tuple[str, Interval]:
    """Return which counter a row's source read, and the prediction for it."""
    said = row.memory_kind.lower()
    named = {
        "nvidia-smi": "nvidia-smi",
        "nvml": "nvidia-smi",
        "reserved": "reserved",
        "allocated": "allocated",
        "active": "allocated",
    }
    found = next((counter for word, counter in named.items() if word in said and "not stated" not in said), None)
    counter = found or next((c for source, c in _COUNTERS.items() if row.table.startswith(source)), "allocated")
    return counter, {"nvidia-smi": memory.device_used, "reserved": memory.reserved, "allocated": memory.allocated}[
        counter
    ]


def score(rows: Sequence[Row], folder: Path = PUBLISHED) -> list[Scored]:
    """Score every row of one table whose configuration a `Layout` describes and whose peak was measured."""
    if not rows:
        return []
    with (folder / f"{rows[0].table}.csv").open(encoding="utf-8", newline="") as file:
        said = [" ".join(filter(None, line.values())).lower() for line in csv.DictReader(file)]
    scored = []
    for row in rows:
        text = said[row.line - 2]
        if not row.memory_bytes or row.status == "oom" or not _described(row) or any(word in text for word in _BEYOND):
            continue
        if "8-bit adam" in text or "adam8bit" in text:
            row = replace(row, layouts=tuple(layout.model_copy(update={"state_bytes": 1}) for layout in row.layouts))
        try:
            memory = predict(row)
        except JobError:
            continue
        scored.append(Scored(row, memory, *_counter(row, memory)))
    return scored


def figures(folder: Path = PUBLISHED) -> tuple[dict[str, float], list[str]]:
    """Return every figure by name, and a line of a Markdown table for each row scored or judged wrongly."""
    found: dict[str, float] = {}
    lines = []
    for table, rows in read_tables(folder).items():
        name = re.sub(r"\W", "_", table)
        judged = [row for row in rows if _judged(row)]
        if judged:
            found[f"{name}_oom_rows"] = sum(row.status == "oom" for row in judged)
            found[f"{name}_oom_missed"], found[f"{name}_oom_false"] = oom_counts(judged)
        scored = score(rows, folder)
        if scored:
            errors = [each.error for each in scored]
            found[f"{name}_memory_rows"] = len(errors)
            found[f"{name}_memory_median_error"] = statistics.median(map(abs, errors))
            found[f"{name}_memory_bias"] = statistics.median(errors)
            found[f"{name}_memory_worst_error"] = max(map(abs, errors))
            found[f"{name}_memory_worst_under"] = max(0.0, -min(errors))
            found[f"{name}_memory_coverage"] = statistics.mean(each.inside for each in scored)
        for row in judged:
            if row.status == "oom" or any(oom_counts([row])):
                said = "ran out of memory" if row.status == "oom" else "ran"
                needed = predict(row).total.value / GIB
                lines.append(f"| {table}:{row.line} | {row.model} | {said} | needed | {needed:.1f} | | |")
        for each in scored:
            measured, value, peak = each.row.memory_bytes / GIB, each.predicted.value / GIB, each.memory
            lines.append(
                f"| {table}:{each.row.line} | {each.row.model} | {measured:.1f} | {each.counter} | {value:.1f} | "
                f"{each.error:+.1%} | stage {peak.stage}, {peak.moment} |"
            )
    for kind in ("missed", "false"):
        found[f"oom_{kind}"] = sum(value for key, value in found.items() if key.endswith(f"_oom_{kind}"))
    return found, lines


def write_report(found: dict[str, float], lines: list[str], folder: Path = REPORTS) -> Path:
    """Write a dated page with the figures and every row; return its path."""
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = folder / f"published_memory-{date}.md"
    head = "| row | model | measured GiB | counter | predicted GiB | error | moment |\n|---|---|---:|---|---:|---:|---|"
    numbers = "\n".join(f"| {name} | {value:.4g} |" for name, value in found.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    says = (
        "Memory of published runs, predicted in closed form (`docs/memory-formulas.md`). Errors are fractions of what "
        "was measured. `table:line` is a line of the table's file; `ran` marks one wrongly called out of memory."
    )
    page = [
        f"# published_memory, {date}",
        says,
        f"| figure | value |\n|---|---:|\n{numbers}",
        "\n".join([head, *lines]),
    ]
    path.write_text("\n\n".join(page) + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Print the figures, and write the report unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, default=PUBLISHED)
    parser.add_argument("--no-report", action="store_true", help="print alone")
    asked = parser.parse_args()
    found, lines = figures(asked.tables)
    for name, value in found.items():
        print(f"{name}={value:.4g}")
    if not asked.no_report:
        print(write_report(found, lines))


if __name__ == "__main__":
    main()
