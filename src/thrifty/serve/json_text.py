"""JSON text to values, with what is wrong with a text said in rapidjson's words, as both protocols' servers say it."""

from __future__ import annotations

import json
from typing import Any

import msgspec

_decoder = msgspec.json.Decoder()
_lenient = json.JSONDecoder()
_BLANK = " \t\n\r"

# Python's words for a fault to those of rapidjson/error/en.h; a comma's depend on what it stands in
_WORDS = {
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
    "Invalid control character at": "Invalid encoding in string.",
    "Extra data": "The document root must not be followed by other values.",
}
_COMMA = {
    "{": "Missing a comma or } after an object member.",
    "[": "Missing a comma or ] after an array element.",
}
_MOST_LOOKED_AT = 2**20
_DEEP = "Terminate parsing due to nesting that is too deep."


class JsonError(ValueError):
    """A text is no JSON; ``what`` says it in rapidjson's words, ``offset`` at which byte."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(what)
        self.what, self.offset = what, offset


def decode(body: bytes | memoryview, *, lenient: bool = False) -> Any:
    """Decode JSON as the standard has it: no NaN, nothing after it, at most about a thousand levels.

    Args:
        body: the text, in UTF-8.
        lenient: as TensorFlow Serving does: NaN and Infinity are numbers, what follows the value is ignored.

    Raises:
        JsonError: it is none.
    """
    try:
        return _decoder.decode(body)
    except RecursionError:
        raise JsonError(_DEEP, 0) from None
    except (msgspec.MsgspecError, ValueError):
        return _decoded_slowly(bytes(body), lenient=lenient)


def _decoded_slowly(body: bytes, *, lenient: bool) -> Any:
    """Decode by Python's own decoder, which is slow, may take NaN, and says well what is wrong."""
    text = _text(body)
    begin = len(text) - len(text.lstrip(_BLANK))
    if begin == len(text):
        raise JsonError("The document is empty.", len(body))
    try:
        if lenient:
            return _lenient.raw_decode(text, begin)[0]
        json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise JsonError(_DEEP, 0) from None
    except json.JSONDecodeError as error:
        raise _fault(error) from None
    except ValueError:  # NaN, or digits without end
        raise JsonError("Invalid value.", 0) from None
    # msgspec is stricter in what Python's decoder lets through, such as a control character
    raise JsonError("Invalid value.", 0)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        inside = b'"' in body[: error.start]
        raise JsonError("Invalid encoding in string." if inside else "Invalid value.", error.start) from None


def _fault(error: json.JSONDecodeError) -> JsonError:
    """Say what Python's decoder found in rapidjson's words."""
    before = error.doc[: error.pos]
    what = _WORDS.get(error.msg, "Invalid value.")
    # which bracket is open takes a look at each character
    if error.msg == "Expecting ',' delimiter" and error.pos <= _MOST_LOOKED_AT:
        what = _COMMA[_holder(before)]
    return JsonError(what, len(before.encode("utf-8", "surrogatepass")))


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _holder(text: str) -> str:
    """The bracket that is open at the end of a text that is right so far."""
    open_at: list[str] = []
    inside = escaped = False
    for each in text:
        if inside:
            escaped, inside = each == "\\" and not escaped, each != '"' or escaped
        elif each == '"':
            inside = True
        elif each in "{[":
            open_at.append(each)
        elif each in "}]":
            open_at.pop()
    return open_at[-1]
