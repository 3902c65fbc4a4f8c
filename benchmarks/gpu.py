"""Peak memory and step time on this machine's GPU: predicted before a step is taken, beside real steps.

    python -m benchmarks.gpu [--quick]

All cases run in one process, one after another; between two, all that the first held is given back. Every operator of
a case is asked about alone, then a step is predicted, then the case is trained. Nothing is fitted to the cases.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.cases import GPU_CASES, Case, take_steps, trace
from benchmarks.predict import memory_estimates, roofline_seconds
from benchmarks.record import record
from benchmarks.torch_estimator import on_gpu
from thrifty import hardware
from thrifty.cost import peak_bytes, step_seconds
from thrifty.cost.asked import heard
from thrifty.errors import JobError
from thrifty.hardware.asking import Asker
from thrifty.spec import Device, Interval

WARM_UP, STEPS = 3, 23
QUICK = GPU_CASES[::8]
# of PyTorch's estimator, which times every operator anew
RIVAL_CASES, RIVAL_SECONDS = 12, 20.0
MIB = 1 << 20


@dataclass(frozen=True)
class Measured:
    """A case beside what was said of it; sizes in bytes, times in seconds.

    Attributes:
        peak: ``torch.cuda.max_memory_allocated`` over what was allocated before the case.
        steps: seconds of each, after warming up.
        planning_s: that tracing it and asking the GPU took.
        rivals: what others' rules say of its memory.
        roofline_s: arithmetic or traffic at the GPU's measured rates.
    """

    case: Case
    peak: int
    steps: Sequence[float]
    memory: Interval
    time: Interval
    planning_s: float
    rivals: dict[str, float]
    roofline_s: float

    @property
    def step_s(self) -> float:
        """The median step."""
        return statistics.median(self.steps)


def measured(cases: Sequence[Case], device: Device, failed: list[str]) -> Iterator[Measured]:
    """Predict and train each case; of one that cannot be traced or trained ``failed`` takes the reason."""
    with Asker("cuda") as asker:
        for case in cases:
            try:
                yield _measured(case, device, asker)
            except (JobError, RuntimeError) as error:
                failed.append(f"{case.name}: {' '.join(str(error).split())[:300]}")
                print(failed[-1], flush=True)
            _give_back()


def _measured(case: Case, device: Device, asker: Asker) -> Measured:
    began = time.perf_counter()
    traced = heard(trace(case, "cuda"), asker)
    asker.ask(traced.calls)
    memory = peak_bytes(traced, device_kind="cuda")
    step = step_seconds(traced, 1, device, case.precision)  # type: ignore[arg-type]
    planning_s = time.perf_counter() - began
    _give_back()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    seconds = take_steps(case, STEPS, device="cuda")[WARM_UP:]
    found = Measured(
        case,
        torch.cuda.max_memory_allocated() - before,
        seconds,
        memory,
        step,
        planning_s,
        memory_estimates(case, traced),
        roofline_seconds(traced, device),
    )
    print(line(found), flush=True)
    return found


def _give_back() -> None:
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()


def line(row: Measured) -> str:
    """Write a case as a row of the report's table."""
    quartiles = statistics.quantiles(row.steps, n=4)
    spread = (quartiles[2] - quartiles[0]) / 2 / row.step_s
    off = _off(row.memory.value, row.peak)
    return (
        f"| {row.case.name} | {row.peak / MIB:.0f} | {row.memory.value / MIB:.0f} | {off:+.2%}"
        f" | {row.step_s * 1e3:.2f} ±{spread:.0%} | {row.time.value * 1e3:.2f}"
        f" | {row.time.low * 1e3:.1f} to {row.time.high * 1e3:.1f} | {_off(row.time.value, row.step_s):+.1%}"
        f" | {_off(row.roofline_s, row.step_s):+.0%} | {row.planning_s:.1f} |"
    )


def _off(said: float, real: float) -> float:
    return said / real - 1


def _inside(said: Interval, real: float) -> bool:
    return said.low <= real <= said.high


def figures(rows: Sequence[Measured]) -> dict[str, float]:
    """Compute the figures of the report; errors are shares."""
    memory = [_off(row.memory.value, row.peak) for row in rows]
    times = [_off(row.time.value, row.step_s) for row in rows]
    roofline = [abs(_off(row.roofline_s, row.step_s)) for row in rows]
    rivals = {
        f"memory_{name}_median_error": statistics.median(abs(_off(row.rivals[name], row.peak)) for row in rows)
        for name in rows[0].rivals
    }
    return {
        "memory_median_error": statistics.median(map(abs, memory)),
        "memory_worst_error": max(map(abs, memory)),
        "memory_worst_under": max(0.0, -min(memory)),
        "memory_interval_coverage": statistics.fmean(_inside(row.memory, row.peak) for row in rows),
        **rivals,
        "time_median_error": statistics.median(map(abs, times)),
        "time_p90_error": statistics.quantiles(map(abs, times), n=10)[-1],
        "time_bias": statistics.median(times),
        "interval_coverage": statistics.fmean(_inside(row.time, row.step_s) for row in rows),
        "roofline_median_error": statistics.median(roofline),
        "roofline_p90_error": statistics.quantiles(roofline, n=10)[-1],
        "planning_median_s": statistics.median(row.planning_s for row in rows),
    }


def rival(rows: Sequence[Measured]) -> dict[str, float]:
    """Ask PyTorch's own estimator about a few cases, the fastest first; ours on the same beside it."""
    began = time.perf_counter()
    theirs: list[float] = []
    ours: list[float] = []
    for row in sorted(rows, key=lambda row: row.step_s)[:RIVAL_CASES]:
        if time.perf_counter() - began > RIVAL_SECONDS:
            break
        said = on_gpu(row.case)
        if said is not None:
            theirs.append(abs(_off(said, row.step_s)))
            ours.append(abs(_off(row.time.value, row.step_s)))
    if not theirs:
        return {}
    return {
        "runtime_estimator_cases": len(theirs),
        "runtime_estimator_median_error": statistics.median(theirs),
        "runtime_estimator_same_cases_ours": statistics.median(ours),
    }


def main() -> None:
    """Measure, print the figures, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="five cases alone")
    asked = parser.parse_args()
    device = hardware.here(kind="cuda")
    failed: list[str] = []
    rows = list(measured(QUICK if asked.quick else GPU_CASES, device, failed))
    found: dict[str, Any] = figures(rows) | {"cases": len(rows), "cases_failed": len(failed)} | rival(rows)
    says = (
        f"{STEPS - WARM_UP} steps at most of each case after {WARM_UP} to warm up; ± is half the quartiles' distance. "
        "Memory is what torch.cuda.max_memory_allocated says, in MiB; times are in ms, planning in seconds: the trace "
        "and the asking. A batch comes from the host's memory in each step, and the host reads a number at its end, as "
        "the loop does. The roofline takes the GPU's measured rates.\n\n"
        "| case | memory | foreseen | off | step | foreseen | bounds | off | roofline | planning |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        + "\n".join(map(line, rows))
        + "".join(f"\n\nFailed: {each}" for each in failed)
    )
    plain = device.model_copy(update={"kernels": ()})
    record("gpu", plain, says, {name: [value] for name, value in found.items()})


if __name__ == "__main__":
    main()
