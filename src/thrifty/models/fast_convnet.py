"""A convolutional network for minutes: few wide layers for small images, whitened before the first and soon pooled.

K. Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498), which goes back to D. Page 2018,
"How to train your ResNet": three groups, each pooled at once; a first layer that is not learned; a scaled head; running
statistics of few steps. At six layers shortcuts are not needed.

Shapes: B batch, C channels, H height, W width; F filters, P patterns of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# of new statistics in the running ones: epochs are few
_NEW_SHARE = 0.4
# a patch of 2x2 is flat, or changes by rows, by columns, or by both
_PATTERNS = ((1, 1, 1, 1), (1, 1, -1, -1), (1, -1, 1, -1), (1, -1, -1, 1))
# its colours are light, red against blue, green against both
_COLOURS = ((1, 1, 1), (1, 0, -1), (1, -2, 1))
# how strong each pattern is in each of the colours, where channels have mean 0 and deviation 1: the variances in
# CIFAR-10's training images, whose principal parts are within a few degrees of these products
_VARIANCES = ((10.1, 0.773, 0.176), (0.406, 0.0060, 0.0023), (0.346, 0.0041, 0.0017), (0.0555, 0.0002, 0.0001))
# what is as weak as noise is not made strong (Jordan 2024, section 3.1)
_LEAST_VARIANCE = 5e-4


def whitening(channels: int) -> Tensor:
    """Filters that answer alike strongly to natural images, each to what no other does, in both signs: [F, C, 2, 2].

    Natural images differ little in what their patches are made of: no data is asked.

    Args:
        channels: 1, gray, or 3.

    >>> whitening(3).shape, whitening(1).shape
    (torch.Size([24, 3, 2, 2]), torch.Size([8, 1, 2, 2]))
    """
    gray = channels == 1
    colours_CC = torch.ones(1, 1) if gray else torch.tensor(_COLOURS, dtype=torch.float32)
    colours_CC = colours_CC / torch.linalg.vector_norm(colours_CC, dim=1, keepdim=True)
    # three channels that go together have three times the variance of one
    variances_PC = torch.tensor(_VARIANCES)[:, :1] / 3 if gray else torch.tensor(_VARIANCES)
    patterns_P4 = torch.tensor(_PATTERNS, dtype=torch.float32) / 2
    filters = torch.einsum("pk,oc->pock", patterns_P4, colours_CC)
    filters = filters / torch.sqrt(variances_PC + _LEAST_VARIANCE)[:, :, None, None]
    filters_FC22 = filters.reshape(-1, channels, 2, 2)
    return torch.cat([filters_FC22, -filters_FC22])


class Group(nn.Module):
    """A convolution whose result is pooled to half the side, then one more."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, momentum=_NEW_SHARE)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, momentum=_NEW_SHARE)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = F.gelu(self.bn1(F.max_pool2d(self.conv1(x_BCHW), 2)))
        return F.gelu(self.bn2(self.conv2(x_BCHW)))


class FastConvNet(nn.Module):
    """Float images [B, C, H, W], each channel with mean 0 and deviation 1, to logits [B, classes].

    Args:
        widths: of the three groups.
        scale: of the logits.
        channels: of the images.
        classes: of the answer.
    """

    filters: Tensor

    def __init__(self, *, widths: Sequence[int], scale: float, channels: int, classes: int) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("filters", whitening(channels))
        inputs = len(self.filters)
        self.bias = nn.Parameter(torch.zeros(inputs))
        self.groups = nn.Sequential()
        for width in widths:
            self.groups.append(Group(inputs, width))
            inputs = width
        self.fc = nn.Linear(inputs, classes, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = F.gelu(F.conv2d(x_BCHW, self.filters, self.bias))
        logits: Tensor = self.fc(self.groups(x_BCHW).amax((2, 3))) * self.scale
        return logits
