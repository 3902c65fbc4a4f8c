"""What a family needs to be exchanged with Hugging Face's transformers: sizes both ways, and which tensor is which."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thrifty.errors import BundleError

MAX_SIZE = 2**20
MAX_LAYERS = 1000
MAX_STAGES = 64

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Pair:
    """A tensor of ours, and what it is made of there.

    Attributes:
        ours: its name in our model.
        theirs: names there; of several, ours is one under the other, in this order.
        rows: of each of several.
        transposed: theirs has inputs before outputs.
        head: it tells the data's answers: where theirs is missing or of other sizes, ours stays as it was drawn.
        boxed: theirs has so many more axes, of one, before the others.
        cut: ours is the first rows of theirs: a table of positions, of which shorter texts read fewer.
        first: key of their config that says which row of theirs is our first; those before it follow it here.
    """

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    transposed: bool = False
    head: bool = False
    boxed: int = 0
    cut: bool = False
    first: str = ""


@dataclass(frozen=True)
class Form:
    """How one ``model_type`` of transformers and one family of ours are each other.

    Attributes:
        family: of ours, as in a `thrifty.spec.ModelPlan`.
        architecture: the class there, for ``architectures`` of a config that is written.
        arguments: of a config, the keyword arguments of our family, those included that the data gives.
        config: of our arguments, what `arguments` reads, and whatever else makes their model compute what ours does;
            another class than ``architecture`` too.
        pairs: of our arguments, every tensor of ours once.
        inner: what names begin with, that is missing where a model was saved without its head: ``transformer.``.
        renamed: endings of older names, and what they are called now.
        spare: patterns (`fnmatch`) of their tensors that ours has no place for and no use of.
    """

    family: str
    architecture: str
    arguments: Callable[[Config], dict[str, Any]]
    config: Callable[[Arguments], dict[str, Any]]
    pairs: Callable[[Arguments], Iterator[Pair]]
    inner: str = ""
    renamed: tuple[tuple[str, str], ...] = ()
    spare: tuple[str, ...] = ()


def layer(ours: str, theirs: str, *, transposed: bool = False) -> Iterator[Pair]:
    """Pair the weight and the bias of a layer; only the weight can be transposed.

    >>> [each.theirs for each in layer("fc", "classifier")]
    [('classifier.weight',), ('classifier.bias',)]
    """
    yield Pair(f"{ours}.weight", (f"{theirs}.weight",), transposed=transposed)
    yield Pair(f"{ours}.bias", (f"{theirs}.bias",))


class Config:
    """The values of a ``config.json``, distrusted: each is asked for with what it may be.

    Args:
        values: of the file.
        place: the file, for errors.
    """

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        self.values, self.place = values, place

    def count(self, key: str, default: int | None = None, *, most: int = MAX_SIZE) -> int:
        """Return a whole number from 1; ``default`` where the file has none.

        Raises:
            BundleError: it is missing, or is something else; as of all that is asked for.
        """
        value = self._get(key, default)
        if type(value) is not int or not 1 <= value <= most:
            raise self._wrong(key, f"a whole number from 1 to {most}")
        return value

    def row(self, key: str, rows: int) -> int:
        """Return the number of one of so many rows, from 0; the first where the file has none."""
        value = self._get(key, 0)
        if type(value) is not int or not 0 <= value < rows:
            raise self._wrong(key, f"a whole number from 0 to {rows - 1}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number over zero."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self._wrong(key, "a number over 0")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Return true or false."""
        value = self._get(key, default)
        if type(value) is not bool:
            raise self._wrong(key, "true or false")
        return value

    def counts(
        self, key: str, default: Sequence[int] | None = None, *, most: int = MAX_SIZE, length: int | None = None
    ) -> tuple[int, ...]:
        """Return whole numbers from 1, a few at most; or ``length`` of them."""
        value = self._get(key, default if default is None else list(default))
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_STAGES or len(value) != (length or len(value)):
            raise self._wrong(key, f"a list of {length or ''} whole numbers".replace("  ", " "))
        if not all(type(each) is int and 1 <= each <= most for each in value):
            raise self._wrong(key, f"a list of whole numbers from 1 to {most}")
        return tuple(value)

    def classes(self) -> int:
        """Return how many classes a classifier has: as many as are named, or two, as transformers has it."""
        names = self._get("id2label", {"0": "", "1": ""})
        if not isinstance(names, dict) or not names:
            raise self._wrong("id2label", "names of classes by number")
        return len(names)

    def only(self, key: str, *allowed: Any) -> Any:
        """Return a value that has to be one of those that ours can be; the first where the file has none."""
        value = self._get(key, allowed[0])
        if not any(type(value) is type(each) and value == each for each in allowed):
            raise self._wrong(key, " or ".join(json.dumps(each) for each in allowed))
        return value

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value

    def _wrong(self, key: str, wanted: str) -> BundleError:
        value = self.values.get(key)
        found = "no" if value is None else json.dumps(value)[:100]
        return BundleError(
            f"'{self.place}' has {found} {key} and ours takes {wanted}",
            mend="Name it with hf:, and transformers' own model is trained as it is.",
        )
