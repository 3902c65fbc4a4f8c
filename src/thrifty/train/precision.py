"""Numbers of 16 bits that are too small for fp16: the loss is scaled up, and gradients down again."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

# of torch.amp.GradScaler: where it starts, how it changes, and after how many steps it is tried higher
START, FACTOR, PATIENCE = 2.0**16, 2.0, 2000
LEAST, MOST = 1.0, 2.0**24


@dataclass
class LossScale:
    """By what the loss of a step is scaled: a power of two, halved where gradients overflow (Micikevicius et al. 2018).

    It does what `torch.amp.GradScaler` does, from the norm of the gradients that the loop knows anyway: it takes no
    pass over them of its own.

    Attributes:
        scale: of the next step; 1 where nothing is scaled.
        sound: steps since it last changed.
        scaling: whether it may change.

    >>> scale = LossScale.of("fp16")
    >>> scale.overflows(2.5, math.inf), scale.scale
    (True, 32768.0)
    """

    scale: float = 1.0
    sound: int = 0
    scaling: bool = False

    @classmethod
    def of(cls, precision: str, state: dict[str, Any] | None = None) -> LossScale:
        """Where a precision begins, or where a checkpoint left off."""
        if precision != "fp16":
            return cls()
        return cls(**state) if state else cls(START, scaling=True)

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to hold: plain numbers; nothing where nothing is scaled."""
        return asdict(self) if self.scaling else {}

    def overflows(self, loss: float, norm: float) -> bool:
        """Say whether a step is to be left out because its scale was too high; the scale is changed where it must.

        A loss that is no number itself has another cause, and so have gradients at the least scale.

        Args:
            loss: of the step.
            norm: of its gradients.
        """
        if not self.scaling:
            return False
        if math.isfinite(norm):
            self.sound += 1
            if self.sound >= PATIENCE and self.scale < MOST:
                self.scale, self.sound = self.scale * FACTOR, 0
            return False
        if not math.isfinite(loss) or self.scale <= LEAST:
            return False
        self.scale, self.sound = self.scale / FACTOR, 0
        return True


def gradient_norm(gradients: list[Tensor]) -> Tensor:
    """Return the norm of all gradients together, summed in float32 at least."""
    if any(each.dtype == torch.bfloat16 for each in gradients):
        norms = torch._foreach_norm(gradients, 2, torch.float32)
    else:
        norms = torch._foreach_norm(gradients, 2)
    return torch.linalg.vector_norm(torch.stack(norms))


def read(*scalars: Tensor) -> list[float]:
    """Return the values of tensors of one element, all at once: a GPU is waited for each time."""
    if scalars[0].is_cuda:
        return torch.stack([each.double() for each in scalars]).tolist()
    return [each.item() for each in scalars]
