"""Step time on this machine: predicted from micro-benchmarks, beside real steps, a naive roofline and PyTorch's own.

    python -m benchmarks.step_time [--quick] [--case NAME ...]

The machine is measured before, amid and after the cases, for its speed may wander, and asked about the operators of
each case just before that trains, in a process of its own. Nothing is fitted to the cases.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.cases import CASES, QUICK, Case, trace
from benchmarks.kept import Kept
from benchmarks.predict import asked, roofline_seconds
from benchmarks.record import record
from benchmarks.torch_estimator import estimate
from thrifty.cost import step_seconds
from thrifty.hardware import probe
from thrifty.hardware.bench import Bench, bench, merged
from thrifty.hardware.capture import Key
from thrifty.hardware.measure import Measurement, measure_cpu
from thrifty.hardware.pages import keeping
from thrifty.spec import Device, Interval
from thrifty.spec.device import KernelPoint

WARM_UP, REPEATS = 3, 9
# times the machine is measured over a run
CALIBRATIONS = 3
# A case is measured again where its threads lost their cores more often than this a second: alone on the machine they
# do a few times, beside another process's threads hundreds of times.
TRIES, QUIET_SWITCHES = 3, 40.0


@dataclass(frozen=True)
class Row:
    """One case: seconds of real steps after warming up, and what each estimate said.

    Attributes:
        case: its name.
        measured: seconds of each step.
        base_bytes, peak_bytes: resident in that process before the model was built, and at most.
        predicted: ours, this machine asked about the operators that take most of the step.
        curves: ours by the micro-benchmarks alone.
        naive: each operator at peak arithmetic and full bandwidth, the slower of the two.
        rival: PyTorch's `RuntimeEstimator` by its benchmark of operators; None where it failed or was not asked. Its
            roofline asks CUDA for the figures of a GPU, and runs on none else.
    """

    case: str
    measured: tuple[float, ...]
    base_bytes: int
    peak_bytes: int
    predicted: Interval
    curves: float
    naive: float
    rival: float | None

    @property
    def median(self) -> float:
        """The median step."""
        return statistics.median(self.measured)

    @property
    def spread(self) -> float:
        """Half the range between the first and the third quartile, as a share of the median."""
        low, _, high = statistics.quantiles(self.measured, n=4)
        return (high - low) / 2 / self.median

    def error(self, seconds: float) -> float:
        """How far an estimate lies from the median step, as a share of it; negative where it is too fast."""
        return seconds / self.median - 1


@dataclass(frozen=True)
class Taken:
    """What a case took in a fresh process: seconds of each step after warming up, and memory as in `Row`."""

    seconds: tuple[float, ...]
    base_bytes: int
    peak_bytes: int


def measure(case: Case, *, steps: int = WARM_UP + REPEATS) -> Taken:
    """Train a case in a fresh process; again, up to three times in all, while others took its cores.

    Of several the least disturbed counts, whatever it took.
    """
    tries = []
    for _ in range(TRIES):
        taken, switches = _measure_once(case, steps)
        tries.append((switches, taken))
        if switches < QUIET_SWITCHES:
            break
    return min(tries, key=lambda each: each[0])[1]


def _measure_once(case: Case, steps: int) -> tuple[Taken, float]:
    """What a case took, and how often a second one of its threads lost its core."""
    command = [sys.executable, "-m", "benchmarks.cases", case.name, str(steps)]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_nivcsw
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    switched = resource.getrusage(resource.RUSAGE_CHILDREN).ru_nivcsw - before
    found = json.loads(done.stdout.splitlines()[-1])
    taken = Taken(tuple(found["seconds"][WARM_UP:]), found["base_bytes"], found["peak_bytes"])
    return taken, switched / (time.perf_counter() - began)


def this_device(benches: Sequence[Bench], rates: Measurement) -> Device:
    """Return this machine as a device that carries what was timed, averaged."""
    found = probe()
    known: dict[str, Any] = {
        "name": found.name,
        "kind": "cpu",
        "host_cores": 0,
        "cores": found.cores,
        "isa": found.isa,
        "cache_bytes": found.cache_bytes,
        "memory_bytes": found.memory_bytes,
        "flops_per_second": rates.flops_per_second,
        "bytes_per_second": rates.bytes_per_second,
        "measured_on": rates.measured_on,
        "kernels": merged(benches).kernels,
    }
    return Device.model_construct(**known)


def measure_rates() -> Measurement:
    """Measure arithmetic and memory bandwidth once."""
    found = probe()
    last = max(found.cache_bytes.items(), default=("", 0))[1]
    return measure_cpu(found.cores, last_cache_bytes=last, memory_bytes=found.memory_bytes, kernel_seconds=0)


def calibrate() -> Bench:
    """Run the micro-benchmarks once."""
    found = probe()
    last = max(found.cache_bytes.items(), default=("", 0))[1]
    return bench(found.cores, last_cache_bytes=last)


def rows(
    cases: Sequence[Case],
    *,
    rivals: Collection[Case] = (),
    told: Callable[[str], object] = print,
    kept: Kept | None = None,
) -> tuple[Device, list[Row]]:
    """Measure and predict cases; returns the device with what was timed of it, too."""
    kept = kept or Kept()
    measured: dict[str, Taken] = {}
    said: dict[str, tuple[KernelPoint, ...]] = {}
    benches: list[Bench] = []
    rates = kept("rates", Measurement, measure_rates)
    for number, part in enumerate(_parts(cases, CALIBRATIONS - 1)):
        benches.append(kept(f"calibration-{number}", Bench, calibrate))
        device = this_device(benches, rates)
        for case in part:
            said[case.name] = kept(f"asked-{case.name}", tuple[KernelPoint, ...], functools.partial(ask, case, device))
            take = functools.partial(measure, case)
            measured[case.name] = kept(f"taken-{case.name}", Taken, take)
            told(f"{case.name}: {statistics.median(measured[case.name].seconds):.4g} s a step")
    benches.append(kept("calibration-last", Bench, calibrate))
    device = this_device(benches, rates)
    found = []
    for case in cases:
        step = trace(case)
        pages = keeping("cpu", case.checkpointing)
        precision: Any = case.precision
        curves = step_seconds(step, 1, device, precision, keeping=pages)
        timed = {Key(point.name, point.dtype, point.shapes, point.layouts): point for point in said[case.name]}
        predicted = step_seconds(replace(step, timed=timed), 1, device, precision, keeping=pages)
        rival = kept(f"rival-{case.name}", float | None, functools.partial(estimate, case)) if case in rivals else None
        taken = measured[case.name]
        naive = roofline_seconds(step, device)
        found.append(
            Row(case.name, taken.seconds, taken.base_bytes, taken.peak_bytes, predicted, curves.value, naive, rival)
        )
    return device, found


def ask(case: Case, device: Device) -> tuple[KernelPoint, ...]:
    """Ask this machine about a case, just before it is trained."""
    return tuple(asked(trace(case), device).timed.values())


def _parts(cases: Sequence[Case], count: int) -> Iterator[Sequence[Case]]:
    size = math.ceil(len(cases) / count)
    for start in range(0, len(cases), size):
        yield cases[start : start + size]


def figures(found: Sequence[Row]) -> dict[str, float]:
    """Errors over the cases, ours and the others', and how many real steps lie within our bounds."""
    scores = _errors("time", [row.error(row.predicted.value) for row in found])
    scores["interval_coverage"] = statistics.fmean(
        row.predicted.low <= row.median <= row.predicted.high for row in found
    )
    scores |= _errors("curves", [row.error(row.curves) for row in found])
    scores |= _errors("naive_roofline", [row.error(row.naive) for row in found])
    rivals = [row.error(row.rival) for row in found if row.rival is not None]
    return scores | (_errors("runtime_estimator", rivals) if rivals else {})


def _errors(name: str, errors: Sequence[float]) -> dict[str, float]:
    sizes = sorted(abs(error) for error in errors)
    return {
        f"{name}_median_error": statistics.median(sizes),
        f"{name}_p90_error": sizes[math.ceil(0.9 * len(sizes)) - 1],
        f"{name}_bias": statistics.median(errors),
    }


def table(found: Sequence[Row]) -> str:
    """The cases as a table of Markdown."""
    lines = ["| case | measured s | ± | predicted s | range | error | inside | not asked | naive | torch |"]
    lines += ["|---|---:|---:|---:|---|---:|---|---:|---:|---:|"]
    for row in found:
        inside = row.predicted.low <= row.median <= row.predicted.high
        cells = [row.case, f"{row.median:.4g}", f"{row.spread:.1%}", f"{row.predicted.value:.4g}"]
        cells += [f"{row.predicted.low:.4g} to {row.predicted.high:.4g}"]
        cells += [f"{row.error(row.predicted.value):+.1%}", "yes" if inside else "no"]
        cells += ["–" if each is None else f"{row.error(each):+.0%}" for each in (row.curves, row.naive, row.rival)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run, print the figures, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the small cases alone")
    parser.add_argument("--no-rivals", action="store_true", help="leave PyTorch's estimator out")
    parser.add_argument("--case", action="append", default=[], help="these alone")
    given = parser.parse_args()
    cases = [case for case in CASES if case.name in given.case] or list(QUICK if given.quick else CASES)
    device, found = rows(
        cases,
        rivals=() if given.no_rivals else cases,
        told=lambda line: print(line, file=sys.stderr, flush=True),
    )
    says = (
        f"{len(found)} cases, {REPEATS} steps each, after {WARM_UP} to warm up; ± is half the quartiles' distance. "
        f"The machine was measured {CALIBRATIONS} times over the run. Errors are shares of the median step."
    )
    path = record("step_time", device.model_copy(update={"kernels": ()}), f"{says}\n\n{table(found)}", {
        key: [value] for key, value in figures(found).items()
    })  # fmt: skip
    print(path)


if __name__ == "__main__":
    main()
