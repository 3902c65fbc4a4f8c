"""A few real steps, timed and thrown away: what a plan's step takes on this machine."""

from __future__ import annotations

import time

import torch

from thrifty import optim
from thrifty.data import Batches, Store
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.models.inputs import to_device
from thrifty.spec import Plan
from thrifty.train.loop import take_step

WARM_UP_STEPS = 2


def probe_steps(plan: Plan, store: Store, *, steps: int = 5, seconds: float = 10.0) -> tuple[float, ...]:
    """Time up to ``steps`` optimizer steps of a model built for it, after two that warm up; seconds of each.

    Torch's random state is left as it was. Takes about ``seconds`` at most, but times one step at least.
    """
    torch.set_num_threads(plan.threads)
    generator_state = torch.get_rng_state()
    model = build(plan.model, plan.device)
    initialise(model, plan.init, plan.seed)
    to_device(model, plan.device, plan.memory_format).train()
    optimizer = optim.build(model, plan.optim)
    batches = Batches(store, split="train", batch=plan.batch.size, micro=plan.batch.micro, seed=plan.seed)
    times: list[float] = []
    started = time.perf_counter()
    for index in range(WARM_UP_STEPS + steps):
        if len(times) >= 1 and time.perf_counter() - started > seconds:
            break
        began = time.perf_counter()
        take_step(plan, model, optimizer, batches.step(index % batches.steps_per_epoch), 0.0)
        if index >= WARM_UP_STEPS or time.perf_counter() - started > seconds:
            times.append(time.perf_counter() - began)
    torch.set_rng_state(generator_state)
    return tuple(times)
