"""The page of served models: asks a thrifty server that runs somewhere what it serves, and what that took so far."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from thrifty.errors import RequestError
from thrifty.report.words import words_of
from thrifty.web.asked import read_asked, text_of
from thrifty.web.render import page
from thrifty.web.site import Site

USUAL = "http://127.0.0.1:8501"
_PATIENCE_SECONDS = 3.0
_MOST_BYTES = 4 << 20
# levels of an answer in which texts are looked for
_DEEP = 8
# what a server tells of itself to its own page
_PATHS = {"cards": "/page/models", "bill": "/page/bill"}


def show(site: Site, request: Request) -> Response:
    """Show the form that asks a server."""
    return page("served.html", here="served", title="Served models", usual=USUAL)


async def ask(site: Site, request: Request) -> Response:
    """Ask the server at an ``address`` for its models and their bills."""
    address = text_of(await read_asked(request), "address") or USUAL
    told = await run_in_threadpool(look_at, address)
    return JSONResponse({**told, "words": words_of(_texts(told))})


def _texts(told: Any, deep: int = _DEEP) -> Iterator[str]:
    """Every text that a server says, of which a page says some in its own language; who answers may say anything."""
    if isinstance(told, str):
        yield told
    elif deep and isinstance(told, dict | list):
        for each in told.values() if isinstance(told, dict) else told:
            yield from _texts(each, deep - 1)


def look_at(address: str) -> dict[str, Any]:
    """Ask a server what it serves.

    Args:
        address: such as ``http://127.0.0.1:8501``.

    Raises:
        RequestError: it is no address, or who answers there is no server of thrifty's.
    """
    parts = urlsplit(address if "://" in address else f"http://{address}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise RequestError(f"'{address}' is no address of a server", mend=f"Write it like {USUAL}.")
    try:
        port = parts.port
    except ValueError:
        raise RequestError(f"'{address}' has no port that there is", mend=f"Write it like {USUAL}.") from None
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return {
        name: _get(kind(parts.hostname, port, timeout=_PATIENCE_SECONDS), path, address)
        for name, path in _PATHS.items()
    }


def _get(connection: http.client.HTTPConnection, path: str, address: str) -> Any:
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        reply = connection.getresponse()
        body = reply.read(_MOST_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        raise RequestError(
            f"nobody answers at {address} ({error or type(error).__name__})",
            status=502,
            mend="Start it: thrifty serve RUN.",
        ) from None
    finally:
        connection.close()
    if reply.status == 401:
        raise RequestError(
            f"the server at {address} has keys", status=502, mend="Open its own page, which asks for one."
        )
    # another place that it sends us to was not asked for
    if reply.status != 200 or len(body) > _MOST_BYTES:
        raise RequestError(f"who answers at {address} is no server of thrifty's (status {reply.status})", status=502)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(f"who answers at {address} is no server of thrifty's", status=502) from None
