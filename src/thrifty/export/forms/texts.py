"""Texts in, labels out.

Shapes: N texts, T tokens, K labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thrifty.export.forms.form import ROWS_AT_ONCE, Signature, Takes, described, labelled, misnamed, named
from thrifty.spec import BundleInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import nn


class Texts:
    """Texts to labels."""

    takes: Takes = "text"
    says = "one text"
    options: Sequence[str] = ()
    alone = False

    def __init__(self, info: BundleInfo, model: nn.Module, tokenizer: Tokenizer | None) -> None:
        assert tokenizer is not None
        self._data, self._model, self._tokenizer = info.data, model, tokenizer
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
        import torch

        from thrifty.data.texts.word_pieces import pad

        answers = np.zeros((len(tokens), len(self._data.labels)), dtype=np.float32)
        order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
        with torch.inference_mode():
            for start in range(0, len(order), ROWS_AT_ONCE):
                rows = order[start : start + ROWS_AT_ONCE]
                x_NT = torch.from_numpy(pad([tokens[row] for row in rows], self._data.shape[0]))
                answers[rows] = self._model(x_NT).float().numpy()
        return answers

    def probabilities(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the probability of each label for each text: token numbers of `row` to float32 [N, K]."""
        import torch

        found: NDArray[np.float32] = torch.softmax(torch.from_numpy(self.logits(tokens)), dim=1).numpy()
        return found

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
        import torch

        tokens = [*self.row(""), self._tokenizer.get_vocab_size() - 1]
        return misnamed(self._model(torch.tensor([tokens])), len(self._data.labels))
