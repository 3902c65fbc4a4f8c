"""Packed texts: several end to end in one row without padding, for training; each attends to itself alone.

Linear layers, norms and activations take the row [1, T, C]. For attention, queries, keys and values move to grids, the
texts of each group under each other and padded, and what comes out moves back. Nothing that is learned depends on the
padding. Windows of several documents are such rows too: where a token sees none that follow, nothing hides the padding.

Shapes: T tokens of the row, N texts of a group, L tokens of the group's longest, S slots of all grids, C width,
H heads, K heads of keys and values, J of queries, keys and values together, D width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from thrifty.models.layers import attend


class Packed(NamedTuple):
    """What a model that can be trained on packed texts takes in the place of its tokens; logits are in order of places.

    Attributes:
        tokens: end to end, int64 [1, T]; what fills the row up is a text too.
        places: for each group of texts, the place in the row of each token, int64 [N, L]; T where there is none.
    """

    tokens: Tensor
    places: tuple[Tensor, ...]


class Rows:
    """Where the tokens of packed texts lie: in the row, and in the grids; made once for all layers.

    Args:
        packed: the texts.
        dtype: of what hides padding.
        causal: a token sees itself and those before it in its text, and otherwise all of its text.

    Attributes:
        positions_1T: of each token in its text.
        hidden: for each grid, whether a slot holds no token, bool [N, L].
    """

    def __init__(self, packed: Packed, dtype: torch.dtype, *, causal: bool = False) -> None:
        count, device = packed.tokens.shape[1], packed.tokens.device
        places_S = torch.cat([each.flatten() for each in packed.places])
        within = [torch.arange(each.shape[1], device=device).expand(each.shape) for each in packed.places]
        self.hidden = [each == count for each in packed.places]
        self._there_S = places_S.clamp(max=count - 1)
        slots = torch.zeros(count + 1, dtype=torch.int64, device=device)
        self._slots_T = slots.index_put_((places_S,), torch.arange(len(places_S), device=device))[:count]
        self.positions_1T = torch.cat([each.flatten() for each in within])[self._slots_T][None]
        self._causal = causal
        self._biases: list[Tensor | None] = [None] * len(self.hidden)
        # padding follows what is padded, and who sees nothing that follows does not see it
        if not causal:
            zero = torch.zeros((), dtype=dtype, device=device)
            self._biases = [torch.where(each, -math.inf, zero)[:, None, None] for each in self.hidden]

    def spread(self, x_1TC: Tensor) -> list[Tensor]:
        """Lay texts under each other: a grid [N, L, C] for each group. Hidden slots hold numbers of some token.

        They must count for nothing in what is made of the grids: their gradients are taken to be zero.
        """
        grid_SC: Tensor = _Spread.apply(x_1TC.flatten(0, 1), self._there_S, self._slots_T)
        parts = grid_SC.split([each.numel() for each in self.hidden])
        return [part.unflatten(0, each.shape) for part, each in zip(parts, self.hidden, strict=True)]

    def gather(self, grids: list[Tensor]) -> Tensor:
        """Lay the texts of grids [N, L, C] end to end again: [1, T, C]."""
        grid_SC = torch.cat([each.flatten(0, 1) for each in grids])
        row_TC: Tensor = _Gather.apply(grid_SC, self._slots_T)
        return row_TC[None]

    def attend(self, qkv_1TJD: Tensor, heads: int, ways: Mapping[str, str]) -> Tensor:
        """Attend over each text alone.

        Args:
            qkv_1TJD: heads of queries, then as many of keys and of values, or a divisor of as many.
            heads: H, of queries.
            ways: of `attend`.

        Returns:
            What each token sees, [1, T, H D].
        """
        shared = (qkv_1TJD.shape[2] - heads) // 2
        seen = []
        for grid_NLC, bias_N11L in zip(self.spread(qkv_1TJD.flatten(2)), self._biases, strict=True):
            qkv_NJLD = grid_NLC.unflatten(-1, qkv_1TJD.shape[2:]).transpose(1, 2)
            q_NHLD, k_NKLD, v_NKLD = qkv_NJLD.split((heads, shared, shared), dim=1)
            if shared < heads:
                k_NKLD, v_NKLD = (each.repeat_interleave(heads // shared, dim=1) for each in (k_NKLD, v_NKLD))
            seen_NHLD = attend(q_NHLD, k_NKLD, v_NKLD, self._causal, bias_N11L, ways=ways)
            seen.append(seen_NHLD.transpose(1, 2).flatten(2))
        return self.gather(seen)


class _Spread(torch.autograd.Function):
    """Rows to slots, where each row has one slot of its own: so the way back is a look-up too, not a sum."""

    @staticmethod
    def forward(ctx: FunctionCtx, row_TC: Tensor, there_S: Tensor, slots_T: Tensor) -> Tensor:
        ctx.save_for_backward(slots_T)
        return row_TC.index_select(0, there_S)

    @staticmethod
    def backward(ctx: FunctionCtx, *pulls: Tensor) -> tuple[Tensor, None, None]:
        (slots_T,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return pulls[0].index_select(0, slots_T), None, None


class _Gather(torch.autograd.Function):
    """Slots to rows; slots that no row reads have no gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, grid_SC: Tensor, slots_T: Tensor) -> Tensor:
        ctx.save_for_backward(slots_T)
        ctx.slots = len(grid_SC)  # type: ignore[attr-defined]
        return grid_SC.index_select(0, slots_T)

    @staticmethod
    def backward(ctx: FunctionCtx, *pulls: Tensor) -> tuple[Tensor, None]:
        (slots_T,) = ctx.saved_tensors  # type: ignore[attr-defined]
        pull_SC = pulls[0].new_zeros(ctx.slots, pulls[0].shape[1])  # type: ignore[attr-defined]
        return pull_SC.index_put_((slots_T,), pulls[0]), None
