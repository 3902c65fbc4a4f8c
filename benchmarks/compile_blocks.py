"""Steps of GPTs on one NVIDIA GPU as they come, and with their blocks compiled: time, share of peak, memory, kernels.

    python -m benchmarks.compile_blocks [--quick] [--most SECONDS]

Steps are the loop's own (`take_step`), in bf16 autocast, over the same batch each time. Each case prints as it goes, so
that a run that is cut short is of use; what does not fit into ``--most`` seconds is left out and named.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_train import GPT_VOCABULARY, WORKS, Work
from benchmarks.peak import peak_flops
from thrifty import optim
from thrifty.models import build
from thrifty.models.compiling import compile_seconds, compiling
from thrifty.models.inputs import to_device
from thrifty.planner.planner import UNPRICED
from thrifty.spec import BatchPlan, ModelPlan, OptimPlan, Plan, StopPlan
from thrifty.train.step import take_step

WARM_UP, STEPS, LEAST_STEPS = 2, 12, 4
# of steady steps; a case of the large model takes some three seconds to build and as many to compile again
CASE_SECONDS, LEAST_LEFT_S = 5.0, 8.0
KERNELS = 15
MIB = 1 << 20
# by table and micro-batch; the first ones tell the most
CASES = (
    ("gpt2_124m", 16, "none"),
    ("gpt2_124m", 16, "blocks"),
    ("gpt_1300m", 8, "blocks"),
    ("gpt_1300m", 8, "none"),
    ("gpt_1300m", 4, "blocks"),
    ("gpt_1300m", 4, "none"),
    ("gpt2_124m", 16, "whole"),
)
SIZES = {"gpt2_124m": (12, 768, 12), "gpt_1300m": (24, 2048, 16)}


@dataclass(frozen=True)
class Measured:
    """What a case took: seconds of each steady step, and of the steps before, those of compiling among them."""

    steps: list[float]
    first_s: float
    compile_s: float
    peak_bytes: int
    loss: float
    kernels: list[tuple[str, float, int]]


def plan_of(name: str, work: Work, micro: int, layers: int, width: int, heads: int, device: str) -> Plan:
    """The plan of a case; of what is learned the usual."""
    arguments = {
        "vocabulary": GPT_VOCABULARY, "length": work.length, "layers": layers, "width": width, "heads": heads,
    }  # fmt: skip
    return Plan(
        job="compile-blocks", key="compile-blocks", task="language",
        model=ModelPlan(name=name, family="gpt", arguments=arguments), init="default",
        optim=OptimPlan(
            optimizer="adamw", schedule="fixed", learning_rate=1e-4, momentum=0.0, betas=(0.9, 0.95), eps=1e-8,
            weight_decay=0.1, warmup_steps=0, total_steps=1000, steps_per_epoch=1000, decay=1.0, plateau_patience=0,
            clip=1.0,
        ),
        batch=BatchPlan(size=work.batch, micro=micro, accumulation=math.ceil(work.batch / micro), evaluation=micro),
        stop=StopPlan(
            steps=1000, metric="loss", higher_is_better=False, target=-math.inf, patience=0, seconds=math.inf,
            joules=math.inf, usd=math.inf,
        ),
        device="cuda" if device == "cuda" else "cpu", threads=2, precision="bf16", memory_format="contiguous",
        evaluate_every=1000, checkpoint_seconds=1000.0, seed=0, cost=UNPRICED, why=(),
    )  # fmt: skip


def measure(plan: Plan, compile: str, *, profile: bool) -> Measured:
    """Take the steps of a case."""
    cuda = plan.device == "cuda"
    torch.manual_seed(0)
    model = to_device(build(plan.model, plan.device), plan.device, "contiguous").train()
    with torch.no_grad():  # where they are: on the host, as the loop has them, a large model's would take half a minute
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.02)
    compiling(model, compile)
    optimizer = optim.build(model, plan.optim)
    generator = np.random.default_rng(0)
    length = plan.model.arguments["length"]
    shape = (plan.batch.accumulation, plan.batch.micro, length + 1)
    tokens = generator.integers(plan.model.arguments["vocabulary"], size=shape)
    batches = [{"x": part[:, :-1].copy(), "y": part[:, 1:].copy()} for part in tokens]

    def step() -> tuple[float, float]:
        return take_step(plan, model, optimizer, batches, 1e-4)

    before_s, began = compile_seconds(), time.perf_counter()
    losses = [step()[0] for _ in range(WARM_UP)]
    first_s = time.perf_counter() - began
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times: list[float] = []
    while len(times) < STEPS and (len(times) < LEAST_STEPS or sum(times) < CASE_SECONDS):
        began = time.perf_counter()
        losses.append(step()[0])
        times.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() if cuda else 0
    kernels = list(_kernels(step)) if profile and cuda else []
    return Measured(times, first_s, compile_seconds() - before_s, peak, losses[2], kernels)


def _kernels(step: Any) -> Iterator[tuple[str, float, int]]:
    """Names, milliseconds and calls of the kernels that one step runs, the longest first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as found:
        step()
        torch.cuda.synchronize()
    rows = sorted(found.key_averages(), key=lambda row: -row.self_device_time_total)
    for row in rows:
        yield row.key, row.self_device_time_total / 1e3, row.count


def told(name: str, work: Work, found: Measured, peak: float) -> None:
    """Print a case."""
    step_s = statistics.median(found.steps)
    samples_per_second = work.batch / step_s
    spread = (max(found.steps) - min(found.steps)) / step_s
    values = {
        "step_ms": step_s * 1e3, "spread": spread, "samples_per_second": samples_per_second,
        "mfu": work.flops * samples_per_second / peak if peak else math.nan, "first_steps_s": found.first_s,
        "compile_s": found.compile_s, "peak_mib": found.peak_bytes / MIB, "third_loss": found.loss,
    }  # fmt: skip
    for figure, value in values.items():
        print(f"{name}_{figure}={value:.6g}", flush=True)
    if not found.kernels:
        return
    whole_ms = sum(ms for _, ms, _ in found.kernels)
    print(f"{name}_kernels_ms={whole_ms:.6g}\n\n| {name}: kernel | ms a step | share | calls |\n|---|---|---|---|")
    for kernel, ms, calls in found.kernels[:KERNELS]:
        print(f"| {kernel[:110].replace('|', '/')} | {ms:.2f} | {ms / whole_ms:.1%} | {calls} |")
    print(flush=True)


def _give_back() -> None:
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main() -> int:
    """Run what there is time for; returns 1 when a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="GPT-2 of 124 M alone, as it comes and by blocks")
    parser.add_argument("--most", type=float, default=95.0, help="seconds in all (95)")
    parser.add_argument("--no-profile", action="store_true", help="no kernels")
    asked = parser.parse_args()
    began, failed, left_out = time.monotonic(), 0, []
    if not torch.cuda.is_available():
        sys.exit("compile_blocks needs an NVIDIA GPU that torch can use; there is none here")
    peak, shape = peak_flops("cuda")
    print(f"torch={torch.__version__}\ndevice={torch.cuda.get_device_name()}\npeak_tflops={peak / 1e12:.6g} ({shape})")
    for model, micro, compile in CASES[:2] if asked.quick else CASES:
        name = f"{model}_micro{micro}_{compile}"
        if time.monotonic() - began > asked.most - LEAST_LEFT_S:
            left_out.append(name)
            continue
        try:
            work = WORKS[model]
            plan = plan_of(model, work, micro, *SIZES[model], "cuda")
            told(name, work, measure(plan, compile, profile=not asked.no_profile), peak)
        except Exception:
            failed += 1
            print(f"{name} failed:\n{traceback.format_exc()}", flush=True)
        _give_back()
    print(f"seconds={time.monotonic() - began:.4g}\nleft_out={', '.join(left_out) or 'none'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
