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
    from thrifty.models.wishes import Wishes

Prompt = tuple[str, dict[str, Any]]
# a prompt's tokens, how many to write, how each is chosen, and the seed
Ordered = tuple[list[int], int, "Wishes", int]
_DEFAULTS: dict[str, Any] = {"max_tokens": 64, "temperature": 0.8, "top_k": 50, "seed": 0}


class Prompts:
    """Prompts to their completions."""

    takes: Takes = "text"
    says = "a prompt"
    options: Sequence[str] = tuple(_DEFAULTS)
    alone = True

    def __init__(self, info: BundleInfo, model: nn.Module | Computed, tokenizer: Tokenizer | None) -> None:
        assert tokenizer is not None
        self._data, self.model, self.tokenizer = info.data, model, tokenizer
        self.inputs: Signature = {"prompt": ("BYTES", (-1,))}
        self.outputs: Signature = {"completion": ("BYTES", (-1,))}

    @property
    def end(self) -> int:
        """The token that ends a text, and stands before one."""
        return self._data.end

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

        options = {"max_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "seed": seed}
        before, count, wishes, seed = self.order_of((prompt, options))
        new = generate(
            self.model,
            before,
            max_tokens=count,
            temperature=wishes.temperature,
            top_k=wishes.top_k,
            generator=torch.Generator().manual_seed(seed),
            length=self._data.shape[0],
        )
        end = new.index(self.end) if self.end in new else len(new)
        # some tokenizers leave out the space that a text begins with: what is new is told by the whole
        read, whole = self.tokenizer.decode(before), self.tokenizer.decode([*before, *new[:end]])
        return str(whole[len(read) :])

    def order_of(self, row: Prompt) -> Ordered:
        """Say what `complete` makes of a prompt and its options: tokens, how many, how each is chosen, and the seed.

        Raises:
            RequestError: an option is out of range.
        """
        from thrifty.models.wishes import Wishes

        prompt, given = row
        options = {**_DEFAULTS, **given}
        max_tokens, temperature, top_k = options["max_tokens"], options["temperature"], options["top_k"]
        if max_tokens < 1 or top_k < 1 or not 0 <= temperature <= 100:
            raise RequestError(f"max_tokens {max_tokens}, top_k {top_k}, temperature {temperature} are out of range")
        wishes = Wishes(temperature=float(temperature), top_k=top_k)
        return self.tokenizer.encode(prompt).ids or [self.end], max_tokens, wishes, options["seed"]

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

        found = compute_of(self.model)(np.zeros((1, 1), np.int64)).shape[-1]
        wanted = self.tokenizer.get_vocab_size()
        return f"{found} values for {wanted} names" if found < wanted else ""
