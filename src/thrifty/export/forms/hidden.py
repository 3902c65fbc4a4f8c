"""Texts in whose words are hidden, the same texts with the likeliest words out.

Shapes: N texts, T tokens, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thrifty.errors import RequestError
from thrifty.export.engines import compute_of
from thrifty.export.forms.form import ROWS_AT_ONCE, Signature, Takes, softmax
from thrifty.spec import BundleInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import nn

    from thrifty.export.engines import Computed

CANDIDATES = 5


class Hidden:
    """Texts with ``[MASK]`` in the place of words to the texts with words there."""

    takes: Takes = "text"
    says = "one text with [MASK] in the place of words"
    options: Sequence[str] = ()
    alone = False

    def __init__(self, info: BundleInfo, model: nn.Module | Computed, tokenizer: Tokenizer | None) -> None:
        assert tokenizer is not None
        self._data, self._compute, self._tokenizer = info.data, compute_of(model), tokenizer
        self.inputs: Signature = {"text": ("BYTES", (-1,))}
        # of each hidden place the likeliest words with their probabilities, as JSON: how many places is up to the text
        self.outputs: Signature = {"filled": ("BYTES", (-1,)), "words": ("BYTES", (-1,))}

    def row(self, raw: str) -> list[int]:
        """Cut a text into token numbers as the model's training texts were, ``[MASK]`` to the mark that hides.

        Raises:
            RequestError: nothing is hidden within the model's length.
        """
        from thrifty.data.texts.word_pieces import MASK, cut

        unicode = raw.encode("utf-8", "replace").decode("utf-8")
        hides = self._data.marks[0]
        # the tokenizer reads a text that spells a mark as text
        parts = [self._tokenizer.encode(part, add_special_tokens=False).ids for part in unicode.split(MASK)]
        first, last = (self._tokenizer.encode("").ids[at] for at in (0, -1))
        inside = [number for part in parts for number in (hides, *part)][1:]
        tokens = cut([first, *inside, last], self._data.shape[0])
        if hides not in tokens:
            raise RequestError(
                f"the text hides no word in its first {self._data.shape[0]} tokens", mend=f"Write {MASK} in its place."
            )
        return tokens

    def answers(self, rows: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        """Tell the hidden words of texts of `row`."""
        import numpy as np

        from thrifty.data.texts.word_pieces import pad

        found = []
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            logits_NTV = self._compute(pad(some, self._data.shape[0]))
            logits_NTV[..., list(self._data.marks)] = -np.inf
            found += [self._told(row, logits_TV) for row, logits_TV in zip(some, logits_NTV, strict=True)]
        return found

    def _told(self, tokens: Sequence[int], logits_TV: NDArray[np.float32]) -> dict[str, Any]:
        hides, filled, words = self._data.marks[0], list(tokens), []
        for place, number in enumerate(tokens):
            if number == hides:
                likely_V = softmax(logits_TV[place])
                numbers = (-likely_V).argsort(kind="stable")[:CANDIDATES].tolist()
                filled[place] = numbers[0]
                words.append({self._tokenizer.id_to_token(each): float(likely_V[each]) for each in numbers})
        return {"filled": self._tokenizer.decode(filled), "words": json.dumps(words, ensure_ascii=False)}

    def described(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The filled text, and the likeliest words of each place with their probabilities."""
        return {**answer, "words": json.loads(answer["words"])}

    def made_up(self) -> list[int]:
        """Return a text of one hidden word."""
        from thrifty.data.texts.word_pieces import MASK

        return self.row(MASK)

    def probe(self) -> str:
        """Answer a text of one hidden word."""
        import numpy as np

        tokens = self.made_up()
        found, wanted = self._compute(np.array([tokens])), self._tokenizer.get_vocab_size()
        fits = found.shape == (1, len(tokens), wanted)
        return "" if fits else f"{list(found.shape)} values for {len(tokens)} places of {wanted} words"
