"""Writing text with a language model: the likeliest token each time, or drawn; each token is read once where all fits.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from thrifty.errors import RequestError
from thrifty.models.drawing import choose
from thrifty.models.layers import Past
from thrifty.models.wishes import Wishes


class Remembering(Protocol):
    """A language model that can keep what it has read, as a `GPT` and a `Llama` can."""

    length: int
    vocabulary: int

    def pasts(self, room: int) -> list[Past]:
        """Return what remembers up to so many tokens for the blocks, with nothing read yet."""

    def __call__(self, tokens_BT: Tensor, pasts: list[Past] | None) -> Tensor:
        """Return the logits of new tokens; what they leave behind goes into ``pasts``."""


@torch.inference_mode()
def generate(
    model: nn.Module | Callable[[Tensor], Tensor],
    tokens: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    length: int | None = None,
    remember: bool = True,
) -> list[int]:
    """Write on from a prompt; return the new tokens alone.

    Of a prompt or text longer than the model's context, the last ``length`` tokens count. While all fits, a model that
    has ``pasts``, as a `GPT` and a `Llama` have, reads each token once and keeps its keys and values; beyond, positions
    shift and the whole context is read again for every token, as it always is by another model.

    Args:
        model: tokens to logits; a module is taken in ``eval`` mode and left as it was.
        tokens: the prompt, at least one token.
        max_tokens: how many to write.
        temperature: divides the logits; 0 takes the likeliest token each time.
        top_k: draw from that many likeliest tokens; from all when left out.
        generator: of the drawing, on the CPU; torch's own when left out.
        length: the longest context; a `GPT` and a `Llama` know their own.
        remember: keep keys and values, in memory that the text's tokens take; else read all again for each token.

    Raises:
        RequestError: an empty prompt, a token outside the vocabulary, or an argument out of range.
    """
    own = cast(Remembering, model) if hasattr(type(model), "pasts") else None
    longest = own.length if own else length
    assert longest, "a model that does not know its length needs one"
    _check_request(own.vocabulary if own else None, tokens, max_tokens, temperature, top_k)
    module = model if isinstance(model, nn.Module) else None
    device = next(module.parameters()).device if module else torch.device("cpu")
    training = module.training if module else False
    if module:
        module.eval()
    wishes = [Wishes(temperature, top_k)]
    room = min(longest, len(tokens) + max_tokens)
    try:
        text = list(tokens)
        pasts = own.pasts(room) if own and remember else []
        unread = text[-longest:]
        for _ in range(max_tokens):
            if not own or not pasts:
                answer_BTV = model(torch.tensor([text[-longest:]], device=device))
            else:
                if pasts[0].length + len(unread) > longest:
                    pasts, unread = own.pasts(room), text[-longest:]
                answer_BTV = own(torch.tensor([unread], device=device), pasts)
            drawn = 0.0 if temperature == 0 else float(torch.rand((), dtype=torch.float64, generator=generator))
            text += choose(answer_BTV[:1, -1].float().cpu(), wishes, [drawn])
            unread = text[-1:]
    finally:
        if module:
            module.train(training)
    return text[len(tokens) :]


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
