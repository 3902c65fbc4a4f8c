"""Llama: a Transformer decoder that predicts the next token, in the form that most open models took over.

Touvron et al. 2023 (arXiv 2302.13971, section 2.2): RMSNorm before each part (Zhang and Sennrich 2019), SwiGLU (Shazeer
2020), positions by rotation (Su et al. 2021), no biases. Queries share keys and values in groups (Ainslie et al. 2023).

Shapes: B batch, T tokens, C width, H heads, K heads of keys and values, G queries that share one of them, D width of a
head, E half of that, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.models.layers import Apart, Past, attend
from thrifty.models.packed import Packed, Rows

# cosines and sines of the angle at each position, float32 [T, E] each
Turns = tuple[Tensor, Tensor]


def speeds(width: int, theta: float, scaling: Sequence[float] = (), device: torch.device | None = None) -> Tensor:
    """Return how far each pair of a head's numbers turns from one position to the next, in radians: float32 [E].

    Formula: ``theta ^ (-2 e / width)`` (Su et al. 2021, equation 15). Llama 3.1 reads further than it learned to at
    first: what turns slowly turns ``factor`` times slower, what turns fast stays, and between the two they are mixed
    (Meta 2024, ``apply_scaling`` of llama_models).

    Args:
        width: of a head.
        theta: of the formula.
        scaling: empty, or factor, and the turns over the first length below which all is slower and above which nothing
            is, and that length.
        device: of the result.
    """
    turn_E = 1 / theta ** (torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)
    if not scaling:
        return turn_E
    factor, low, high, length = scaling
    slow_E = ((turn_E * length / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
    return turn_E * (slow_E + (1 - slow_E) / factor)


def rotate(x_BHTD: Tensor, turns: Turns) -> Tensor:
    """Turn the pairs of each head's numbers, of which one lies in the first half and one in the second."""
    # of the type of what they turn, lest all that follows be a wider one
    cos_TE, sin_TE = (each.to(x_BHTD.dtype) for each in turns)
    one_BHTE, other_BHTE = x_BHTD.chunk(2, dim=-1)
    return torch.cat((one_BHTE * cos_TE - other_BHTE * sin_TE, other_BHTE * cos_TE + one_BHTE * sin_TE), dim=-1)


class Attention(nn.Module):
    """Causal self-attention of turned queries and keys; queries, keys and values come from one product."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        assert width % (2 * heads) == 0, f"width {width} does not divide into pairs of {heads} heads"
        assert heads % kv_heads == 0, f"{heads} heads do not divide into {kv_heads} groups"
        self.heads, self.kv_heads = heads, kv_heads
        self.ways: dict[str, str] = {}
        self.qkv = nn.Linear(width, width // heads * (heads + 2 * kv_heads), bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x_BTC: Tensor, turns: Turns, past: Past | Apart | None = None) -> Tensor:
        heads = self.heads + 2 * self.kv_heads
        qkv_BHTD = self.qkv(x_BTC).unflatten(-1, (heads, -1)).transpose(1, 2)
        qk_BHTD, v_BKTD = qkv_BHTD.split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        if not (past is None or isinstance(past, Past)):
            turned_BTJD = torch.cat((rotate(qk_BHTD, turns), v_BKTD), dim=1).transpose(1, 2)
            apart_BTC: Tensor = self.proj(past.attend(turned_BTJD, self.heads, self.ways))
            return apart_BTC
        q_BHTD, k_BKTD = rotate(qk_BHTD, turns).split((self.heads, self.kv_heads), dim=1)
        causal = past is None or past.length == 0
        if past is not None:
            k_BKTD, v_BKTD = past.extend(k_BKTD, v_BKTD)
        if causal:
            seen_BHTD = attend(q_BHTD, self._shared(k_BKTD), self._shared(v_BKTD), True, ways=self.ways)
        else:
            # one token asks: its queries of a group stand side by side as tokens do, and no key is copied
            q_BKGD = q_BHTD.view(q_BHTD.shape[0], self.kv_heads, -1, q_BHTD.shape[-1])
            seen_BHTD = attend(q_BKGD, k_BKTD, v_BKTD, False, ways=self.ways).view(q_BHTD.shape)
        out_BTC: Tensor = self.proj(seen_BHTD.transpose(1, 2).flatten(2))
        return out_BTC

    def _shared(self, x_BKTD: Tensor) -> Tensor:
        if self.kv_heads == self.heads:
            return x_BKTD
        return x_BKTD.repeat_interleave(self.heads // self.kv_heads, dim=1)


class FeedForward(nn.Module):
    """A product that is gated by the SiLU of another (SwiGLU), and one back; both come from one product."""

    def __init__(self, width: int, ffn: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * ffn, bias=False)
        self.proj = nn.Linear(ffn, width, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        gate_BTF, up_BTF = self.gate_up(x_BTC).chunk(2, dim=-1)
        out_BTC: Tensor = self.proj(F.silu(gate_BTF) * up_BTF)
        return out_BTC


class Block(nn.Module):
    """Attention, then feed-forward, each on the normalised stream and added to it."""

    def __init__(self, width: int, heads: int, kv_heads: int, ffn: int, eps: float) -> None:
        super().__init__()
        self.norm_1 = nn.RMSNorm(width, eps=eps)
        self.attention = Attention(width, heads, kv_heads)
        self.norm_2 = nn.RMSNorm(width, eps=eps)
        self.mlp = FeedForward(width, ffn)

    def forward(self, x_BTC: Tensor, turns: Turns, past: Past | Apart | None = None) -> Tensor:
        x_BTC = x_BTC + self.attention(self.norm_1(x_BTC), turns, past)
        return x_BTC + self.mlp(self.norm_2(x_BTC))


class Llama(nn.Module):
    """A language model: int64 tokens [B, T] to logits [B, T, V]; T is at most ``length``.

    It takes `Packed` documents too.

    Args:
        vocabulary: tokens in the vocabulary.
        length: longest context.
        layers, width, heads: of the blocks.
        kv_heads: heads of keys and values; as many as ``heads``, or a divisor.
        ffn: width inside the feed-forward layer.
        tied: the head shares the embedding's weights.
        theta, scaling: of the rotation, as `speeds` has them.
        eps: of the norms.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        length: int,
        layers: int,
        width: int,
        heads: int,
        kv_heads: int,
        ffn: int,
        tied: bool,
        theta: float = 10_000.0,
        scaling: Sequence[float] = (),
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.length, self.vocabulary = length, vocabulary
        self._head_width, self._theta, self._scaling = width // heads, theta, tuple(scaling)
        self.tokens = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads, kv_heads, ffn, eps) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=eps)
        self.head = None if tied else nn.Linear(width, vocabulary, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """What turns the last hidden state into logits [V, C]."""
        return self.tokens.weight if self.head is None else self.head.weight

    def pasts(self, room: int) -> list[Past]:
        """Return what remembers up to so many tokens for the blocks, with nothing read yet."""
        return [Past(room) for _ in self.blocks]

    def forward(
        self, tokens_BT: Tensor | Packed, pasts: Sequence[Past | Apart] | None = None, *, hidden: bool = False
    ) -> Tensor:
        """Return logits; or, when ``hidden``, what the head is applied to [B, T, C]."""
        rows, first = None, pasts[0] if pasts else None
        if isinstance(tokens_BT, Packed):
            rows = Rows(tokens_BT, self.tokens.weight.dtype, causal=True)
            # far from the begin of the row, angles would lose digits
            tokens_BT, positions_T = tokens_BT.tokens, rows.positions_1T[0].float()
        elif not (first is None or isinstance(first, Past)):
            positions_T = first.positions_1T[0].float()
        else:
            read = first.length if first is not None else 0
            end = read + tokens_BT.shape[1]
            positions_T = torch.arange(read, end, device=tokens_BT.device, dtype=torch.float32)
        x_BTC = self.tokens(tokens_BT)
        angles_TE = positions_T[:, None] * speeds(self._head_width, self._theta, self._scaling, x_BTC.device)
        turns = (angles_TE.cos(), angles_TE.sin())
        for index, block in enumerate(self.blocks):
            x_BTC = block(x_BTC, turns, pasts[index] if pasts else rows)
        x_BTC = self.norm(x_BTC)
        return x_BTC if hidden else F.linear(x_BTC, self.head_weight)
