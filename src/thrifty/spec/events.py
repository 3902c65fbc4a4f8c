"""Events: what the rooms say while they work. Whoever wants to show or keep them passes an ``emit`` function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from thrifty.spec.cost import Spent
from thrifty.spec.device import Device
from thrifty.spec.plan import Plan
from thrifty.spec.tuning import Trial


@dataclass(frozen=True)
class StageStarted:
    """A stage of the run begins: ``hardware``, ``prepare``, ``plan``, ``build``, ``initialise``, ``train``, …"""

    stage: str


@dataclass(frozen=True)
class StageDone:
    """A stage ended; ``says`` is its result in one line. ``trouble``: the result is not the one that was wanted."""

    stage: str
    says: str
    spent: Spent
    trouble: bool = False


@dataclass(frozen=True)
class Planned:
    """The plan stands, for this device; nothing of it has run yet."""

    plan: Plan
    device: Device


@dataclass(frozen=True)
class Progress:
    """Work inside a stage went on: ``done`` of ``total`` in the given unit."""

    stage: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class Initialised:
    """How large activations and gradients are before the first step, of a few ``samples``.

    Root mean squares of what each layer gives, and of the gradient of the mean loss by that; ``layers`` are in the
    order of computation.
    """

    samples: int
    layers: tuple[str, ...]
    activations: tuple[float, ...]
    gradients: tuple[float, ...]


@dataclass(frozen=True)
class StepDone:
    """An optimizer step was taken; ``loss`` is the mean over its samples or tokens, ``seconds`` its wall time."""

    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    samples_per_second: float
    seconds: float


@dataclass(frozen=True)
class Evaluated:
    """Validation was done after ``step``; ``best`` says that it is the best so far."""

    step: int
    epoch: float
    metrics: dict[str, float]
    best: bool
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Checkpointed:
    """A checkpoint is safely on disk; the run can be killed without losing a step before this one.

    ``seconds`` passed until then, in ``held_seconds`` of which training stood still.
    """

    step: int
    bytes: int
    seconds: float
    held_seconds: float = 0.0


@dataclass(frozen=True)
class CheckpointFailed:
    """A checkpoint could not be written, for the disk is full; those before it are whole, and the work goes on."""

    step: int
    reason: str


@dataclass(frozen=True)
class CheckpointDamaged:
    """The checkpoint of step ``checkpoint`` is not what was written; it is kept at ``path``, the one before is used."""

    checkpoint: int
    path: str
    reason: str


@dataclass(frozen=True)
class CheckpointsRemoved:
    """Older checkpoints were removed from a full disk, so that the last one finds room: ``files``, with commas."""

    step: int
    files: str


@dataclass(frozen=True)
class Skipped:
    """A step taught nothing: its loss or gradient was no number, or its loss above ``bound``; it took ``seconds``."""

    step: int
    loss: float
    gradient_norm: float
    bound: float
    seconds: float


@dataclass(frozen=True)
class RateLowered:
    """After several skipped steps the learning rate is ``factor`` of the schedule's until step ``until``.

    The loss and the gradient's norm are the last one's; ``seconds`` are those of the skipped steps of late.
    """

    step: int
    until: int
    factor: float
    loss: float
    gradient_norm: float
    seconds: float


@dataclass(frozen=True)
class RolledBack:
    """Weights and optimizer are those of step ``to`` again; data and schedule go on, at ``factor`` of the rate.

    The loss and the gradient's norm are the last one's; ``seconds`` of work are lost, skipped steps not counted again.
    """

    step: int
    to: int
    factor: float
    loss: float
    gradient_norm: float
    seconds: float


@dataclass(frozen=True)
class Narrowed:
    """For memory fewer samples are computed at once from here on, ``to`` after ``before``, in the same effective batch.

    ``stage`` is ``training`` or ``validation``, ``step`` the one that is taken, or validated, again.
    """

    step: int
    stage: str
    before: int
    to: int
    reason: str


@dataclass(frozen=True)
class Resumed:
    """Training goes on from a checkpoint."""

    step: int


@dataclass(frozen=True)
class Paused:
    """Training waits after ``step``, as it was asked to; what was learned is saved."""

    step: int


@dataclass(frozen=True)
class WentOn:
    """Training goes on after it waited for ``seconds``, which are on no bill."""

    step: int
    seconds: float


@dataclass(frozen=True)
class Lowered:
    """From ``step`` on the run may spend less than was planned: ``budget`` says what, for people."""

    step: int
    budget: str


@dataclass(frozen=True)
class Compiled:
    """In ``step``, kernels were made for ``parts`` of the model; its `StepDone` is without their ``seconds``."""

    step: int
    parts: int
    seconds: float


@dataclass(frozen=True)
class Stopped:
    """Training ended; ``reason`` is a sentence."""

    step: int
    reason: str


@dataclass(frozen=True)
class Tried:
    """A trial of a search began, stopped for now or ended; ``metric`` is what it is judged by.

    ``best``: no trial before it was as good.
    """

    trial: Trial
    metric: str
    best: bool = False


@dataclass(frozen=True)
class Warned:
    """Something a user should know; the work goes on."""

    message: str
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """The run ended, ``done``, ``stopped`` or ``failed``: figures of the test split, and the bill of all attempts."""

    status: str
    reason: str
    metrics: dict[str, float]
    spent: Spent


Event = (
    StageStarted
    | StageDone
    | Planned
    | Progress
    | Initialised
    | StepDone
    | Evaluated
    | Checkpointed
    | CheckpointFailed
    | CheckpointDamaged
    | CheckpointsRemoved
    | Skipped
    | RateLowered
    | RolledBack
    | Narrowed
    | Resumed
    | Paused
    | WentOn
    | Lowered
    | Compiled
    | Stopped
    | Tried
    | Warned
    | Ended
)
Emit = Callable[[Event], None]
