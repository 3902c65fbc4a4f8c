"""Texts in, labels out.

Shapes: N texts, T tokens, K labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thrifty.export.engines import compute_of
from thrifty.export.forms.form import ROWS_AT_ONCE, Signature, Takes, described, labelled, misnamed, named, softmax
from thrifty.spec import BundleInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import nn

    from thrifty.export.engines import Computed


class Texts:
    """Texts to labels."""

    takes: Takes = "text"
    says = "one text"
    options: Sequence[str] = ()
    alone = False

    def __init__(self, info: BundleInfo, model: nn.Module | Computed, tokenizer: Tokenizer | None) -> None:
        assert tokenizer is not None
        self._data, self._compute, self._tokenizer = info.data, compute_of(model), tokenizer
        self.inputs: Signature = {"text": ("BYTES", (-1,))}
        self.outputs = labelled(info.data.labels)

    def row(self, raw: str) -> list[int]:
        """Cut a text into token numbers as the model's training texts were: marked, and cut to its length.

        A tab stands between the two texts of a pair.
        """
        from thrifty.data.texts.word_pieces import cut, paired

        # half of a surrogate pair, which JSON can spell, has no UTF-8
        unicode = raw.encode("utf-8", "replace").decode("utf-8")
        pair = paired(unicode)
        encoding = self._tokenizer.encode(*pair) if isinstance(pair, tuple) else self._tokenizer.encode(pair)
        return cut(encoding.ids, self._data.shape[0])

    def logits(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the logits of each label for each text: token numbers of `row` to float32 [N, K].

        Texts of like length are computed together; rows do not know each other.
        """
        import numpy as np

        from thrifty.data.texts.word_pieces import pad

        answers = np.zeros((len(tokens), len(self._data.labels)), dtype=np.float32)
        order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
        for start in range(0, len(order), ROWS_AT_ONCE):
            rows = order[start : start + ROWS_AT_ONCE]
            answers[rows] = self._compute(pad([tokens[row] for row in rows], self._data.shape[0]))
        return answers

    def probabilities(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the probability of each label for each text: token numbers of `row` to float32 [N, K]."""
        return softmax(self.logits(tokens))

    def answers(self, rows: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        """Label texts of `row`."""
        return named(self._data.labels, self.probabilities(rows))

    def described(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Name the label and all probabilities."""
        return described(self._data.labels, answer)

    def made_up(self) -> list[int]:
        """Return the tokens of a letter."""
        return self.row("a")

    def probe(self) -> str:
        """Answer a text with the last token of the vocabulary."""
        import numpy as np

        tokens = [*self.row(""), self._tokenizer.get_vocab_size() - 1]
        return misnamed(self._compute(np.array([tokens])), len(self._data.labels))
