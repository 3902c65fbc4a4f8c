"""Predict one case in a process that has run nothing, as planning does: ``python -m benchmarks.predict CASE``."""

from __future__ import annotations

import functools
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.cases import MODELS, Case, build, imported_bytes, named, trace

if TYPE_CHECKING:
    from thrifty.cost import HeapPeak, Trace
    from thrifty.spec import Device


def predict(case: Case) -> dict[str, Any]:
    """Predict memory and time of a case, and what others' rules say of its memory."""
    import thrifty.hardware as hardware
    from thrifty.cost import peak_bytes, step_seconds
    from thrifty.cost.asked import heard, slowest
    from thrifty.cost.time import times_of
    from thrifty.hardware.pages import keeping
    from thrifty.hardware.runtime import runtime_bytes
    from thrifty.planner.settle import SECONDS_A_WAY, asker_of

    device = hardware.here(kind="cpu")
    base_bytes = imported_bytes(case)
    heap = dry_run(case)
    traced = trace(case)
    runtime = {**runtime_bytes(device.cores), "imports": base_bytes}
    peak = peak_bytes(traced, heap=heap, runtime=runtime)
    precision: Any = case.precision
    kept = keeping("cpu", case.checkpointing)
    by_curves = step_seconds(traced, 1, device, precision, keeping=kept)
    began = time.perf_counter()
    with asker_of(device) as asker:
        if asker is not None:
            traced = heard(traced, asker)
            asker.ask(slowest(traced, times_of(device).price(traced)), SECONDS_A_WAY)
    asking_s = time.perf_counter() - began
    step = step_seconds(traced, 1, device, precision, keeping=kept)
    return {
        "base_bytes": base_bytes,
        "peak_bytes": peak.value,
        "peak_low_bytes": peak.low,
        "peak_high_bytes": peak.high,
        "step_s": step.value,
        "curves_s": by_curves.value,
        "asking_s": asking_s,
        "step_low_s": step.low,
        "step_high_s": step.high,
        "batch_s": {str(n): step_seconds(traced, n, device, precision, keeping=kept).value for n in (1, 2, 4)},
        "rival_bytes": memory_estimates(case, traced),
    }


def dry_run(case: Case) -> HeapPeak | None:
    """Take steps of a case on memory alone."""
    from thrifty import optim
    from thrifty.cost.heap import heap_peak
    from thrifty.hardware.pages import keeping
    from thrifty.models.inputs import MEMORY_FORMATS

    model = MODELS[case.model]
    return heap_peak(
        functools.partial(build, case),
        model.loss,
        model.shapes(case.samples),
        precision=case.precision,
        optimizer=optim.by_name(case.optimizer),
        memory_format=MEMORY_FORMATS[case.layout],
        keeping=keeping("cpu", case.checkpointing),
    )


def roofline_seconds(traced: Trace, device: Device) -> float:
    """The naive roofline: each operator by the larger of arithmetic and traffic at the device's measured rates."""
    total = 0.0
    for op in traced.ops:
        rate = (
            device.flops_per_second.get("bf16" if op.dtype == "bfloat16" else "fp32") or device.flops_per_second["fp32"]
        )
        total += max(op.flops / rate.value, (op.bytes_read + op.bytes_written) / device.bytes_per_second.value)
    return total


def memory_estimates(case: Case, traced: Trace) -> dict[str, float]:
    """What others' rules say of memory: weights times four, accelerate, DeepSpeed's estimators where installed."""
    import torch

    with torch.device("meta"):
        meta = MODELS[case.model].build()
    found = {"four_weights": 4.0 * traced.parameter_bytes}
    try:
        from accelerate.utils import calculate_maximum_sizes

        # `accelerate estimate-memory`: training with Adam takes four times the model's size
        found["accelerate"] = 4.0 * calculate_maximum_sizes(meta)[0]
    except ImportError:
        pass
    try:
        from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

        # one device: what it would hold on the device, in bytes
        found["deepspeed_zero2"] = float(estimate_zero2_model_states_mem_needs(traced.parameters, 1, 1, False)[1])
    except ImportError:
        pass
    return found


def plan_bert() -> None:
    """Plan BERT-base here: trace, price and dry run of every local way, as `thrifty plan` would."""
    import thrifty.hardware as hardware
    from thrifty.cost import peak_bytes, step_seconds
    from thrifty.hardware.pages import keeping
    from thrifty.hardware.runtime import runtime_bytes

    device = hardware.here(kind="cpu")
    for precision in ("fp32", "bf16"):
        case = Case("bert-base", 8, precision)
        traced = trace(case)
        step_seconds(traced, 1, device, precision, keeping=keeping("cpu", case.checkpointing))
        peak_bytes(traced)
    peak_bytes(traced, heap=dry_run(case), runtime=runtime_bytes(device.cores))


if __name__ == "__main__":
    print(json.dumps(predict(named(sys.argv[1]))))
