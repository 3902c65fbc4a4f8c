"""GPT-2: a Transformer decoder that predicts the next token, and writes text with it.

Radford et al. 2019: pre-layer-norm blocks, learned positions, GELU (its tanh form), the head tied to the embedding.
No dropout: its random numbers took a quarter of a step on a CPU, and a run that fits a small budget sees its data
about once.

Shapes: B batch, T tokens, C width, H heads, D width of a head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.errors import RequestError
from thrifty.models.layers import attend


class Past:
    """Keys and values of the tokens that one attention layer has read: all at once at first, then one by one."""

    def __init__(self) -> None:
        self.k_BHTD: Tensor | None = None
        self.v_BHTD: Tensor | None = None

    def extend(self, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of new tokens and return all."""
        if self.k_BHTD is not None and self.v_BHTD is not None:
            k_BHTD = torch.cat((self.k_BHTD, k_BHTD), dim=2)
            v_BHTD = torch.cat((self.v_BHTD, v_BHTD), dim=2)
        self.k_BHTD, self.v_BHTD = k_BHTD, v_BHTD
        return k_BHTD, v_BHTD

    @property
    def length(self) -> int:
        return 0 if self.k_BHTD is None else self.k_BHTD.shape[2]


class Attention(nn.Module):
    """Causal self-attention with queries, keys and values from one product."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} does not divide into {heads} heads"
        self.heads = heads
        self.ways: dict[str, str] = {}
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x_BTC: Tensor, past: Past | None = None) -> Tensor:
        qkv_BTKHD = self.c_attn(x_BTC).unflatten(-1, (3, self.heads, -1))
        q_BHTD, k_BHTD, v_BHTD = qkv_BTKHD.permute(2, 0, 3, 1, 4).unbind(0)
        causal = past is None or past.length == 0
        if past is not None:
            # after what is past comes one token, which sees all
            assert causal or x_BTC.shape[1] == 1, f"{x_BTC.shape[1]} tokens after a past of {past.length}"
            k_BHTD, v_BHTD = past.extend(k_BHTD, v_BHTD)
        seen_BHTD = attend(q_BHTD, k_BHTD, v_BHTD, causal, ways=self.ways)
        out_BTC: Tensor = self.c_proj(seen_BHTD.transpose(1, 2).flatten(2))
        return out_BTC


class FeedForward(nn.Module):
    """Two products with a GELU between, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        out_BTC: Tensor = self.c_proj(F.gelu(self.c_fc(x_BTC), approximate="tanh"))
        return out_BTC


class Block(nn.Module):
    """Attention, then feed-forward, each on the normalised stream and added to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width)

    def forward(self, x_BTC: Tensor, past: Past | None = None) -> Tensor:
        x_BTC = x_BTC + self.attn(self.ln_1(x_BTC), past)
        return x_BTC + self.mlp(self.ln_2(x_BTC))


class GPT(nn.Module):
    """A language model: int64 tokens [B, T] to logits [B, T, V]; T is at most ``length``.

    Args:
        vocabulary: tokens in the vocabulary.
        length: longest context.
        layers, width, heads: of the blocks.
    """

    def __init__(self, *, vocabulary: int, length: int, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.length, self.vocabulary = length, vocabulary
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(length, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)

    @property
    def head_weight(self) -> Tensor:
        """What turns the last hidden state into logits [V, C]."""
        return self.wte.weight

    def forward(self, tokens_BT: Tensor, pasts: list[Past] | None = None, *, hidden: bool = False) -> Tensor:
        """Return logits; or, when ``hidden``, what the head is applied to [B, T, C]."""
        read = pasts[0].length if pasts else 0
        positions_T = torch.arange(read, read + tokens_BT.shape[1], device=tokens_BT.device)
        x_BTC = self.wte(tokens_BT) + self.wpe(positions_T)
        for index, block in enumerate(self.h):
            x_BTC = block(x_BTC, pasts[index] if pasts else None)
        x_BTC = self.ln_f(x_BTC)
        return x_BTC if hidden else F.linear(x_BTC, self.head_weight)


@torch.inference_mode()
def generate(
    model: nn.Module,
    tokens: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    length: int | None = None,
) -> list[int]:
    """Write on from a prompt; return the new tokens alone.

    Of a prompt or text longer than the model's context, the last ``length`` tokens count. While all fits, a `GPT` reads
    each token once; beyond, positions shift and the whole context is read again for every token, as it always is by
    another model.

    Args:
        model: tokens to logits; taken in ``eval`` mode and left as it was.
        tokens: the prompt, at least one token.
        max_tokens: how many to write.
        temperature: divides the logits; 0 takes the likeliest token each time.
        top_k: draw from that many likeliest tokens; from all when left out.
        generator: of the drawing, on the CPU; torch's own when left out.
        length: the longest context; a `GPT` knows its own.

    Raises:
        RequestError: an empty prompt, a token outside the vocabulary, or an argument out of range.
    """
    own = model if isinstance(model, GPT) else None
    longest = own.length if own else length
    assert longest, "a model that is no GPT needs a length"
    _check_request(own.vocabulary if own else None, tokens, max_tokens, temperature, top_k)
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        text = list(tokens)
        pasts = [Past() for _ in own.h] if own else []
        unread = text[-longest:]
        for _ in range(max_tokens):
            if own is None:
                answer_BTV = model(torch.tensor([text[-longest:]], device=device))
            else:
                if pasts[0].length + len(unread) > longest:
                    pasts, unread = [Past() for _ in own.h], text[-longest:]
                answer_BTV = own(torch.tensor([unread], device=device), pasts)
            text.append(_draw(answer_BTV[0, -1].float().cpu(), temperature, top_k, generator))
            unread = text[-1:]
    finally:
        model.train(training)
    return text[len(tokens) :]


def _draw(logits_V: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> int:
    if temperature == 0:
        return int(logits_V.argmax())
    best_K, index_K = logits_V.topk(min(top_k or len(logits_V), len(logits_V)))
    chosen = torch.multinomial((best_K / temperature).softmax(0), 1, generator=generator)
    return int(index_K[chosen])


def _check_request(
    vocabulary: int | None, tokens: Sequence[int], max_tokens: int, temperature: float, top_k: int | None
) -> None:
    if not tokens:
        raise RequestError("the prompt is empty", mend="Give at least one token to write on from.")
    if vocabulary is not None and (min(tokens) < 0 or max(tokens) >= vocabulary):
        wrong = next(token for token in tokens if not 0 <= token < vocabulary)
        raise RequestError(f"token {wrong} is outside the vocabulary of {vocabulary}")
    if max_tokens < 0:
        raise RequestError(f"max_tokens is {max_tokens}", mend="It must be 0 or more.")
    if not 0 <= temperature < float("inf"):
        raise RequestError(f"temperature is {temperature}", mend="It must be 0 or a positive number.")
    if top_k is not None and top_k < 1:
        raise RequestError(f"top_k is {top_k}", mend="It must be 1 or more; leave it out to draw from all tokens.")
