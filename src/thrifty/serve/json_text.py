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
_DEEP = "Terminate parsing due to nesting that is too deep."


class JsonError(ValueError):
    """A text is no JSON; ``what`` says it in rapidjson's words, ``offset`` at which byte."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(what)
        self.what, self.offset = what, offset


def decode(body: bytes | memoryview) -> Any:
    """Decode JSON as the standard has it: no NaN, nothing after it, at most about a thousand levels.

    Raises:
        JsonError: it is none.
    """
    try:
        return _decoder.decode(body)
    except RecursionError:
        raise JsonError(_DEEP, 0) from None
    except (msgspec.MsgspecError, ValueError):
        raise _fault(bytes(body)) from None


def decode_leniently(body: bytes) -> Any:
    """Decode JSON as TensorFlow Serving does: NaN and Infinity are numbers, what follows the value is ignored.

    Raises:
        JsonError: it is none.
    """
    try:
        return _decoder.decode(body)
    except RecursionError:
        raise JsonError(_DEEP, 0) from None
    except (msgspec.MsgspecError, ValueError):
        text = _text(body)
        try:
            return _lenient.raw_decode(text, _first(text))[0]
        except RecursionError:
            raise JsonError(_DEEP, 0) from None
        except ValueError:
            raise _fault(body) from None


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        inside = b'"' in body[: error.start]
        raise JsonError("Invalid encoding in string." if inside else "Invalid value.", error.start) from None


def _first(text: str) -> int:
    return len(text) - len(text.lstrip(_BLANK))


def _fault(body: bytes) -> JsonError:
    """Find what is wrong by Python's own decoder, which is slow and says it well."""
    try:
        text = _text(body)
        if not text.strip(_BLANK):
            return JsonError("The document is empty.", len(body))
        json.loads(text, parse_constant=_no_constant)
    except JsonError as fault:
        return fault
    except RecursionError:
        return JsonError(_DEEP, 0)
    except json.JSONDecodeError as error:
        what = _WORDS.get(error.msg, "Invalid value.")
        if error.msg == "Expecting ',' delimiter":
            what = _COMMA[_holder(error.doc[: error.pos])]
        return JsonError(what, len(error.doc[: error.pos].encode("utf-8", "surrogatepass")))
    except ValueError:  # NaN, or digits without end
        return JsonError("Invalid value.", 0)
    # msgspec is stricter in what Python's decoder lets through, such as a control character
    return JsonError("Invalid value.", 0)


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
