"""Prompts in, their completions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thrifty.errors import RequestError
from thrifty.export.engines import compute_of
from thrifty.export.forms.form import Signature, Takes
from thrifty.spec import BundleInfo

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn

    from thrifty.export.engines import Computed

Prompt = tuple[str, dict[str, Any]]


class Prompts:
    """Prompts to their completions."""

    takes: Takes = "text"
    says = "a prompt"
    options: Sequence[str] = ("max_tokens", "temperature", "top_k", "seed")
    alone = True

    def __init__(self, info: BundleInfo, model: nn.Module | Computed, tokenizer: Tokenizer | None) -> None:
        assert tokenizer is not None
        self._data, self._model, self._tokenizer = info.data, model, tokenizer
        self.inputs: Signature = {"prompt": ("BYTES", (-1,))}
        self.outputs: Signature = {"completion": ("BYTES", (-1,))}

    def row(self, raw: str, **options: Any) -> Prompt:
        """Keep a prompt with its options, those of `complete`."""
        return raw, options

    def complete(
        self, prompt: str, *, max_tokens: int = 64, temperature: float = 0.8, top_k: int = 50, seed: int = 0
    ) -> str:
        """Continue a text up to its end or ``max_tokens``; the same arguments give the same completion.

        The prompt is not part of what returns.

        Args:
            prompt: any text; of a longer one than the model's context, the end counts. An empty one begins a new text.
            max_tokens: tokens to add.
            temperature: 0 takes the likeliest token each time.
            top_k: of how many likeliest tokens one is drawn.
            seed: of the drawing.

        Raises:
            RequestError: an argument is out of range.
        """
        import torch

        from thrifty.models.generate import generate

        if max_tokens < 1 or top_k < 1 or not 0 <= temperature <= 100:
            raise RequestError(f"max_tokens {max_tokens}, top_k {top_k}, temperature {temperature} are out of range")
        ends = self._data.end
        before = self._tokenizer.encode(prompt).ids
        new = generate(
            self._model,
            before or [ends],
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            generator=torch.Generator().manual_seed(seed),
            length=self._data.shape[0],
        )
        end = new.index(ends) if ends in new else len(new)
        # some tokenizers leave out the space that a text begins with: what is new is told by the whole
        read, whole = self._tokenizer.decode(before), self._tokenizer.decode([*before, *new[:end]])
        return str(whole[len(read) :])

    def answers(self, rows: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Complete prompts, one after another."""
        return [{"completion": self.complete(prompt, **options)} for prompt, options in rows]

    def described(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Give the completion."""
        return dict(answer)

    def made_up(self) -> Prompt:
        """Ask for one token."""
        return "a", {"max_tokens": 1}

    def probe(self) -> str:
        """Answer the first token."""
        import numpy as np

        found = compute_of(self._model)(np.zeros((1, 1), np.int64)).shape[-1]
        wanted = self._tokenizer.get_vocab_size()
        return f"{found} values for {wanted} names" if found < wanted else ""
