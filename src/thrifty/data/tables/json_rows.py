"""Rows of JSONL as cells: an object on each line, whose keys are columns; a key that it lacks is an empty cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from thrifty.data.cells import Problem, is_unicode, named_once, parse_object
from thrifty.errors import DataError

# numbers stay as they are written
_DECODE = json.JSONDecoder(object_pairs_hook=named_once, parse_int=str, parse_float=str, parse_constant=str).decode
_NESTED: dict[type, str] = {list: "a list", dict: "an object"}
MOST_KEYS = 1000


def find_keys(name: str, head: bytes) -> tuple[str, ...]:
    """Name the columns of a file: the keys of the rows at its beginning, in the order in which they come.

    Args:
        name: of the file, for errors.
        head: whole lines at its beginning.

    Raises:
        DataError: there are no rows with two keys or more, or too many keys; or most rows hold a list or an object
            under one.

    >>> find_keys("a.jsonl", b'{"age": 31, "job": "cook"}\\n{"age": 20, "label": null}')
    ('age', 'job', 'label')
    """
    keys: dict[str, None] = {}
    nested: dict[str, list[tuple[int, str]]] = {}
    rows = 0
    for line, content in enumerate(head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").split("\n"), 1):
        row = parse_object(content, _DECODE) if content.strip() else ()
        if isinstance(row, tuple):
            continue
        rows += 1
        keys |= dict.fromkeys(row)
        if found := _nested(row):
            nested.setdefault(found[0], []).append((line, found[1]))
    for key, lines in nested.items():
        if len(lines) > rows / 2:
            raise DataError(
                f"line {lines[0][0]} of '{name}' holds {lines[0][1]} under '{key}', as most do, and a cell of a table "
                "is one value",
                mend="Write each of its parts under a key of its own, or leave that key out.",
            )
    if len(keys) < 2:
        held = f"have the one key '{next(iter(keys))}'" if keys else "hold no key"
        raise DataError(f"the rows of '{name}' {held}", mend="A table has rows of several columns.")
    if len(keys) > MOST_KEYS:
        raise DataError(f"'{name}' has {len(keys):,} keys, and {MOST_KEYS:,} are the most", mend="Leave some out.")
    return tuple(keys)


def read_row(content: str, names: Sequence[str]) -> list[str | None] | Problem:
    """Read a line as the cells of some columns, or say what is wrong with it.

    >>> read_row('{"b": true, "a": 1.50}', ["a", "b", "c"]), read_row('{"a": [1]}', ["a"])
    (['1.50', 'true', None], ('nested cell', ": 'a' holds a list"))
    """
    row = parse_object(content, _DECODE)
    if isinstance(row, tuple):
        return row
    if nested := _nested(row):
        return "nested cell", f": '{nested[0]}' holds {nested[1]}"
    if len(row.keys() & set(names)) < len(row):
        return "unknown key", f": '{next(key for key in row if key not in names)}', which no row of the beginning has"
    cells = [_text(row.get(name)) for name in names]
    # an escape may spell what no text file holds
    if "\\u" in content:
        if not all(is_unicode(cell) for cell in cells if cell):
            return "not UTF-8", ": half of a surrogate pair"
        if any("\0" in cell for cell in cells if cell):
            return "binary", ": NUL in the row"
    return cells


def _nested(row: Mapping[str, Any]) -> tuple[str, str] | None:
    return next(((key, _NESTED[type(cell)]) for key, cell in row.items() if type(cell) in _NESTED), None)


def _text(cell: str | bool | None) -> str | None:
    return str(cell).lower() if isinstance(cell, bool) else cell
