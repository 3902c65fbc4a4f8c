"""Images changed by chance as they are trained on, a batch at a time: mirrored, and cropped out of a margin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers.task import Task


def augmented(images: Tensor, task: Task) -> Tensor:
    """Mirror half of some normalised images [B, C, H, W], and cut each out of a margin of zeros, as the task says."""
    if task.flip:
        mirrored = torch.rand(len(images)) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    if task.crop:
        height, width = images.shape[-2:]
        framed = F.pad(images, (task.crop,) * 4)
        places = torch.randint(0, 2 * task.crop + 1, (len(images), 2)).tolist()
        cut = [frame[:, y : y + height, x : x + width] for frame, (y, x) in zip(framed, places, strict=True)]
        images = torch.stack(cut)
    return images
