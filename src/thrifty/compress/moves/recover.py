"""Training within compression: what was cut learns again, a student learns from its teacher; by the project's own loop.

Seeded, priced before it begins, and ended by its budget. Weights are those of the last step: the loop's choice of the
best ones is left to no held-out row, so that the guard's are not used twice.
"""

from __future__ import annotations

import math
import shutil
import statistics
import time

import torch
from torch import nn

from thrifty.compress.moves.move import Context
from thrifty.compress.moves.soft import distilling
from thrifty.compress.moves.weight import answer_seconds
from thrifty.errors import BudgetError
from thrifty.hardware.pages import give_back
from thrifty.models.inputs import to_device
from thrifty.models.losses import LossSum
from thrifty.spec import AdaptPlan, ModelPlan, Plan, Spent
from thrifty.spec.units import format_seconds
from thrifty.train import train
from thrifty.train.probe import probe_steps

# what training a row takes, in answers to it: forward, and twice that backward (Kaplan et al. 2020, section 2.1)
PASSES = 3
# of the run's steps that what was cut learns again in, and of its rate, for it knows nearly all
AGAIN_STEPS = 0.25
AGAIN_RATE = 0.3
# of a move's seconds that are left to what comes after training
RESERVE = 0.15
PROBE_SECONDS = 3.0


def recover(
    context: Context, model: nn.Module, plan: ModelPlan, teacher: nn.Module, *, began: float
) -> tuple[nn.Module, str]:
    """Let a model that was changed learn again, from the labels and from what it was before.

    Args:
        context: of the move.
        model: changed; it is trained in place.
        plan: of it.
        teacher: what it was.
        began: ``time.perf_counter`` when the move began, of whose seconds training gets what is left.

    Returns:
        The model in ``eval`` mode on the CPU, and what was done, in words.

    Raises:
        BudgetError: there is no time for a step.
    """
    steps = max(1, round(AGAIN_STEPS * context.run.stop.steps))
    loss = distilling(teacher.eval(), context.run.task)
    return learn(context, model, plan, loss=loss, teacher=teacher, steps=steps, rate=AGAIN_RATE, began=began)


def recovery_seconds(context: Context, model: nn.Module) -> float:
    """Predicted seconds of `recover`, for a model not yet changed."""
    steps = max(1, round(AGAIN_STEPS * context.run.stop.steps))
    answer_s = answer_seconds(model, context.calibration) * context.run.batch.size
    return min(PROBE_SECONDS + (PASSES + 1) * answer_s * steps, (1 - RESERVE) * context.seconds)


def learn(
    context: Context,
    model: nn.Module,
    plan: ModelPlan,
    *,
    loss: LossSum,
    teacher: nn.Module | None,
    steps: int,
    rate: float,
    began: float,
) -> tuple[nn.Module, str]:
    """Train a model by the run's plan, for so many steps or as many as there is time for.

    Args:
        context: of the move.
        model: it is trained in place.
        plan: of it.
        loss: that it learns by.
        teacher: whose answers the loss asks for, if it does: they take time.
        steps: at most.
        rate: share of the run's highest rate, which then falls to nothing.
        began: ``time.perf_counter`` when the move began.

    Returns:
        The model in ``eval`` mode on the CPU, and what was done, in words.

    Raises:
        BudgetError: there is no time for a step.
    """
    left_s = (1 - RESERVE) * context.seconds - (time.perf_counter() - began)
    if left_s <= 0:
        raise BudgetError(
            f"of {format_seconds(context.seconds)} for the move nothing is left to train", mend="Give it more seconds."
        )
    draft = _training(context.run, plan, steps, rate, seed=context.seed)
    probed = probe_steps(draft, context.store, context.scratch, seconds=min(PROBE_SECONDS, left_s / 4))
    step_s = statistics.median(probed.step_s)
    if teacher is not None:
        step_s += answer_seconds(teacher, context.calibration) * draft.batch.size
    left_s = (1 - RESERVE) * context.seconds - (time.perf_counter() - began)
    affordable = int(left_s / step_s)
    if affordable < 1:
        raise BudgetError(
            f"a step takes {format_seconds(step_s)}, and {format_seconds(max(0.0, left_s))} are left to train",
            mend="Give the move more seconds.",
        )
    taken = min(steps, affordable)
    full = _training(context.run, plan, taken, rate, seed=context.seed, seconds=left_s)
    threads, folder = torch.get_num_threads(), context.scratch / "training"
    started = time.perf_counter()
    try:
        trained = train(
            full,
            model.requires_grad_(True),
            context.store,
            folder,
            emit=context.emit,
            spent=lambda: Spent(wall_s=time.perf_counter() - started),
            loss=loss,
        )
    finally:
        torch.set_num_threads(threads)
        shutil.rmtree(folder, ignore_errors=True)
        give_back()
    says = (
        f"{trained.steps:,} steps of {draft.batch.size} rows in {format_seconds(time.perf_counter() - started)} "
        f"(predicted {format_seconds(taken * step_s)})"
    )
    return to_device(model, "cpu", "contiguous").eval().requires_grad_(False), says


def _training(run: Plan, plan: ModelPlan, steps: int, rate: float, *, seed: int, seconds: float = math.inf) -> Plan:
    """The run's plan for these steps of another model, on this machine's processor alone."""
    optim = run.optim.model_copy(
        update={
            "learning_rate": rate * run.optim.learning_rate,
            "schedule": "cosine",
            "warmup_steps": min(run.optim.warmup_steps, steps // 10),
            "total_steps": steps,
            "shares": {},
        }
    )
    stop = run.stop.model_copy(
        update={
            "steps": steps,
            "target": math.inf if run.stop.higher_is_better else -math.inf,
            "patience": 0,
            "seconds": seconds,
            "joules": math.inf,
            "usd": math.inf,
        }
    )
    bf16 = run.precision.startswith("bf16") and run.device == "cpu"
    return run.model_copy(
        update={
            "model": plan.model_copy(update={"weights": ""}),
            "init": "default",
            "optim": optim,
            "stop": stop,
            "device": "cpu",
            "threads": run.threads if run.device == "cpu" else torch.get_num_threads(),
            "devices": 1,
            "zero": 0,
            "precision": "bf16" if bf16 else "fp32",
            "checkpointing": "none",
            "compile": "none",
            "rows": "all",
            "gradient_release": False,
            "offload": False,
            "progressive": 1.0,
            "adapt": AdaptPlan(),
            "evaluate_every": steps,
            "checkpoint_seconds": math.inf,
            "checkpoints_kept": 1,
            "loading": "between",
            "saving": "between",
            "memory": math.inf,
            "seed": seed,
        }
    )
