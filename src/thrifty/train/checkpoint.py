"""Checkpoints: the whole state of training in one file; a kill at any instant leaves the last one whole.

The best weights so far lie beside it in ``best-<step>.safetensors``. The step in the name is what makes a resume
exact: a checkpoint names the best file that was best when it was taken, and that file is kept until a later
checkpoint, safely on disk, no longer names it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from thrifty.errors import BundleError
from thrifty.files import write_atomic
from thrifty.models.adapters import changing, restore

LAST = "last.pt"


@dataclass
class State:
    """Where training stands, apart from weights and optimizer.

    Attributes:
        step: optimizer steps taken.
        evaluated_step: step of the last validation.
        best_step: step of the best validation; 0 before the first.
        best: its metrics.
        since_best: validations since then without improvement.
        schedule: state of the schedule.
    """

    step: int = 0
    evaluated_step: int = -1
    best_step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    since_best: int = 0
    schedule: dict[str, Any] = field(default_factory=dict)


class Checkpoints:
    """The checkpoint folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: State, model: nn.Module, optimizer: torch.optim.Optimizer, plan_key: str) -> int:
        """Write a checkpoint and return its bytes.

        Raises:
            StorageError: it could not be written; the one before it is whole.
        """
        content = {
            "plan": plan_key,
            "state": asdict(state),
            "model": changing(model),
            "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        }
        path = self.folder / LAST
        write_atomic(path, lambda file: torch.save(content, file), purpose="a checkpoint")
        for old in self.folder.glob("best-*.safetensors"):
            if old != self._best_path(state.best_step):
                old.unlink(missing_ok=True)
        return path.stat().st_size

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer, plan_key: str) -> State | None:
        """Put the last checkpoint into model, optimizer and random generators; None when there is none.

        Raises:
            BundleError: the file is damaged, or was made by another plan.
        """
        path = self.folder / LAST
        if not path.is_file():
            return None
        mend = f"Remove '{self.folder}' to train from the start."
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise BundleError(f"checkpoint '{path}' is damaged ({type(error).__name__})", mend=mend) from error
        if content["plan"] != plan_key:
            raise BundleError(f"checkpoint '{path}' was made by another plan ({content['plan']})", mend=mend)
        restore(model, content["model"])
        optimizer.load_state_dict(content["optimizer"])
        torch.set_rng_state(content["rng"])
        if content["rng_cuda"]:
            torch.cuda.set_rng_state_all(content["rng_cuda"])
        return State(**content["state"])

    def save_best(self, state: State, model: nn.Module) -> None:
        """Write the weights that did best; the file carries the step."""
        weights = {name: value.detach().cpu().contiguous() for name, value in _own_weights(model).items()}
        write_atomic(self._best_path(state.best_step), save(weights), purpose="the best weights")

    def load_best(self, state: State, model: nn.Module) -> None:
        """Put the best weights into the model."""
        restore(model, load_file(self._best_path(state.best_step)))

    def _best_path(self, step: int) -> Path:
        return self.folder / f"best-{step}.safetensors"


def _own_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes of a model, each shared tensor named once, as safetensors wants it."""
    seen: dict[tuple[int, torch.Size], str] = {}
    own = {}
    for name, value in changing(model).items():
        if seen.setdefault((value.data_ptr(), value.shape), name) == name or value.numel() == 0:
            own[name] = value
    return own
