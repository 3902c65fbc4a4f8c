"""Layers that models share: attention, in more than one way of computing it, and what it remembers of tokens read.

Shapes: B batch, H heads, T tokens asked about, S tokens looked at, D width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.errors import unknown_name

WRITTEN_OUT_LENGTH = 512
QUERIES_AT_ONCE = 256


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
        length, seen = scores_BHTS.shape[-2:]
        # the dtype of the scores, lest the sum be a wider one
        future_TS = torch.full((length, seen), -math.inf, dtype=scores_BHTS.dtype, device=scores_BHTS.device)
        scores_BHTS = scores_BHTS + future_TS.triu_(1 + seen - length)
    return scores_BHTS.softmax(-1) @ v_BHSD


def in_chunks(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, causal: bool, bias_B11S: Tensor | None = None) -> Tensor:
    """Attend as `written_out` does, some queries at a time: of those that are causal, no chunk looks past its end."""
    length = q_BHTD.shape[-2]
    if length <= QUERIES_AT_ONCE:
        return written_out(q_BHTD, k_BHSD, v_BHSD, causal, bias_B11S)
    parts = []
    for begin in range(0, length, QUERIES_AT_ONCE):
        end = min(begin + QUERIES_AT_ONCE, length)
        seen = end if causal else k_BHSD.shape[-2]
        bias = None if bias_B11S is None else bias_B11S[..., :seen]
        q, k, v = q_BHTD[..., begin:end, :], k_BHSD[..., :seen, :], v_BHSD[..., :seen, :]
        parts.append(written_out(q, k, v, causal, bias))
    return torch.cat(parts, dim=-2)


def sdpa(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, causal: bool, bias_B11S: Tensor | None = None) -> Tensor:
    """Attend with torch's fused kernel; scores are computed again in the backward pass."""
    assert not (causal and bias_B11S is not None), "torch's kernel takes one of them"
    bias = None if bias_B11S is None else bias_B11S.to(q_BHTD.dtype)
    return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, attn_mask=bias, is_causal=causal)


# Each takes q [B, H, T, D], k and v [B, H, S, D], and returns [B, H, T, D]. When causal, T is S, and a token sees
# itself and those before it; otherwise every token sees all S. A bias [B, 1, 1, S] is added to the scores: minus
# infinity hides a token.
ATTENTION: dict[str, AttentionKernel] = {"written_out": written_out, "in_chunks": in_chunks, "sdpa": sdpa}


def fastest_attention(q_BHTD: Tensor) -> str:
    """Choose the way of `ATTENTION` that is fastest for these queries by a rule, where none was measured.

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


def attend(
    q_BHTD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    causal: bool,
    bias_B11S: Tensor | None = None,
    *,
    ways: Mapping[str, str],
) -> Tensor:
    """Attend by the way of `ATTENTION` that a table has for dtype and `direction`, else by `fastest_attention`.

    Args:
        q_BHTD, k_BHSD, v_BHSD, causal, bias_B11S: as `ATTENTION` has them.
        ways: of the module that attends, its attribute of this name, which `use_attention` fills.
    """
    way = ways.get(direction(q_BHTD.dtype, training=torch.is_grad_enabled())) or fastest_attention(q_BHTD)
    return ATTENTION[way](q_BHTD, k_BHSD, v_BHSD, causal, bias_B11S)


def direction(dtype: torch.dtype, *, training: bool) -> str:
    """What attention is chosen by.

    >>> direction(torch.bfloat16, training=True)
    'bfloat16 training'
    """
    return f"{str(dtype).removeprefix('torch.')} {'training' if training else 'evaluation'}"


def use_attention(model: nn.Module, ways: Mapping[str, str]) -> nn.Module:
    """Have a model attend by these ways of `ATTENTION`, by what `direction` says; returns the model.

    Raises:
        JobError: there is no way of that name; the nearest one is given.
    """
    for way in ways.values():
        if way not in ATTENTION:
            raise unknown_name("way of attention", way, ATTENTION)
    for module in model.modules():
        if isinstance(getattr(module, "ways", None), dict):
            module.ways = dict(ways)  # type: ignore[assignment]
    return model


class Apart(Protocol):
    """What an attention layer is given for several texts that lie end to end in one row: it lets each see itself alone.

    Attributes:
        positions_1T: of each token in its text, int64.
    """

    @property
    def positions_1T(self) -> Tensor:  # noqa: N802 (a shape, not a name)
        ...

    def attend(self, qkv_1TJD: Tensor, heads: int, ways: Mapping[str, str]) -> Tensor:
        """Return what each token sees [1, T, H D], of queries' heads, then as many of keys and of values, or fewer."""


class Past:
    """Keys and values of the tokens that one attention layer has read: all at once at first, then one by one.

    Memory is taken once, so that a token writes its own and moves no other's. Without gradients alone.

    Args:
        room: tokens at most.
    """

    def __init__(self, room: int) -> None:
        self.room, self.length = room, 0
        self._k_BHSD: Tensor | None = None
        self._v_BHSD: Tensor | None = None

    @property
    def kept(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all that was read [B, H, S, D]."""
        assert self._k_BHSD is not None and self._v_BHSD is not None, "nothing was read yet"
        return self._k_BHSD[:, :, : self.length], self._v_BHSD[:, :, : self.length]

    def extend(self, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of new tokens and return all that there are."""
        # what follows a past is one token, which sees all: so no mask has to tell new tokens apart
        assert self.length == 0 or k_BHTD.shape[2] == 1, f"{k_BHTD.shape[2]} tokens after a past of {self.length}"
        begin, self.length = self.length, self.length + k_BHTD.shape[2]
        assert self.length <= self.room, f"{self.length} tokens in a room of {self.room}"
        if self._k_BHSD is None or self._v_BHSD is None:
            batch, heads, _, width = k_BHTD.shape
            self._k_BHSD = k_BHTD.new_empty(batch, heads, self.room, width)
            self._v_BHSD = v_BHTD.new_empty(batch, heads, self.room, width)
        self._k_BHSD[:, :, begin : self.length] = k_BHTD
        self._v_BHSD[:, :, begin : self.length] = v_BHTD
        return self.kept
