"""Texts in, all of their labels out.

Shapes: N texts, K labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thrifty.export.forms.form import Signature, Takes
from thrifty.export.forms.texts import Texts
from thrifty.spec import BundleInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import nn

    from thrifty.export.engines import Computed

# a label is said where it is likelier than not
SAID_OVER = 0.5


class Tags:
    """Texts to those of the labels that each has."""

    takes: Takes = "text"
    says = "one text"
    options: Sequence[str] = ()
    alone = False

    def __init__(self, info: BundleInfo, model: nn.Module | Computed, tokenizer: Tokenizer | None) -> None:
        self._labels = info.data.labels
        self._texts = Texts(info, model, tokenizer)
        self.inputs = self._texts.inputs
        # the labels as a JSON list: how many there are is up to the text
        self.outputs: Signature = {"probabilities": ("FP32", (-1, len(self._labels))), "labels": ("BYTES", (-1,))}

    def row(self, raw: str) -> list[int]:
        """Cut a text into token numbers as the model's training texts were, as `Texts.row`."""
        return self._texts.row(raw)

    def probabilities(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the probability of each label by itself: token numbers of `row` to float32 [N, K]."""
        import numpy as np

        # the same as 1 / (1 + exp(-x)), which overflows where x is far below 0
        found: NDArray[np.float32] = 0.5 * (1 + np.tanh(0.5 * self._texts.logits(tokens)))
        return found

    def answers(self, rows: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        """Label texts of `row`."""
        return [{"probabilities": row, "labels": self._said(row)} for row in self.probabilities(rows)]

    def _said(self, probabilities: NDArray[np.float32]) -> str:
        said = [label for label, each in zip(self._labels, probabilities, strict=True) if each > SAID_OVER]
        return json.dumps(said, ensure_ascii=False)

    def described(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Name the labels, and the probabilities of all."""
        values = answer["probabilities"].tolist()
        return {"labels": json.loads(answer["labels"]), "probabilities": dict(zip(self._labels, values, strict=True))}

    def made_up(self) -> list[int]:
        """Return the tokens of a letter."""
        return self._texts.made_up()

    def probe(self) -> str:
        """Answer a text with the last token of the vocabulary."""
        return self._texts.probe()
