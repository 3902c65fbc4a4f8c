"""Fit a plan into its budget: price its steps and validations, cut what does not fit, and say so."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from thrifty.cost import Trace, predict
from thrifty.errors import BudgetError
from thrifty.hardware.pages import keeping
from thrifty.planner.learning import EVALUATIONS, by_epochs
from thrifty.planner.lengths import evaluation_ratio
from thrifty.planner.local import Held, corrected
from thrifty.planner.rules import Reasons
from thrifty.spec import Cost, Dataset, Device, Interval, Job, Plan, Probed, Spent
from thrifty.spec.units import format_joules, format_seconds, format_usd

# kept for the bundle, the report and the ledger, after training and the test split
FINISH_SECONDS = 3.0
# share of what is left that the predicted training may fill: the machine is never as quiet as in the probe
FILL = 0.9
# of the time, for validations where there are no epochs
EVALUATION_SHARE = 0.1

Correct = Callable[[str, Interval], Interval]


@dataclass(frozen=True)
class _Course:
    """What a course of training is priced from; seconds of one step, one validation, and the test split."""

    draft: Plan
    dataset: Dataset
    device: Device
    traces: tuple[Trace, Trace]
    probed: Probed
    correct: Correct
    held: Held
    between: Interval | None

    def price(self, steps: int, validations: int) -> Cost:
        foreseen = self._predicted(steps, validations, Probed(step_s=(), save_s=0.0))
        if not self.probed.step_s:
            return corrected(foreseen, self.correct)
        # a probe is better than what earlier runs say of the step; of the memory it says nothing
        cost = self._predicted(steps, validations, self.probed)
        seconds = cost.seconds.model_copy(update={"first": foreseen.seconds.value})
        peak = self.correct("peak_bytes", cost.peak_bytes)
        return cost.model_copy(update={"seconds": seconds, "peak_bytes": peak})

    def _predicted(self, steps: int, validations: int, probed: Probed) -> Cost:
        batch = self.draft.batch
        ratio = evaluation_ratio(
            self.dataset, batch.evaluation, batch=batch.size, micro=batch.micro, batching=batch.batching
        )
        return predict(
            micro=self.traces[0],
            largest=self.traces[1],
            samples_per_micro=self.draft.batch.micro,
            accumulation=self.draft.batch.accumulation,
            steps=steps,
            evaluations=validations,
            evaluation_samples=math.ceil(self.dataset.counts["validation"] / self.draft.devices),
            device=self.device,
            precision=self.draft.precision,
            probe_step_seconds=probed.step_s,
            save_seconds=probed.save_s,
            evaluation_batch_ratio=ratio,
            heap=self.held.heap,
            runtime=self.held.runtime,
            copied=self.draft.saving == "beside",
            keeping=keeping(self.device.kind, self.draft.checkpointing),
            between=self.between,
        )

    @property
    def step_s(self) -> float:
        return self.price(1, 0).seconds.value

    @property
    def validation_s(self) -> float:
        return self.price(1, 1).seconds.value - self.step_s

    @property
    def finish_s(self) -> float:
        return FINISH_SECONDS + self.validation_s * self.dataset.counts["test"] / self.dataset.counts["validation"]


def fit(
    draft: Plan,
    job: Job,
    dataset: Dataset,
    device: Device,
    traces: tuple[Trace, Trace],
    probed: Probed,
    spent: Spent,
    why: Reasons,
    correct: Correct,
    held: Held,
    between: Interval | None = None,
) -> Plan:
    """Return the plan with its steps, validations and cost, such that the predicted time is within the budget.

    Args:
        draft: the plan as the rules would have it, without limits.
        job: for its budget.
        dataset, device: to price with.
        traces: of a micro-batch as it is in the mean, for time, and of the largest, for memory.
        probed: real steps that were timed, none when there was no probe.
        spent: what the run has spent already.
        why: gets a line for each field decided here.
        correct: a prediction, by earlier runs.
        held: what a dry run of the plan said of memory.
        between: seconds of a step in which ranks wait for each other's messages; None for one device.

    Raises:
        BudgetError: not even one step and one validation fit.
    """
    course = _Course(draft, dataset, device, traces, probed, correct, held, between)
    step_s, validation_s = course.step_s, course.validation_s
    limit_s, budget = _time_limit(job, device)
    room_s = (limit_s - spent.wall_s - course.finish_s) * FILL
    if room_s < step_s + validation_s:
        raise _too_small(budget, course, spent)

    wanted, per_epoch = draft.stop.steps, draft.optim.steps_per_epoch
    if by_epochs(job, dataset):
        steps = min(wanted, int(room_s / (step_s + validation_s / per_epoch))) if math.isfinite(room_s) else wanted
        every = min(per_epoch, steps)
        why.say("evaluate_every", every, "each epoch")
    else:
        training_s = min(room_s, wanted * step_s)
        affordable = int(EVALUATION_SHARE * training_s / validation_s)
        validations = job.train.evaluations or max(1, min(EVALUATIONS, affordable))
        steps = min(wanted, int((training_s - validations * validation_s) / step_s))
        steps = wanted if training_s < room_s else max(1, steps)
        every = math.ceil(steps / validations)
        why.say("evaluate_every", every, f"{validations} validations of {format_seconds(validation_s)} each")
    if steps < wanted:
        reason = f"what {budget} holds at {format_seconds(step_s)} a step; {wanted:,} were wanted"
        why.say("steps", steps, reason, "probe" if probed.step_s else "rule")

    seconds = (job.budget.time or math.inf) - course.finish_s
    return draft.model_copy(
        update={
            "optim": draft.optim.model_copy(
                update={
                    "total_steps": steps,
                    "warmup_steps": round(draft.optim.warmup_steps * steps / wanted),
                    "cooldown_steps": round(draft.optim.cooldown_steps * steps / wanted),
                }
            ),
            "stop": draft.stop.model_copy(update={"steps": steps, "seconds": seconds}),
            "evaluate_every": every,
            "cost": course.price(steps, math.ceil(steps / every)),
        }
    )


def _time_limit(job: Job, device: Device) -> tuple[float, str]:
    """The tightest of the budgets in seconds of this device working fully, and its name."""
    budget = job.budget
    limits = [(math.inf, "the budget")]
    if budget.time is not None:
        limits.append((budget.time, f"the budget of {format_seconds(budget.time)}"))
    if budget.energy is not None:
        limits.append((budget.energy / device.watts(1.0), f"the budget of {format_joules(budget.energy)}"))
    if budget.money is not None:
        limits.append(
            (budget.money / max(device.usd_per_hour.value, 1e-9) * 3600, f"the budget of {format_usd(budget.money)}")
        )
    return min(limits)


def _too_small(budget: str, course: _Course, spent: Spent) -> BudgetError:
    least = spent.wall_s + course.finish_s + (course.step_s + course.validation_s) / FILL
    return BudgetError(
        f"{budget} is too small to run anything: {format_seconds(spent.wall_s)} went into preparing, a step takes "
        f"{format_seconds(course.step_s)}, validating {format_seconds(course.validation_s)}, finishing "
        f"{format_seconds(course.finish_s)}",
        mend=f"It would take at least {format_seconds(least)} of this machine.",
    )
