"""What a move is, what it is given, and the candidate that it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thrifty.data import Batch, Store
from thrifty.spec import Dataset, Device, ModelPlan, Objective, Plan
from thrifty.spec.events import Emit


@dataclass(frozen=True)
class Form:
    """A model as an engine has it: called like the torch model, the same tensors in, the same logits out.

    Attributes:
        engine, precision: as in ``BundleInfo``.
        files: folder that holds what the engine needs, and nothing else.
        made: the engine's own object, from which the files were written.
        loaded: what the engine read back.
    """

    engine: str
    precision: str
    files: Path
    made: Any
    loaded: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits of one batch."""
        return self.loaded(x)


@dataclass(frozen=True)
class Candidate:
    """A model on the way to be smaller or faster.

    Attributes:
        model: in ``eval`` mode, on the CPU, without gradients; not to be changed in place: a move copies it.
        plan: from which `thrifty.models.build` makes a model that takes the weights of this one.
        taken: moves that made it, in their order.
        form: what answers in place of ``model``, once it is in an engine's form; no move on models applies then.
        says: what each move tells of what it did, in the same order: shares kept, layers left out.
    """

    model: nn.Module
    plan: ModelPlan
    taken: tuple[str, ...] = ()
    form: Form | None = None
    says: tuple[str, ...] = ()

    @property
    def answers(self) -> Callable[[Tensor], Tensor]:
        """What answers: logits of a tensor of inputs."""
        return self.model if self.form is None else self.form

    @property
    def name(self) -> str:
        """The moves, for people; ``as trained`` without one."""
        return " + ".join(self.taken) or "as trained"


@dataclass(frozen=True)
class Context:
    """What a move may look at; held-out rows are not among it.

    Attributes:
        store: the prepared data of the run; a move reads its ``train`` split alone.
        run: the plan that the model was trained by.
        device: this machine.
        calibration: batches of the training split, as training has them, of ``batch`` rows.
        objective: what should become less, or of ``throughput`` and ``tokens`` more.
        batch: rows of a request.
        seconds: that the move may take.
        seed: of whatever it draws.
        scratch: an empty folder of its own, that lives as long as the search.
        emit: is told what happens.
        kept: what moves made of a model and will need of it again, by ``id`` of the model and a name; all contexts of
            a search share it.
    """

    store: Store
    run: Plan
    device: Device
    calibration: tuple[Batch, ...]
    objective: Objective
    batch: int
    seconds: float
    seed: int
    scratch: Path
    emit: Emit = field(default=lambda event: None)
    kept: dict[tuple[int, str], Any] = field(default_factory=dict)

    @property
    def data(self) -> Dataset:
        """Of the prepared data."""
        return self.store.dataset

    def generator(self) -> torch.Generator:
        """Return a generator of random numbers, the same each time."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class Move:
    """One way of making a model smaller or faster.

    Attributes:
        name: a word or two with underscores; unique.
        says: what it does, in one line.
        applies: why it cannot be taken here, in a few words, or None where it can; takes no longer than a look.
        price: predicted seconds of `apply` on this machine.
        hope: by how much the objective can be divided at the very most; a trial that could not pay back even then is
            not run.
        apply: makes a candidate; its ``taken`` and ``says`` have one entry more. May raise any `ThriftyError`: the
            search notes it and goes on.
        last: it leaves an engine's form, after which no move on models applies.
        milder: of a candidate that was made and is over what is allowed, one that changes less; None for no other.
    """

    name: str
    says: str
    applies: Callable[[Context, Candidate], str | None]
    price: Callable[[Context, Candidate], float]
    hope: Callable[[Context, Candidate], float]
    apply: Callable[[Context, Candidate], Candidate]
    last: bool = False
    milder: Callable[[Context, Candidate, Candidate], Candidate | None] | None = None
