"""Memory on demand: a step or validation that memory has no room for is taken again with fewer samples at once.

The effective batch stays, and with it what is learned, but for rounding; batch norm is told of. Room runs out in two
ways: the plan's budget, or what the control group of the process allows, would be passed, which `Watch` foresees; or an
allocation failed, as a GPU's does. Either way the step had changed no weight. What it had changed, gradients, running
statistics and random generators, is put back, freed memory is given back to the system, the micro-batch is halved, and
the same step is taken with the same data.

Where there is a limit, the first step is rehearsed with one sample, then two, four and so on, less than one micro-batch
in all: what these need tells what more of them will, before any memory is taken. Nothing of a rehearsal is kept.

Where weights are stepped in the backward pass (`thrifty.optim.release`), a step can neither be cut nor be taken again:
what would pass the limit is broken off, and ends the run, which goes on from its last checkpoint.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

import torch
from torch import Tensor, nn

from thrifty import optim
from thrifty.data import Ahead, Batch
from thrifty.errors import BudgetError
from thrifty.hardware.cgroup import memory_left
from thrifty.hardware.pages import give_back, trim
from thrifty.spec import Plan
from thrifty.spec.events import Emit, Narrowed, Warned
from thrifty.spec.units import format_bytes
from thrifty.train.checkpoint import State
from thrifty.train.generators import generators_state, load_generators
from thrifty.train.guard import Guard
from thrifty.train.watch import NoRoom, Watch, can_watch

# a control group is watched where this share of what it leaves is predicted to be taken, and asked this often
GROUP_SHARE, GROUP_SECONDS = 0.5, 1.0
# from where on what is foreseen is so far from the limit that nothing more has to be rehearsed
FAR = 0.5
# characters of an error that are told
SAID = 200
# numbers that optimizers keep for each one they train; of others nothing is foreseen
_STATES = {"adam": 2, "adamw": 2, "nadam": 2, "lamb": 2, "momentum": 1, "nesterov": 1, "lion": 1, "rmsprop": 1}


def no_memory(error: BaseException | None) -> bool:
    """Whether an error says that there was no memory: the watch's, torch's on either device, or Python's own."""
    if isinstance(error, NoRoom | MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


class Attempt:
    """A context in which a step is taken; it ends quietly where there was no memory for it, and ``why`` says so.

    Where it is the ``only`` one, what there was no memory for is an error.
    """

    def __init__(self, *, only: bool = False) -> None:
        self.why, self.only = "", only

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self.only or not no_memory(error):
            return False
        self.why = " ".join(str(error).split())[:SAID]
        return True


class Room:
    """Holds training to its memory; a context, in which the model is watched where there is a limit.

    Args:
        plan: for its limit, and how much is computed at once.
        model: on its device.
        emit: is told of each narrowing.
    """

    def __init__(self, plan: Plan, model: nn.Module, emit: Emit) -> None:
        self.plan, self.model, self.emit = plan, model, emit
        self.micro, self.evaluation = plan.batch.micro, plan.batch.evaluation
        self._watch: Watch | None = None
        self._asked_at, self._left = -math.inf, math.inf
        self._rehearsed: set[str] = set()
        self._settled = False
        self._stepping = False
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._wait: Callable[[], None] = lambda: None

    def __enter__(self) -> Room:
        plan = self.plan
        if plan.device == "cuda":
            if math.isfinite(plan.memory):
                _allow(plan.memory)
        elif plan.devices == 1 and can_watch() and (math.isfinite(plan.memory) or self._group_is_near()):
            parameters = [each for each in self.model.parameters() if each.requires_grad]
            trim()
            self._watch = Watch(self._limit, sum(each.nbytes for each in parameters))
            self._watch.on(self.model, parameters)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        if self._watch is not None:
            self._watch.off()
            trim()
        elif self.plan.device == "cuda" and math.isfinite(self.plan.memory):
            torch.cuda.set_per_process_memory_fraction(1.0)

    @property
    def watches(self) -> bool:
        """Whether resident memory is asked for as the model computes: what else takes memory meanwhile disturbs it."""
        return self._watch is not None

    @property
    def says(self) -> str:
        """What was narrowed, to be told with why training ended; empty where nothing was."""
        planned = self.plan.batch.micro
        return f"; for memory {self.micro:,} samples at once, not {planned:,}" if self.micro < planned else ""

    def take_up(self, state: State, batches: Ahead, optimizer: torch.optim.Optimizer, wait: Callable[[], None]) -> int:
        """Go on as narrow as a checkpoint of the same plan had become.

        Returns how many samples all ranks together computed at once in its last steps.

        Args:
            state, batches, optimizer: of the run.
            wait: returns when nothing is being written from copies any more.
        """
        self._wait = wait
        before, planned = state.micro or self.micro, self.plan.batch.micro
        together = before * (state.devices if state.micro else self.plan.devices)
        if state.planned == planned and not self.plan.gradient_release:
            self.micro = min(before, planned)
            self.evaluation = min(state.evaluation or self.evaluation, self.evaluation)
        self._note(state, batches)
        self._hooks = [
            optimizer.register_step_pre_hook(lambda *_: self._steps(True)),
            optimizer.register_step_post_hook(lambda *_: self._steps(False)),
        ]
        if self._watch is not None:
            bare = [each for each in optim.parameters_of(optimizer) if not optimizer.state.get(each)]
            self._watch.reserve = self._states * sum(each.nbytes for each in bare)
            if self.plan.gradient_release:
                made = functools.partial(self._made, optimizer)
                self._hooks += [each.register_post_accumulate_grad_hook(made) for each in bare]
        return together

    @property
    def _states(self) -> int:
        """Numbers that the optimizer keeps for each one it trains, as far as is known."""
        return _STATES.get(self.plan.optim.optimizer, 0)

    def _made(self, optimizer: torch.optim.Optimizer, parameter: Tensor) -> None:
        """In the first backward pass with the optimizer's step in it, states come one after the other."""
        if self._watch is not None and not self._settled and optimizer.state.get(parameter):
            self._watch.reserve = max(0.0, self._watch.reserve - self._states * parameter.nbytes)

    def holds(self, size: int) -> bool:
        """Whether a copy of so many bytes can lie beside the steps of training."""
        watch = self._watch
        return watch is None or watch.base + watch.needed + watch.reserve + size + watch.slack <= watch.limit

    def attempts(
        self,
        state: State,
        batches: Ahead,
        optimizer: torch.optim.Optimizer,
        guard: Guard,
        rehearse: Callable[[list[Batch]], object],
    ) -> Iterator[Attempt]:
        """Yield contexts to take the step after ``state`` in, until it was taken in one of them.

        Args:
            state: where training stands; notes how much is computed at once.
            batches: of the step; cut anew where it is narrowed.
            optimizer, guard: of the run; the guard has begun the step.
            rehearse: computes gradients of some micro-batches, and changes no weight.

        Raises:
            BudgetError: there is no room for the fewest samples at once, or for the optimizer's own work.
        """
        watch = self._watch
        # asking takes fifty microseconds: only where room may run out within a step
        near = watch is not None and (watch.near or not self._settled)
        generators = generators_state() if near or self.plan.device == "cuda" else {}

        def clean(broken: bool) -> None:
            optimizer.zero_grad(set_to_none=True)
            guard.again()
            if generators:
                load_generators(generators)
            self._give_back(broken)

        def at(size: int) -> None:
            batches.micro = size
            try:
                parts = sorted(batches.step(state.step), key=lambda part: -part["x"].size)
            finally:
                batches.micro = self.micro
            # where a step has several, gradients of others lie beside what the second needs
            rehearse(parts[: 2 if self._cut else 1])

        while True:
            if watch is not None and "training" not in self._rehearsed:
                self._rehearse("training", at, self.micro, self._fewest, clean)
            # ranks that take each step together would have to take it again together
            attempt = Attempt(only=self.plan.devices > 1)
            yield attempt
            if not attempt.why:
                break
            if self._stepping:
                raise BudgetError(
                    f"there is no memory for the optimizer in step {state.step + 1:,}: {attempt.why}",
                    mend="Allow more memory, or choose an optimizer with less state: train.optimizer.",
                )
            clean(broken=True)
            before, cut = self.micro, self._cut
            fewest = before if self.plan.gradient_release else self._fewest
            self.micro = self._narrower("training", before, fewest, state.step + 1, attempt.why)
            self._note(state, batches)
            for each in statistics_change(self.model, before, self.micro, state.step):
                self.emit(each)
            if not cut:
                self._rehearsed.discard("training")
        if watch is not None and not self._settled:
            # the optimizer has made its states, which stay
            self._settled, watch.reserve = True, 0.0
            self._give_back()

    def sweeps(self, measure: Callable[[int, bool], object], state: State | None = None) -> Iterator[Attempt]:
        """Yield contexts to validate in, until that was done in one of them.

        Args:
            measure: of so many samples at once, the first batch alone where the second says so.
            state: where training stands; None outside of training.

        Raises:
            BudgetError: there is no room for a sample.
        """
        if self._watch is not None and "validation" not in self._rehearsed:
            self._rehearse("validation", lambda size: measure(size, True), self.evaluation, 1, self._give_back)
        step = 0 if state is None else state.step
        while True:
            # ranks that take each step together would have to take it again together
            attempt = Attempt(only=self.plan.devices > 1)
            yield attempt
            if not attempt.why:
                break
            self._give_back(broken=True)
            self.evaluation = self._narrower("validation", self.evaluation, 1, step, attempt.why)
            if state is not None:
                state.evaluation = self.evaluation
        if self._watch is not None:
            self._watch.ended()

    def _rehearse(
        self, stage: str, run: Callable[[int], object], micro: int, fewest: int, clean: Callable[[bool], None]
    ) -> None:
        """Learn what ever more samples need, until the rest can be foreseen to be far from the limit, or too much."""
        watch, training = self._watch, stage == "training"
        assert watch is not None
        self._rehearsed.add(stage)

        def passes(size: int) -> bool:
            with Attempt() as attempt:
                run(size)
                watch.ended()
            if attempt.why:
                watch.refused()
            clean(bool(attempt.why))
            return not attempt.why

        with watch.closely():
            least = size = min(fewest, micro)
            passes(size)
            watch.warmed(training=training)
            while passes(size):
                most = math.ceil(watch.size * micro / size)
                if 2 * size >= micro or not watch.fits(2 * watch.size, training=training):
                    break
                if size > least and watch.fits(most, training=training, share=FAR):
                    break
                size *= 2
        watch.relax()

    def _narrower(self, stage: str, before: int, fewest: int, step: int, why: str) -> int:
        """Halve until it is foreseen to fit, and tell."""
        if before <= fewest:
            limit = f"{format_bytes(self._watch.limit)} of memory" if self._watch is not None else "the memory there is"
            raise BudgetError(
                f"{stage} at step {step:,} does not fit {limit}, with {before:,} samples at once: {why}",
                mend="Allow more by budget.memory, compute more again by plan.checkpointing: full, or choose a smaller "
                + (
                    "train.batch: gradients that are released cannot be of a part of it."
                    if self.plan.gradient_release and stage == "training"
                    else "model."
                ),
            )
        micro, watch = max(fewest, math.ceil(before / 2)), self._watch
        while watch is not None and micro > fewest:
            if watch.fits(math.ceil(watch.size * micro / before), training=stage == "training"):
                break
            micro = max(fewest, math.ceil(micro / 2))
        if watch is not None and stage == "training":
            watch.narrowed(math.ceil(watch.size * micro / before))
        self.emit(Narrowed(step, stage, before, micro, why))
        return micro

    @property
    def _cut(self) -> bool:
        """Whether a step is cut into several micro-batches."""
        return self.micro < self.plan.batch.size

    @property
    def _fewest(self) -> int:
        """Samples that must be computed at once: batch norm over features takes no statistics of a lone one."""
        alone = any(isinstance(each, nn.BatchNorm1d) and each.training for each in self.model.modules())
        # of pairs an odd step would leave one
        return min(3 if alone else 1, self.plan.batch.size)

    def _note(self, state: State, batches: Ahead) -> None:
        batches.micro = state.micro = self.micro
        state.planned, state.evaluation = self.plan.batch.micro, self.evaluation
        state.devices = self.plan.devices

    def _steps(self, begun: bool) -> None:
        """The optimizer begins its work, or has done it."""
        self._stepping = begun
        if begun and self._watch is not None:
            self._watch.ended()

    def _give_back(self, broken: bool = False) -> None:
        """Give freed memory back to the system; what was broken off may have left cycles."""
        self._wait()
        (give_back if broken else trim)()
        if self._watch is not None:
            self._watch.settle()
        elif self.plan.device == "cuda":
            torch.cuda.empty_cache()

    def _group_is_near(self) -> bool:
        left = memory_left()
        return left is not None and self.plan.cost.peak_bytes.high >= GROUP_SHARE * left

    def _limit(self, resident: float) -> float:
        """Bytes that may be resident: what is asked for, or what the control group leaves where that is less."""
        now = time.monotonic()
        if now - self._asked_at > GROUP_SECONDS:
            left = memory_left()
            self._asked_at, self._left = now, math.inf if left is None else resident + left
        return min(self.plan.memory, self._left)


def statistics_change(model: nn.Module, before: int, micro: int, step: int) -> Iterable[Warned]:
    """Warn where batch norm takes its statistics over another number of samples from now on."""
    if before != micro and any(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in model.modules()):
        yield Warned(
            f"batch norm takes its statistics over {micro:,} samples from here on, over {before:,} until step "
            f"{step:,}: what is learned is not quite the same"
        )


def _allow(memory: float) -> None:
    """Have the allocator of the GPU refuse what is beyond the limit."""
    torch.cuda.set_per_process_memory_fraction(min(1.0, memory / torch.cuda.get_device_properties(0).total_memory))
