"""Choosing the next token of each of several texts from its logits: the likeliest, or drawn by a number of its own.

A text's token depends on its own logits, wishes and number alone, whatever its neighbours are.

Shapes: B texts, V vocabulary, K likeliest tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from thrifty.models.wishes import Wishes

# of tokens whose weights are added before one among them is looked for
_BLOCK = 256
# likeliest tokens in which those of a `top_p` are looked for first
_LIKELIEST = 1024


def choose(logits_BV: Tensor, wishes: Sequence[Wishes], numbers: Sequence[float]) -> list[int]:
    """Choose a token for each text.

    Args:
        logits_BV: float32; on a GPU all is chosen there.
        wishes: of each text.
        numbers: of each text, from 0 up to but not 1; not used where the temperature is 0.

    >>> choose(torch.tensor([[0.0, 3.0], [9.0, 0.0]]), [Wishes(0.0), Wishes(top_p=0.5)], [0.0, 0.9])
    [1, 0]
    """
    vocabulary = logits_BV.shape[1]
    chosen = [0] * len(wishes)
    groups: dict[int, list[int]] = {}
    for row, wish in enumerate(wishes):
        groups.setdefault(_likeliest(wish, vocabulary), []).append(row)
    for count, rows in groups.items():
        some_BV = logits_BV if len(rows) == len(wishes) else logits_BV[rows]
        if count == 1:
            # on a processor several times as fast as torch's, which uses no vectors there
            best = some_BV.argmax(-1) if some_BV.is_cuda else some_BV.numpy().argmax(-1)
            tokens = best.tolist()
        else:
            device = some_BV.device
            drawn_B = torch.tensor([numbers[row] for row in rows], dtype=torch.float64, device=device)
            theirs = [wishes[row] for row in rows]
            scaled_BV = some_BV / torch.tensor([wish.temperature for wish in theirs], device=device)[:, None]
            tokens = _of_all(scaled_BV, drawn_B) if count == 0 else _of_likeliest(scaled_BV, count, theirs, drawn_B)
        for row, token in zip(rows, tokens, strict=True):
            chosen[row] = token
    return chosen


def _likeliest(wish: Wishes, vocabulary: int) -> int:
    """How many likeliest tokens are looked at; 0 for all in their own order."""
    if wish.temperature == 0 or wish.top_k == 1:
        return 1
    if wish.top_k is not None and wish.top_k < vocabulary:
        return wish.top_k
    return min(_LIKELIEST, vocabulary) if wish.top_p < 1 else 0


def _of_all(scaled_BV: Tensor, drawn_B: Tensor) -> list[int]:
    """Draw from the whole vocabulary: first a block of tokens, then one of them."""
    weights_BV = (scaled_BV - scaled_BV.amax(-1, keepdim=True)).exp_()
    vocabulary = weights_BV.shape[1]
    weights_BV = torch.nn.functional.pad(weights_BV, (0, -vocabulary % _BLOCK))
    blocks_BNK = weights_BV.unflatten(1, (-1, _BLOCK))
    until_BN = blocks_BNK.sum(-1, dtype=torch.float64).cumsum(-1)
    aim_B1 = (drawn_B * until_BN[:, -1])[:, None]
    block_B1 = torch.searchsorted(until_BN, aim_B1, right=True).clamp_(max=until_BN.shape[1] - 1)
    before_B1 = torch.nn.functional.pad(until_BN, (1, 0)).gather(1, block_B1)
    block_BK = blocks_BNK[torch.arange(len(drawn_B), device=drawn_B.device), block_B1[:, 0]].double()
    within_B1 = torch.searchsorted(block_BK.cumsum(-1) + before_B1, aim_B1, right=True).clamp_(max=_BLOCK - 1)
    tokens: list[int] = (block_B1 * _BLOCK + within_B1)[:, 0].clamp_(max=vocabulary - 1).tolist()
    return tokens


def _of_likeliest(scaled_BV: Tensor, count: int, wishes: Sequence[Wishes], drawn_B: Tensor) -> list[int]:
    """Draw from the likeliest tokens, of which a `top_p` keeps but some."""
    best_BK, index_BK = scaled_BV.topk(count)
    until_BK = (best_BK - best_BK[:, :1]).double().exp_().cumsum(-1)
    kept = [count] * len(wishes)
    for row, wish in enumerate(wishes):
        if wish.top_p == 1:
            continue
        of_all = wish.top_k is None or wish.top_k >= scaled_BV.shape[1]
        whole = (scaled_BV[row] - best_BK[row, 0]).double().exp_().sum() if of_all else until_BK[row, -1]
        share = wish.top_p * whole
        if share > until_BK[row, -1] and count < scaled_BV.shape[1]:  # flat logits: the rest is looked at too
            return [
                _of_likeliest(scaled_BV[each : each + 1], scaled_BV.shape[1] if each == row else count, [its], drawn)[0]
                for each, (its, drawn) in enumerate(zip(wishes, drawn_B[:, None], strict=True))
            ]
        kept[row] = min(count, int(torch.searchsorted(until_BK[row], share)) + 1)
    last_B1 = (torch.tensor(kept, device=scaled_BV.device) - 1)[:, None]
    aim_B1 = drawn_B[:, None] * until_BK.gather(1, last_B1)
    place_B1 = torch.minimum(torch.searchsorted(until_BK, aim_B1, right=True), last_B1)
    tokens: list[int] = index_BK.gather(1, place_B1)[:, 0].tolist()
    return tokens
