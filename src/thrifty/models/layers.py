"""Layers that models share: causal attention, in more than one way of computing it.

Shapes: B batch, H heads, T tokens asked about, S tokens looked at, D width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

WRITTEN_OUT_LENGTH = 512

AttentionKernel = Callable[[Tensor, Tensor, Tensor, bool], Tensor]


def written_out(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, causal: bool) -> Tensor:
    """Attend with two matrix products and a softmax; the scores [B, H, T, S] are kept for the backward pass."""
    scores_BHTS = q_BHTD @ k_BHSD.transpose(-2, -1) * (1 / math.sqrt(q_BHTD.shape[-1]))
    if causal:
        # the dtype of the scores, lest the sum be a wider one
        future_TS = torch.full(scores_BHTS.shape[-2:], -math.inf, dtype=scores_BHTS.dtype, device=scores_BHTS.device)
        scores_BHTS = scores_BHTS + future_TS.triu_(1)
    return scores_BHTS.softmax(-1) @ v_BHSD


def sdpa(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, causal: bool) -> Tensor:
    """Attend with torch's fused kernel; scores are computed again in the backward pass."""
    return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, is_causal=causal)


# Each takes q [B, H, T, D], k and v [B, H, S, D], and returns [B, H, T, D]. When causal, T is S, and a token sees
# itself and those before it; otherwise every token sees all S.
ATTENTION: dict[str, AttentionKernel] = {"written_out": written_out, "sdpa": sdpa}


def fastest_attention(q_BHTD: Tensor) -> str:
    """Choose the way of `ATTENTION` that is fastest for these queries.

    On a CPU the fused kernel's backward pass in bf16 is slow at short lengths: forward and backward took 41 ms against
    12 ms written out at 128 tokens, and as long at 512 (2 cores with AMX, torch 2.13). In fp32, without gradients, and
    on a GPU, the fused kernel is as fast or faster, and keeps less.
    """
    # asked in this order so that an exported graph, which has no gradients, does not depend on the length
    slow_backward = (
        torch.is_grad_enabled()
        and q_BHTD.dtype == torch.bfloat16
        and not q_BHTD.is_cuda
        and q_BHTD.shape[-2] <= WRITTEN_OUT_LENGTH
    )
    return "written_out" if slow_backward else "sdpa"
