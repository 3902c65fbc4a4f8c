"""Fit a plan into its budget: price its steps and validations, cut what does not fit, and say so."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

from thrifty.cost import Trace, predict
from thrifty.data.images.growth import growth_of
from thrifty.errors import BudgetError
from thrifty.hardware.pages import keeping
from thrifty.planner.correction import corrected
from thrifty.planner.dry import Held
from thrifty.planner.growing import evaluation_work
from thrifty.planner.lengths import evaluation_ratio
from thrifty.planner.loading import ahead_bytes
from thrifty.planner.rules import Reasons
from thrifty.planner.validations import aims_of, interval, reason, validations
from thrifty.spec import Cost, Dataset, Device, Interval, Job, Plan, Probed, Spent
from thrifty.spec.units import format_joules, format_seconds, format_usd

# kept for the bundle, the report and the ledger, after training and the test split
FINISH_SECONDS = 3.0
# share of what is left that the predicted training may fill: the machine is never as quiet as in the probe
FILL = 0.9

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
    waits: Interval | None

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
            evaluation_work=evaluation_work(growth_of(self.draft, self.dataset)),
            device=self.device,
            precision=self.draft.precision,
            probe_step_seconds=probed.step_s,
            save_seconds=probed.save_s,
            evaluation_batch_ratio=ratio,
            loader_bytes=ahead_bytes(self.draft, self.traces[1]),
            heap=self.held.heap,
            runtime=self.held.runtime,
            copied=self.draft.saving == "beside",
            keeping=keeping(self.device.kind, self.draft.checkpointing),
            waits=self.waits,
        )

    @property
    def step_s(self) -> float:
        return self.price(1, 0).seconds.value

    @property
    def validation_s(self) -> float:
        return self.price(1, 1).seconds.value - self.step_s

    @property
    def finish_s(self) -> float:
        tested_s = self.validation_s * self.dataset.counts["test"] / self.dataset.counts["validation"]
        return FINISH_SECONDS + self.probed.save_s + tested_s

    @property
    def kept_s(self) -> float:
        """Seconds that must be left when training is told to end: its running step, a validation, the last save, and
        what follows training."""
        return self.step_s + self.validation_s + self.probed.save_s + self.finish_s


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
    waits: Interval | None = None,
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
    course = _Course(draft, dataset, device, traces, probed, correct, held, waits)
    step_s, validation_s, kept_s = course.step_s, course.validation_s, course.kept_s
    limit_s, budget = time_limit(job, device)
    room_s = (limit_s - spent.wall_s - kept_s) * FILL
    if room_s < step_s + validation_s:
        raise _too_small(budget, course, spent)

    wanted, aims = draft.stop.steps, aims_of(job, draft.optim, draft.stop)

    def takes(steps: int) -> float:
        return steps * step_s + validations(aims, steps, step_s, validation_s) * validation_s

    steps = bisect.bisect_right(range(1, wanted + 1), room_s, key=takes)
    every = interval(steps, validations(aims, steps, step_s, validation_s))
    said, source, doubt = reason(aims, steps, step_s, validation_s)
    why.say("evaluate_every", every, said, "probe" if probed.step_s and source == "rule" else source, doubt)
    if steps < wanted:
        held_by = f"what {budget} holds at {format_seconds(step_s)} a step; {wanted:,} were wanted"
        why.say("steps", steps, held_by, "probe" if probed.step_s else "rule")

    limits = {
        "seconds": (job.budget.time or math.inf) - kept_s,
        "joules": draft.stop.joules - kept_s * device.watts(1.0),
        "usd": draft.stop.usd - kept_s * device.usd_per_hour.value / 3600,
    }
    return draft.model_copy(
        update={
            "optim": draft.optim.model_copy(
                update={
                    "total_steps": steps,
                    "warmup_steps": round(draft.optim.warmup_steps * steps / wanted),
                    "cooldown_steps": round(draft.optim.cooldown_steps * steps / wanted),
                }
            ),
            "stop": draft.stop.model_copy(update={"steps": steps, **limits}),
            "evaluate_every": every,
            "cost": course.price(steps, math.ceil(steps / every)),
        }
    )


def time_limit(job: Job, device: Device) -> tuple[float, str]:
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


def check_left(job: Job, device: Device, spent: Spent) -> None:
    """Check that preparing and planning have not taken what finishing needs, before more goes into planning.

    Raises:
        BudgetError: they have.
    """
    limit_s, budget = time_limit(job, device)
    if limit_s - spent.wall_s > FINISH_SECONDS:
        return
    raise BudgetError(
        f"{budget} is too small to run anything: {format_seconds(spent.wall_s)} went into preparing and planning, "
        f"and finishing takes {format_seconds(FINISH_SECONDS)}",
        mend=f"It would take at least {format_seconds(spent.wall_s + FINISH_SECONDS)} of this machine, "
        "and what training takes.",
    )


def _too_small(budget: str, course: _Course, spent: Spent) -> BudgetError:
    least = spent.wall_s + course.kept_s + (course.step_s + course.validation_s) / FILL
    return BudgetError(
        f"{budget} is too small to run anything: {format_seconds(spent.wall_s)} went into preparing and planning, a "
        f"step takes {format_seconds(course.step_s)}, validating {format_seconds(course.validation_s)}, finishing "
        f"{format_seconds(course.finish_s)}",
        mend=f"It would take at least {format_seconds(least)} of this machine.",
    )
