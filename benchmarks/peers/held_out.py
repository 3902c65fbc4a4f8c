"""Held-out figures, the same for every peer: accuracy of a classifier, nats a byte of a language model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers.task import Stream, windows

# evaluated at once
TOKENS_AT_ONCE = 8_192


@torch.no_grad()
def nats_per_byte(logits: Callable[[Tensor], Tensor], data: Stream, length: int) -> float:
    """Go through the whole held-out text once, window after window.

    Args:
        logits: of tokens [B, T]: [B, T, vocabulary]; of a model that is in ``eval`` mode.
        data: the text.
        length: tokens of a window.
    """
    predicted, batch = len(data.held_out) - 1, max(1, TOKENS_AT_ONCE // length)
    starts = np.arange(0, predicted - length + 1, length)
    parts = [starts[at : at + batch] for at in range(0, len(starts), batch)]
    total = sum(_nats(logits, *windows(data.held_out, part, length)) for part in parts)
    if rest := predicted % length:
        total += _nats(logits, *windows(data.held_out, np.array([predicted - rest]), rest))
    return total / data.held_out_bytes


def _nats(logits: Callable[[Tensor], Tensor], x: np.ndarray, y: np.ndarray) -> float:
    found = logits(torch.from_numpy(x)).float().cpu()
    return float(F.cross_entropy(found.flatten(0, 1), torch.from_numpy(y).flatten(), reduction="sum"))


@torch.no_grad()
def accuracy(logits: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, batch: int = 256) -> float:
    """The share of held-out samples that a classifier, in ``eval`` mode, gets right."""
    right = sum(
        int((logits(x[at : at + batch]).argmax(1) == y[at : at + batch]).sum()) for at in range(0, len(x), batch)
    )
    return right / len(x)
