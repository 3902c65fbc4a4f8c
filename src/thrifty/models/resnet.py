"""ResNet: residual convolutional networks for small (CIFAR) and large (ImageNet) images, of any size.

He et al. 2015, "Deep residual learning for image recognition". The parameters of the ImageNet kind are named and shaped
as torchvision's, whose weights fit; bottleneck blocks stride in their 3x3 convolution, as there ("ResNet v1.5").

Both kinds end in a global average, so any image size runs; the stem stays as published. An ImageNet stem divides the
side by four before the first block and the last stage by 32 in all: below 64 pixels little of the picture is left, and
a CIFAR kind, which divides by four in all, learns more for less.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Shortcut = Literal["pad", "project"]


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


class PadShortcut(nn.Module):
    """Option A of the paper: every second pixel, and zeros for the channels that are new; no parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (outputs - inputs) // 2
        self.channels = (before, outputs - inputs - before)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.pad(x_BCHW[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.channels))


def _shortcut(kind: Shortcut, inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if kind == "pad":
        return PadShortcut(inputs, outputs, stride)
    return nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(shortcut, inputs, width, stride)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)), inplace=True)
        y_BCHW = self.bn2(self.conv2(y_BCHW))
        return F.relu(y_BCHW + self.downsample(x_BCHW), inplace=True)


class BottleneckBlock(nn.Module):
    """A 1x1 convolution down, a 3x3, and a 1x1 up to four times the width, beside a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = _convolution(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _convolution(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(shortcut, inputs, outputs, stride)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)), inplace=True)
        y_BCHW = F.relu(self.bn2(self.conv2(y_BCHW)), inplace=True)
        y_BCHW = self.bn3(self.conv3(y_BCHW))
        return F.relu(y_BCHW + self.downsample(x_BCHW), inplace=True)


BLOCKS: dict[str, type[BasicBlock] | type[BottleneckBlock]] = {"basic": BasicBlock, "bottleneck": BottleneckBlock}


class ResNet(nn.Module):
    """Float images [B, C, H, W] to logits [B, classes].

    Args:
        stem: ``cifar``, a 3x3 convolution; or ``imagenet``, a 7x7 of stride two and max pooling.
        block: a name of `BLOCKS`.
        shortcut: where the shape changes: ``pad`` (option A) or ``project`` (option B).
        blocks, widths: of each stage; every stage but the first halves the side.
        channels: of the images.
        classes: of the answer.
    """

    def __init__(
        self,
        *,
        stem: Literal["cifar", "imagenet"],
        block: Literal["basic", "bottleneck"],
        shortcut: Shortcut,
        blocks: Sequence[int],
        widths: Sequence[int],
        channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        imagenet = stem == "imagenet"
        self.conv1 = (
            _convolution(channels, widths[0], 7, stride=2) if imagenet else _convolution(channels, widths[0], 3)
        )
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet else nn.Identity()
        kind, inputs = BLOCKS[block], widths[0]
        self.stages = len(blocks)
        for number, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            strides = [1 if number == 1 else 2] + [1] * (count - 1)
            stage = nn.Sequential()
            for stride in strides:
                stage.append(kind(inputs, width, stride, shortcut))
                inputs = width * kind.expansion
            self.add_module(f"layer{number}", stage)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.maxpool(F.relu(self.bn1(self.conv1(x_BCHW)), inplace=True))
        for number in range(1, self.stages + 1):
            x_BCHW = self.get_submodule(f"layer{number}")(x_BCHW)
        logits: Tensor = self.fc(x_BCHW.mean((2, 3)))
        return logits
