"""Which gradients travel between ranks in one message: small ones together, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# of gradients that are summed in one message: DDP's default
BUCKET_BYTES = 25 << 20
# a gradient of more is summed where it lies; smaller ones are copied next to each other
LARGE_BYTES = 1 << 20


def buckets_of(parameters: Sequence[Tensor]) -> list[list[int]]:
    """Group places of parameters, the last first, by kind of number; a large one is a group of its own."""
    buckets: list[list[int]] = []
    open_: dict[torch.dtype, tuple[list[int], int]] = {}
    for at in reversed(range(len(parameters))):
        parameter = parameters[at]
        size = parameter.numel() * parameter.element_size()
        if size >= LARGE_BYTES:
            buckets.append([at])
            continue
        bucket, held = open_.get(parameter.dtype, ([], 0))
        if not bucket or held + size > BUCKET_BYTES:
            bucket, held = [], 0
            buckets.append(bucket)
        bucket.append(at)
        open_[parameter.dtype] = (bucket, held + size)
    return buckets
