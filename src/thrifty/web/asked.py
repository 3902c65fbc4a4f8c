"""What a page's script asks in the body of a request: a small JSON object, or a refusal that says what is wrong."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from thrifty.errors import RequestError

MOST_BYTES = 1 << 14


async def read_asked(request: Request) -> dict[str, Any]:
    """Read the body of an action.

    Raises:
        RequestError: it is no JSON object, or too large.
    """
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise RequestError("an action is asked for in JSON", status=415)
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise RequestError(f"more than {MOST_BYTES:,} bytes are no action", status=413)
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError("the body is no JSON") from None
    if not isinstance(asked, dict):
        raise RequestError("the body is no JSON object")
    return asked


def text_of(asked: dict[str, Any], name: str) -> str:
    """Return a text that is asked for; empty when left out.

    Raises:
        RequestError: it is no text.
    """
    value = asked.get(name, "")
    if not isinstance(value, str):
        raise RequestError(f"'{name}' must be a text, got {type(value).__name__}")
    return value.strip()
