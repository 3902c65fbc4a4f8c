"""File names that say what is in a file: patterns such as ``{label}_{speaker}_{index}``, and which values are meant."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

_FIELD = re.compile(r"\{([^{}]*)\}")


def check_pattern(pattern: str) -> str:
    """Return a pattern as it is, once it can be meant.

    Raises:
        ValueError: it names no field, one twice, or two with nothing between them.
    """
    fields = fields_of(pattern)
    rest = _FIELD.sub("\0", pattern)
    if not fields:
        raise ValueError(
            f"a pattern names fields in braces, such as '{{label}}_{{speaker}}_{{index}}', got {pattern!r}"
        )
    if "{" in rest or "}" in rest:
        raise ValueError(f"a brace is left open or closed in {pattern!r}")
    for field in fields:
        if not field.isidentifier():
            raise ValueError(f"a field is named by letters, digits and '_', got {field!r} in {pattern!r}")
        if fields.count(field) > 1:
            raise ValueError(f"field {field!r} comes twice in {pattern!r}")
    if "\0\0" in rest:
        raise ValueError(f"two fields need something between them in {pattern!r}")
    return pattern


def fields_of(pattern: str) -> tuple[str, ...]:
    """Return the fields of a pattern, in order.

    >>> fields_of("{label}_{speaker}_{index}")
    ('label', 'speaker', 'index')
    """
    return tuple(_FIELD.findall(pattern))


def read_name(pattern: str, name: str) -> dict[str, str] | None:
    """Read the fields out of a relative file name without its suffix; None where it does not fit.

    A pattern without ``/`` is of the file's own name, whatever folder it lies in.

    >>> read_name("{label}_{speaker}_{index}", "recordings/7_jackson_32.wav")
    {'label': '7', 'speaker': 'jackson', 'index': '32'}
    >>> read_name("{label}_{speaker}_{index}", "7-jackson.wav")
    """
    folder, slash, own = name.rpartition("/")
    stem = own.rpartition(".")[0] or own
    found = _expression(pattern).fullmatch(f"{folder}{slash}{stem}" if "/" in pattern else stem)
    return found.groupdict() if found else None


@functools.cache
def _expression(pattern: str) -> re.Pattern[str]:
    parts = _FIELD.split(pattern)
    # literal text and names of fields take turns; a field ends where the next literal first comes
    return re.compile("".join(f"(?P<{part}>[^/]+?)" if at % 2 else re.escape(part) for at, part in enumerate(parts)))


def _listed(value: Any) -> Any:
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(str(each) if isinstance(each, int) and not isinstance(each, bool) else each for each in values)


_Value = Annotated[str, Field(min_length=1, max_length=200)]
_OneOrMore = _Value | int | Annotated[list[_Value | int], Field(min_length=1)]
Values = Annotated[tuple[_Value, ...], BeforeValidator(_listed, json_schema_input_type=_OneOrMore), Field(min_length=1)]
Rule = dict[str, Values]
Pattern = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_pattern)]


def fits(rule: Rule, fields: dict[str, str]) -> bool:
    """Say whether a file's fields have the values that a rule asks for; ``0-4`` stands for whole numbers.

    >>> fits({"index": ("0-4",)}, {"index": "3"}), fits({"speaker": ("theo", "lucas")}, {"speaker": "george"})
    (True, False)
    """
    return all(_is_one(fields[field], values) for field, values in rule.items())


def _is_one(found: str, values: Iterable[str]) -> bool:
    if found in values:
        return True
    ranges = (re.fullmatch(r"(\d+)-(\d+)", value) for value in values)
    return found.isdecimal() and any(each and int(each[1]) <= int(found) <= int(each[2]) for each in ranges)
