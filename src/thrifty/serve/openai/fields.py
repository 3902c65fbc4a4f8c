"""Fields of a request's JSON object, taken one by one and checked, with OpenAI's words for what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from thrifty.errors import RequestError

_TYPES = {
    bool: "a boolean",
    str: "a string",
    int: "an integer",
    float: "a decimal",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


class FieldError(RequestError):
    """A request that OpenAI's protocol refuses.

    Attributes:
        param: field at fault.
        code: a word for programs.
    """

    def __init__(self, what: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(what, status=status)
        self.param, self.code = param, code


class Fields:
    """The object of a request; each field is taken once, and ``null`` is as none.

    >>> fields = Fields({"n": 2, "stop": None})
    >>> fields.integer("n", 1, 1, 8), fields.integer("seed", 0, 0, 9)
    (2, 0)
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = {name: value for name, value in given.items() if value is not None}

    def take(self, name: str) -> Any:
        """Take a field of any type; None where it is left out."""
        return self._given.pop(name, None)

    def needed(self, name: str) -> Any:
        """Take a field that has to be there."""
        if name not in self._given:
            raise FieldError(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
        return self._given.pop(name)

    def boolean(self, name: str) -> bool:
        """Take a boolean, false where it is left out."""
        value = self._given.pop(name, False)
        if not isinstance(value, bool):
            raise wrong_type(name, "a boolean", value)
        return value

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        """Take a whole number in a range."""
        value = self._given.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(name, "an integer", value)
        return int(_in_range(name, "integer", value, least, most))

    def decimal(self, name: str, default: float, least: float, most: float) -> float:
        """Take a number in a range."""
        value = self._given.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(name, "a decimal", value)
        if not math.isfinite(value):
            raise FieldError(f"Invalid '{name}': not a finite number.", param=name, code="invalid_value")
        return float(_in_range(name, "decimal", value, least, most))

    def text(self, name: str) -> str:
        """Take a text, empty where it is left out."""
        value = self._given.pop(name, "")
        if not isinstance(value, str):
            raise wrong_type(name, "a string", value)
        return value

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """Take a text or several; empty ones are not meant."""
        value = self._given.pop(name, [])
        several = [value] if isinstance(value, str) else value
        if not isinstance(several, list) or not all(isinstance(each, str) for each in several):
            raise wrong_type(name, "a string or an array of strings", value)
        if len(several) > most:
            raise FieldError(
                f"Invalid '{name}': array too long. Expected an array with maximum length {most}, but got an array "
                f"with length {len(several)} instead.",
                param=name,
                code="array_above_max_length",
            )
        return tuple(each for each in several if each)

    def refuse(self, **defaults: Sequence[Any]) -> None:
        """Take fields that change nothing at these values, and are not supported at others."""
        for name, harmless in defaults.items():
            value = self._given.pop(name, None)
            if value is not None and not any(value == each and type(value) is type(each) for each in harmless):
                raise FieldError(
                    f"Unsupported parameter: '{name}' is not supported with this model.",
                    param=name,
                    code="unsupported_parameter",
                )

    def end(self, ignored: Sequence[str]) -> None:
        """Refuse what is left, but for what changes no answer."""
        unknown = next((name for name in self._given if name not in ignored), None)
        if unknown is not None:
            raise FieldError(f"Unrecognized request argument supplied: {unknown[:100]}", param=unknown[:100])


def wrong_type(name: str, expected: str, value: Any) -> FieldError:
    """Say that a field is of another type than it should be."""
    return FieldError(
        f"Invalid type for '{name}': expected {expected}, but got {_TYPES.get(type(value), 'something else')} instead.",
        param=name,
        code="invalid_type",
    )


def _in_range(name: str, kind: str, value: float, least: float, most: float) -> float:
    if value < least:
        raise FieldError(
            f"Invalid '{name}': {kind} below minimum value. Expected a value >= {least}, but got {value} instead.",
            param=name,
            code=f"{kind}_below_min_value",
        )
    if value > most:
        raise FieldError(
            f"Invalid '{name}': {kind} above maximum value. Expected a value <= {most}, but got {value} instead.",
            param=name,
            code=f"{kind}_above_max_value",
        )
    return value
