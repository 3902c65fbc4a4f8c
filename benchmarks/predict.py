"""Predict one case in a process that has run nothing, as planning does.

``python -m benchmarks.predict memory|time CASE``
"""

from __future__ import annotations

import functools
import json
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.cases import MODELS, Case, build, imported_bytes, named, trace

if TYPE_CHECKING:
    from thrifty.cost import HeapPeak, Trace
    from thrifty.hardware.asking import Asker
    from thrifty.spec import Device


def predict_memory(case: Case) -> dict[str, Any]:
    """Predict the memory of a case, and say what others' rules say of it; bytes."""
    import thrifty.hardware as hardware
    from thrifty.cost import peak_bytes
    from thrifty.hardware.runtime import runtime_bytes

    base_bytes = imported_bytes(case)
    heap = dry_run(case)
    traced = trace(case)
    runtime = {**runtime_bytes(hardware.here(kind="cpu").cores), "imports": base_bytes}
    peak = peak_bytes(traced, heap=heap, runtime=runtime)
    return {
        "base_bytes": base_bytes,
        "peak_bytes": peak.value,
        "peak_low_bytes": peak.low,
        "peak_high_bytes": peak.high,
        "rival_bytes": memory_estimates(case, traced),
    }


def predict_time(case: Case) -> dict[str, Any]:
    """Predict the seconds of a step of one, two and four micro-batches of a case, this machine asked."""
    import thrifty.hardware as hardware
    from thrifty.cost import step_seconds
    from thrifty.hardware.pages import keeping

    device = hardware.here(kind="cpu")
    traced = asked(trace(case), device)
    precision: Any = case.precision
    kept = keeping("cpu", case.checkpointing)
    step = step_seconds(traced, 1, device, precision, keeping=kept)
    return {
        "step_s": step.value,
        "step_high_s": step.high,
        "batch_s": {str(n): step_seconds(traced, n, device, precision, keeping=kept).value for n in (1, 2, 4)},
    }


def asked(traced: Trace, device: Device) -> Trace:
    """Ask this machine about a trace as a plan does of one way; at most three seconds, the start of a process aside."""
    from thrifty.planner.settle import asker_of

    with asker_of(device) as asker:
        return answered(traced, device, asker)


def answered(traced: Trace, device: Device, asker: Asker | None) -> Trace:
    """Ask about the operators that take most of a trace."""
    from thrifty.cost.asked import heard, slowest
    from thrifty.cost.time import times_of
    from thrifty.planner.settle import SECONDS_A_WAY

    assert asker is not None
    asker.ask(slowest(traced, times_of(device).price(traced)), SECONDS_A_WAY)
    return heard(traced, asker)


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
    """Plan BERT-base here as `thrifty plan` would: traces, prices, this machine asked about the best, its dry run."""
    import thrifty.hardware as hardware
    from thrifty.cost import peak_bytes, step_seconds
    from thrifty.hardware.pages import keeping
    from thrifty.hardware.runtime import runtime_bytes
    from thrifty.planner.settle import asker_of

    device = hardware.here(kind="cpu")
    kept = keeping("cpu", "none")
    with asker_of(device) as asker:
        fp32, bf16 = (trace(Case("bert-base", 8, precision)) for precision in ("fp32", "bf16"))
        step_seconds(fp32, 1, device, "fp32", keeping=kept)
        step_seconds(answered(bf16, device, asker), 1, device, "bf16", keeping=kept)
    peak_bytes(bf16, heap=dry_run(Case("bert-base", 8, "bf16")), runtime=runtime_bytes(device.cores))


PREDICTED = {"memory": predict_memory, "time": predict_time}

if __name__ == "__main__":
    print(json.dumps(PREDICTED[sys.argv[1]](named(sys.argv[2]))))
