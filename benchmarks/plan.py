"""Predictions of this machine against real steps of 36 cases: memory, time, the choice of a plan, and what it costs.

``python -m benchmarks.plan [--quick] [--resume]``. Each case is measured in a process of its own, and predicted in one
that has run nothing. Nothing is fitted to the cases: prices come from micro-benchmarks (``thrifty hardware
--measure``). It takes most of an hour; what was cut off goes on with ``--resume``.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from benchmarks.cases import CASES, QUICK, Case
from benchmarks.kept import Kept
from benchmarks.record import record
from benchmarks.step_time import REPEATS, WARM_UP, Row, rows, table
from benchmarks.step_time import figures as time_figures
from thrifty import hardware
from thrifty.planner.planner import CONTENDERS

MEASURED_STEPS = 9
WARM_UP_STEPS = 2
# of the sweep's best: timed twice
NEAR = 1.15
CHOICE_JOBS: tuple[tuple[Case, int], ...] = (
    (Case("gpt-nano", 32), 32),
    (Case("resnet20", 256, optimizer="momentum"), 256),
    (Case("mlp", 1024), 1024),
    (Case("users-own", 32), 32),
    (Case("resnet18", 32, optimizer="momentum"), 32),
    (Case("bert-mini", 16), 16),
)


def run(script: str, *arguments: str) -> dict[str, Any]:
    """Run one of the scripts about cases in a process of its own, and read what it prints last."""
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{script}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(arguments)}: {done.stderr[-800:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def predictions(what: str, cases: Sequence[Case], kept: Kept, *, at_once: int) -> list[dict[str, Any]]:
    """Predict ``memory`` or ``time`` of cases, so many at once: memory two, of time one, for operators are timed."""

    def predict(case: Case) -> dict[str, Any]:
        asked = functools.partial(run, "predict", what, json.dumps(case.__dict__))
        return kept(f"predicted-{what}-{case.name}", dict, asked)

    with ThreadPoolExecutor(at_once) as several:
        return list(several.map(predict, cases))


def off(predicted: float, measured: float) -> float:
    """Share by which a prediction is too high."""
    return predicted / measured - 1


def told(line: str) -> None:
    """Say how far it is."""
    print(line, file=sys.stderr, flush=True)


def memory(rows: Sequence[Row], cases: Sequence[Case], kept: Kept) -> tuple[dict[str, list[float]], list[str]]:
    """Predict the memory of each measured case; returns the samples of each figure, and a line of the table a case."""
    samples: dict[str, list[float]] = {}
    lines = ["| case | MiB measured | predicted | off | inside | ours above imports | others above imports |"]
    lines += ["|---|---:|---:|---:|---|---:|---|"]
    for row, predicted in zip(rows, predictions("memory", cases, kept, at_once=2), strict=True):
        error = off(predicted["peak_bytes"], row.peak_bytes)
        added = row.peak_bytes - row.base_bytes
        above = off(predicted["peak_bytes"] - predicted["base_bytes"], added)
        inside = predicted["peak_low_bytes"] <= row.peak_bytes <= predicted["peak_high_bytes"]
        rivals = {name: off(size, added) for name, size in predicted["rival_bytes"].items()}
        for name, value in {"ours": error, "above_imports": above, "inside": float(inside), **rivals}.items():
            samples.setdefault(name, []).append(value)
        cells = [row.case, f"{row.peak_bytes >> 20}", f"{predicted['peak_bytes'] / 2**20:.0f}", f"{error:+.1%}"]
        cells += ["yes" if inside else "no", f"{above:+.1%}"]
        cells += [", ".join(f"{name} {value:+.0%}" for name, value in rivals.items())]
        lines.append(f"| {' | '.join(cells)} |")
        told(lines[-1])
    return samples, lines


def ways_of(case: Case, size: int) -> list[Case]:
    """Every way of a job that this machine's search may take, down to a quarter of the batch at once."""
    return [
        replace(case, samples=micro, precision=precision, layout=layout)
        for precision in ("fp32", "bf16")
        for layout in (("contiguous", "channels_last") if "resnet" in case.model else ("contiguous",))
        for micro in (size, size // 2, size // 4)
    ]


def timed(way: Case, size: int) -> float:
    """Median seconds of a step of the whole batch, in a process of its own."""
    taken = run("cases", json.dumps(way.__dict__), str(MEASURED_STEPS), "2", str(size // way.samples))
    return statistics.median(taken["seconds"][WARM_UP_STEPS:])


def choices(jobs: Sequence[tuple[Case, int]], kept: Kept) -> tuple[dict[str, list[float]], list[str]]:
    """Choose a way of each job by price, and as `thrifty run` does; hold both against a sweep of every way.

    `thrifty run` takes a few real steps of the ways that the price cannot tell apart. Probe and sweep are apart: the
    sweep times every way, and again those within `NEAR` of its best.
    """
    ratios: dict[str, list[float]] = {"probed": [], "priced": []}
    lines = ["", "| job | by price | ms | as run | ms | best of the sweep | ms | ways | price | run |"]
    lines += ["|---|---|---:|---|---:|---|---:|---:|---:|---:|"]

    def takes(what: str, way: Case, size: int) -> float:
        return kept(f"{what}-{way.name}-of-{size}", float, functools.partial(timed, way, size))

    for case, size in jobs:
        ways = ways_of(case, size)
        found = dict(zip(ways, predictions("time", ways, kept, at_once=1), strict=True))
        price = {way: found[way]["batch_s"][str(size // way.samples)] for way in ways}
        ranked = sorted(ways, key=lambda way: price[way])
        first = ranked[0]
        high = price[first] * found[first]["step_high_s"] / found[first]["step_s"]
        probed = {way: takes("probed", way, size) for way in ranked[:CONTENDERS] if price[way] <= high}
        if min(probed.values()) < probed[first]:
            probed[first] = min(probed[first], takes("probed-again", first, size))
        sweep = {way: [takes("swept", way, size)] for way in ways}
        least = min(times[0] for times in sweep.values())
        for way, times in sweep.items():
            if times[0] <= NEAR * least or way in probed:
                times.append(takes("swept-again", way, size))
        seconds = {way: statistics.fmean(times) for way, times in sweep.items()}
        taken, best = min(probed, key=lambda way: probed[way]), min(ways, key=lambda way: seconds[way])
        ratios["probed"].append(seconds[best] / seconds[taken])
        ratios["priced"].append(seconds[best] / seconds[first])
        cells = [f"{case.model} x {size}"]
        for way in (first, taken, best):
            cells += [way.name, f"{seconds[way] * 1e3:.0f}"]
        cells += [f"{len(ways)}", f"{ratios['priced'][-1]:.3f}", f"{ratios['probed'][-1]:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
        told(lines[-1])
    return ratios, lines


# what a process imports, and what it then does
PLANNING = {
    "bert": (
        "import transformers; from transformers import BertForSequenceClassification; from benchmarks import predict",
        "predict.plan_bert()",
    ),
    "gpt3": (
        "from pathlib import Path; from thrifty import api",
        "api.plan(Path('examples/gpt3_175b.yaml'), on='a100-80g:8x128')",
    ),
}


def planning(name: str) -> dict[str, float]:
    """Seconds and peak resident bytes of planning in a process of its own, its start included; and seconds without."""
    imports, plans = PLANNING[name]
    # not getrusage, whose mark begins with what the parent held
    script = (
        f"import time; {imports}; began = time.perf_counter(); {plans}; took_s = time.perf_counter() - began; "
        "from benchmarks.cases import status_bytes; print(took_s, status_bytes('VmHWM'))"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    whole_s = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(done.stderr[-800:])
    took_s, peak_bytes = map(float, done.stdout.split()[-2:])
    return {
        f"plan_seconds_{name}": whole_s,
        f"plan_seconds_{name}_without_imports": took_s,
        f"plan_gib_{name}": peak_bytes / 2**30,
    }


def main() -> None:
    """Measure, print the issue's figures, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the small cases alone")
    parser.add_argument("--resume", action="store_true", help="go on with what this code measured earlier today")
    asked = parser.parse_args()
    cases = QUICK if asked.quick else CASES
    kept = Kept.of("plan", resume=asked.resume)
    hardware.here(kind="cpu")  # measured alone, before predictions in two processes ask for it
    device, measured = rows(cases, rivals=QUICK, told=told, kept=kept)
    told(table(measured))
    samples, lines = memory(measured, cases, kept)
    ratios, more = choices(CHOICE_JOBS[:1] if asked.quick else CHOICE_JOBS, kept)
    figures = {
        "memory_median_error": statistics.median(map(abs, samples["ours"])),
        "memory_worst_error": max(map(abs, samples["ours"])),
        "memory_worst_under": max(0.0, -min(samples["ours"])),
        "memory_interval_coverage": statistics.fmean(samples["inside"]),
        "memory_above_imports_median_error": statistics.median(map(abs, samples["above_imports"])),
        **{
            f"memory_{name}_median_error": statistics.median(map(abs, samples[name]))
            for name in samples
            if name not in {"ours", "above_imports", "inside"}
        },
        **time_figures(measured),
        "local_choice_ratio": min(ratios["probed"]),
        "local_choice_median": statistics.median(ratios["probed"]),
        "local_choice_ratio_priced": min(ratios["priced"]),
        "local_choice_median_priced": statistics.median(ratios["priced"]),
    }
    for name in PLANNING:
        figures |= planning(name)
    says = (
        "## Memory\n\nResident memory as the kernel counts it (VmHWM), each case measured in one process and predicted "
        "in another that has run nothing, by a dry run; what the process had imported before the model was built is "
        "measured, not predicted. Other estimates are of tensors alone: they are held against what the run added to "
        "that.\n\n"
        + "\n".join(lines)
        + f"\n\n## Time\n\n{REPEATS} steps each after {WARM_UP} to warm up; ± is half the quartiles' distance. "
        "PyTorch's estimator times every operator anew, so it is asked about the small cases alone.\n\n"
        + table(measured)
        + "\n\n## Choice\n\nThe way with the least predicted time, and the one that `thrifty run` takes: the fastest "
        f"in a probe of up to {CONTENDERS} ways that the prediction cannot tell apart. Both against the best of a "
        "sweep of every way; their milliseconds are the sweep's.\n" + "\n".join(more)
    )
    plain = device.model_copy(update={"kernels": ()})
    record("plan", plain, says, {name: [value] for name, value in figures.items()})


if __name__ == "__main__":
    main()
