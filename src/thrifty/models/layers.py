"""Layers that models share: attention, in more than one way of computing it.

Shapes: B batch, H heads, T tokens asked about, S tokens looked at, D width of a head.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

WRITTEN_OUT_LENGTH = 512


class AttentionKernel(Protocol):
    """A way of computing attention; see `ATTENTION`."""

    def __call__(
        self, q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, causal: bool, bias_B11S: Tensor | None = None
    ) -> Tensor: ...


def written_out(
    q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, causal: bool, bias_B11S: Tensor | None = None
) -> Tensor:
    """Attend with two matrix products and a softmax; the scores [B, H, T, S] are kept for the backward pass."""
    scores_BHTS = q_BHTD @ k_BHSD.transpose(-2, -1) * (1 / math.sqrt(q_BHTD.shape[-1]))
    if bias_B11S is not None:
        scores_BHTS = scores_BHTS + bias_B11S.to(scores_BHTS.dtype)
    if causal:
        # the dtype of the scores, lest the sum be a wider one
        future_TS = torch.full(scores_BHTS.shape[-2:], -math.inf, dtype=scores_BHTS.dtype, device=scores_BHTS.device)
        scores_BHTS = scores_BHTS + future_TS.triu_(1)
    return scores_BHTS.softmax(-1) @ v_BHSD


def sdpa(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, causal: bool, bias_B11S: Tensor | None = None) -> Tensor:
    """Attend with torch's fused kernel; scores are computed again in the backward pass."""
    assert not (causal and bias_B11S is not None), "torch's kernel takes one of them"
    bias = None if bias_B11S is None else bias_B11S.to(q_BHTD.dtype)
    return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, attn_mask=bias, is_causal=causal)


# Each takes q [B, H, T, D], k and v [B, H, S, D], and returns [B, H, T, D]. When causal, T is S, and a token sees
# itself and those before it; otherwise every token sees all S. A bias [B, 1, 1, S] is added to the scores: minus
# infinity hides a token.
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
