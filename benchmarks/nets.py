"""Networks of the benchmarks that have no name in thrifty's table, as a user would write them with its parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thrifty.models.gpt import GPT
from thrifty.models.init import initialise
from thrifty.models.resnet import ResNet


def _started(model: nn.Module) -> nn.Module:
    """Give a model its family's own initial weights, by the seed that the job's models are drawn with."""
    initialise(model, "default", torch.initial_seed() % 2**31)
    return model


def gpt_4x128(vocabulary: int, length: int) -> nn.Module:
    """nanoGPT's model for a CPU: 4 layers, 128 wide, 4 heads."""
    return _started(GPT(vocabulary=vocabulary, length=length, layers=4, width=128, heads=4))


def resnet18_32(channels: int, classes: int) -> nn.Module:
    """ResNet-18 for images of 32 pixels: a 3x3 stem, no pooling before the blocks, projected shortcuts."""
    return _started(
        ResNet(
            stem="cifar",
            block="basic",
            shortcut="project",
            blocks=(2, 2, 2, 2),
            widths=(64, 128, 256, 512),
            channels=channels,
            classes=classes,
        )
    )


class Empty(nn.Module):
    """As little as a classifier can do: one weight a class, times the first pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW.flatten(1)[:, : len(self.weight)] * self.weight


def empty(classes: int) -> nn.Module:
    """The model of `benchmarks.overhead`."""
    return Empty(classes)
