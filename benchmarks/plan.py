"""Predictions of this machine against real steps of 36 cases: memory, time, the choice of a plan, and what it costs.

``python -m benchmarks.plan [--quick]``. Each case is measured in a process of its own, and predicted in another that has
run nothing. Nothing is fitted to the cases: prices come from micro-benchmarks (``thrifty hardware --measure``).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.cases import CASES, QUICK, Case
from benchmarks.record import record

MEASURED_STEPS = 9
WARM_UP_STEPS = 2
CHOICE_JOBS: tuple[tuple[Case, int], ...] = (
    (Case("gpt-nano", 32), 32),
    (Case("gpt-mini", 16), 16),
    (Case("resnet20", 256, optimizer="momentum"), 256),
    (Case("resnet18", 64, optimizer="momentum"), 64),
    (Case("mlp", 1024), 1024),
    (Case("bert-mini", 32), 32),
)


def run(*arguments: str) -> dict[str, Any]:
    """Run the cases' script in a process of its own, and read what it prints last."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.predict" if arguments[0] == "predict" else "benchmarks.cases",
    ]
    done = subprocess.run(
        [*command, *arguments[arguments[0] == "predict" :]], capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr[-800:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def steady_seconds(found: Mapping[str, Any]) -> float:
    """Median of the measured steps after those that warm up."""
    return statistics.median(found["seconds"][WARM_UP_STEPS:])


def off(predicted: float, measured: float) -> float:
    """Share by which a prediction is too high."""
    return predicted / measured - 1


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the others lies under, the nearest one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def score(cases: Sequence[Case]) -> tuple[dict[str, list[float]], list[str]]:
    """Measure and predict each case; returns every figure's samples, and a line of the table a case."""
    samples: dict[str, list[float]] = {}
    lines = [
        "| case | MiB measured | predicted | off | ms a step (spread) | predicted | off | roofline | torch's estimator |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for case in cases:
        measured, predicted = run(case.name, str(MEASURED_STEPS)), run("predict", case.name)
        step_s = steady_seconds(measured)
        spread = max(measured["seconds"][WARM_UP_STEPS:]) / min(measured["seconds"][WARM_UP_STEPS:]) - 1
        base = predicted["base_bytes"]
        memory_off = off(predicted["peak_bytes"], measured["peak_bytes"])
        time_off = off(predicted["step_s"], step_s)
        samples.setdefault("memory_off", []).append(memory_off)
        samples.setdefault("memory_above_base_off", []).append(
            off(predicted["peak_bytes"] - base, measured["peak_bytes"] - measured["base_bytes"])
        )
        samples.setdefault("time_off", []).append(time_off)
        samples.setdefault("step_spread", []).append(spread)
        inside = [
            predicted["step_low_s"] <= step_s <= predicted["step_high_s"],
            predicted["peak_low_bytes"] <= measured["peak_bytes"] <= predicted["peak_high_bytes"],
        ]
        samples.setdefault("inside", []).extend(float(each) for each in inside)
        for rival, seconds in predicted["rival_s"].items():
            samples.setdefault(f"time_{rival}_off", []).append(off(seconds, step_s))
        for rival, size in predicted["rival_bytes"].items():
            samples.setdefault(f"memory_{rival}_off", []).append(
                off(size, measured["peak_bytes"] - measured["base_bytes"])
            )
        lines.append(
            f"| {case.name} | {measured['peak_bytes'] >> 20} | {predicted['peak_bytes'] / 2**20:.0f} | {memory_off:+.1%} | "
            f"{step_s * 1e3:.0f} ({spread:.0%}) | {predicted['step_s'] * 1e3:.0f} | {time_off:+.1%} | "
            + " | ".join(f"{off(seconds, step_s):+.0%}" for seconds in predicted["rival_s"].values())
            + " |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return samples, lines


def choices(jobs: Sequence[tuple[Case, int]]) -> tuple[list[float], list[str]]:
    """Let the prices choose a way of each job, measure every way, and return chosen over best throughput."""
    ratios, lines = (
        [],
        ["", "| job | chosen | ms | best measured | ms | chosen / best |", "|---|---|---:|---|---:|---:|"],
    )
    for case, size in jobs:
        ways = [
            replace(case, samples=micro, precision=precision, layout=layout)
            for precision in ("fp32", "bf16")
            for layout in (("contiguous", "channels_last") if "resnet" in case.model else ("contiguous",))
            for micro in (size, size // 2)
        ]
        priced = {way: run("predict", json.dumps(way.__dict__))["batch_s"][str(size // way.samples)] for way in ways}
        timed = {way: run(json.dumps(way.__dict__), str(MEASURED_STEPS), "2", str(size // way.samples)) for way in ways}
        seconds = {way: steady_seconds(found) for way, found in timed.items()}
        chosen, best = min(ways, key=lambda way: priced[way]), min(ways, key=lambda way: seconds[way])
        ratios.append(seconds[best] / seconds[chosen])
        lines.append(
            f"| {case.model} x {size} | {chosen.name} | {seconds[chosen] * 1e3:.0f} | {best.name} | "
            f"{seconds[best] * 1e3:.0f} | {ratios[-1]:.3f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return ratios, lines


PLANNING = {
    "bert": "from benchmarks.predict import plan_bert; plan_bert()",
    "gpt3": "from pathlib import Path; from thrifty import api; "
    "api.plan(Path('examples/gpt3_175b.yaml'), on='a100-80g:8x128')",
}


def planning(name: str) -> tuple[float, int]:
    """Seconds and peak resident bytes of planning in a process of its own, its start included."""
    began = time.perf_counter()
    script = f"{PLANNING[name]}; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-800:])
    scale = 1024 if sys.platform != "darwin" else 1
    return time.perf_counter() - began, int(done.stdout.splitlines()[-1]) * scale


def main() -> None:
    """Measure, print the issue's figures, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the small cases alone")
    quick = parser.parse_args().quick
    from thrifty import hardware

    device = hardware.here(kind="cpu")
    samples, lines = score(QUICK if quick else CASES)
    ratios, more = choices(CHOICE_JOBS[:1] if quick else CHOICE_JOBS)
    bert_s, bert_bytes = planning("bert")
    gpt3_s, gpt3_bytes = planning("gpt3")
    memory, seconds = samples["memory_off"], samples["time_off"]
    figures: dict[str, list[float]] = {
        "memory_median_error": [statistics.median(map(abs, memory))],
        "memory_worst_error": [max(map(abs, memory))],
        "memory_worst_under": [max(0.0, -min(memory))],
        "memory_above_base_median_error": [statistics.median(map(abs, samples["memory_above_base_off"]))],
        "time_median_error": [statistics.median(map(abs, seconds))],
        "time_p90_error": [percentile([abs(each) for each in seconds], 0.9)],
        "interval_coverage": [statistics.fmean(samples["inside"])],
        "local_choice_ratio": [min(ratios)],
        "plan_seconds_bert": [bert_s],
        "plan_seconds_gpt3": [gpt3_s],
        "plan_gib_bert": [bert_bytes / 2**30],
        "plan_gib_gpt3": [gpt3_bytes / 2**30],
    }
    for name, values in samples.items():
        if name.startswith(("time_", "memory_")) and name.removesuffix("_off").count("_") and "above_base" not in name:
            figures[f"{name.removesuffix('_off')}_median_error"] = [statistics.median(map(abs, values))]
    says = (
        "Resident memory as the kernel counts it (VmHWM), the process's imports measured before the model is built; "
        "estimates of rivals are for tensors alone and are held against what the run added to that. "
        f"Steps: median of {MEASURED_STEPS - WARM_UP_STEPS} after {WARM_UP_STEPS}, spread is longest over shortest.\n\n"
        + "\n".join([*lines, *more])
    )
    record("plan", device, says, figures)
    print(f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB", file=sys.stderr)


if __name__ == "__main__":
    main()
