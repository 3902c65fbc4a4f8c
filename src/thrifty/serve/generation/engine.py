"""`Engine`: a language model that takes steps for many texts at once; it knows tokens and pages, no text and no client.

Shapes: B texts, C width, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from thrifty.errors import JobError
from thrifty.models.gpt import GPT
from thrifty.models.llama import Llama
from thrifty.models.paged import PAGE_TOKENS, Part, Step, kept_by
from thrifty.models.reordered import Reordered, reordered
from thrifty.serve.generation.pool import Pool

logger = logging.getLogger("thrifty.serve")


def can_write(model: object) -> bool:
    """Say whether a model's attention takes a cache of pages."""
    return isinstance(model, GPT | Llama)


class Engine:
    """A model laid out for speed, its pages, and steps over them.

    Args:
        model: a `GPT` or `Llama`, in ``eval`` mode on the CPU; it stays as it is.
        cache_bytes: of keys and values, at most.
        texts: that are written at once, at most.

    Attributes:
        pool: of the pages.
        length: the longest context: the model's, or what the cache holds.

    Raises:
        JobError: the cache would not hold one page.
    """

    def __init__(self, model: object, *, cache_bytes: int, texts: int) -> None:
        assert isinstance(model, GPT | Llama), f"{type(model).__name__} keeps no pages"
        self.vocabulary: int = model.vocabulary
        a_text, kept = -(-model.length // PAGE_TOKENS), kept_by(model)
        pages = min(cache_bytes // kept.page_bytes, texts * a_text)
        if not pages:
            raise JobError(
                f"limit cache_bytes {cache_bytes} holds no {PAGE_TOKENS} tokens of this model",
                mend=f"Give it at least {kept.page_bytes}; a text of full length takes {a_text * kept.page_bytes}.",
            )
        self.length = min(model.length, pages * PAGE_TOKENS)
        if self.length < model.length:
            logger.warning(
                "limit cache_bytes %d holds %d tokens: texts are read no further back, though the model reads %d",
                cache_bytes,
                self.length,
                model.length,
            )
        self.pool = Pool(pages)
        with torch.inference_mode():
            self._model = reordered(model)
            self._head = Reordered(model.head_weight)
            self._cache = kept.cache(pages)

    @torch.inference_mode()
    def step(self, parts: Sequence[Part]) -> Tensor:
        """Read a part of each text; return the logits after each, float32 [B, V].

        Nothing but the pages of these texts changes, so that a step that failed can be taken again.

        Args:
            parts: those of one token first.
        """
        step = Step(self._cache, parts)
        hidden_1TC = self._model(step.tokens_1T, step.layers(), hidden=True)
        logits_BV: Tensor = self._head(hidden_1TC[0, step.last]).float()
        return logits_BV

    @torch.inference_mode()
    def clear(self, pages: Sequence[int]) -> None:
        """Make ready pages that are new to their texts."""
        if pages:
            self._cache.clear(pages)

    @torch.inference_mode()
    def move(self, pages: dict[int, int]) -> None:
        """Copy pages to their new places."""
        self._cache.move(pages)
