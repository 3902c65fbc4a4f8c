"""MLP: a plain network of linear layers and ReLUs over flattened images."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Float images [B, C, H, W] to logits [B, classes].

    Args:
        inputs: C x H x W.
        widths: of the hidden layers.
        classes: of the answer.
    """

    def __init__(self, *, inputs: int, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        sizes = [inputs, *widths]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, widths, strict=False))
        self.fc = nn.Linear(sizes[-1], classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = x_BCHW.flatten(1)
        for layer in self.hidden:
            x = F.relu(layer(x))
        logits: Tensor = self.fc(x)
        return logits
