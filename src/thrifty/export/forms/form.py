"""What a form is: how a bundle takes raw input, and what it answers with.

Shapes: N rows, K labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from thrifty.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROWS_AT_ONCE = 256
Takes = Literal["bytes", "text", "row"]
# Tensors by name: the datatype that the Open Inference Protocol gives it, and its shape, -1 for the number of rows.
Signature = Mapping[str, tuple[str, tuple[int, ...]]]


class Form(Protocol):
    """What a bundle takes and answers, one row an input.

    Attributes:
        takes: raw input is ``bytes`` of a file, ``text``, or a ``row``: cells by the names of their columns, or the
            same as JSON.
        says: what raw input is, for people.
        options: that an input may have beside it, by name.
        alone: rows are computed one by one.
        inputs: of which a request has one, the first is raw; where it is a ``row`` the others are its columns, of
            which a request may have several.
        outputs: of each row.
    """

    takes: Takes
    says: str
    options: Sequence[str]
    alone: bool
    inputs: Signature
    outputs: Signature

    def row(self, *raw: Any, **options: Any) -> Any:
        """Make a row of one raw input; holds no state, and may be called from any thread.

        Raises:
            DataError: the input cannot be read.
            RequestError: an option is out of range.
        """

    def answers(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Compute rows: values by the names of ``outputs``."""

    def described(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Say an answer to people."""

    def made_up(self) -> Any:
        """Return a row to warm up with."""

    def probe(self) -> str:
        """Have the model answer once; say what is wrong with the answer, or return an empty string."""


_TYPES: dict[Takes, type | tuple[type, ...]] = {"bytes": bytes, "text": str, "row": (str, Mapping)}


def check_raw(form: Form, name: str, raw: Any, options: Mapping[str, Any]) -> None:
    """Check that a raw input and its options are of the types that a form takes.

    Raises:
        RequestError: they are not.
    """
    unknown = [key for key in options if key not in form.options]
    if unknown or not isinstance(raw, _TYPES[form.takes]):
        got = f"the option '{unknown[0]}'" if unknown else type(raw).__name__
        raise RequestError(f"bundle '{name}' takes {form.says}, not {got}")


def labelled(labels: Sequence[str]) -> Signature:
    """Return the outputs of a classifier."""
    return {"probabilities": ("FP32", (-1, len(labels))), "label": ("BYTES", (-1,))}


def named(labels: Sequence[str], probabilities: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Return an answer for each row of float32 [N, K]."""
    return [{"probabilities": row, "label": labels[int(row.argmax())]} for row in probabilities]


def described(labels: Sequence[str], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Name the probabilities of an answer: ``label``, ``probability``, ``probabilities`` by label."""
    values = answer["probabilities"].tolist()
    return {
        "label": answer["label"],
        "probability": max(values),
        "probabilities": dict(zip(labels, values, strict=True)),
    }


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities along the last dimension.

    >>> import numpy as np
    >>> softmax(np.zeros((1, 4), np.float32)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    import numpy as np

    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return found


def misnamed(found: NDArray[np.float32], wanted: int) -> str:
    """Say that a row of logits does not fit the names there are, or return an empty string."""
    return "" if found.shape == (1, wanted) else f"{found.shape[-1]} values for {wanted} names"
