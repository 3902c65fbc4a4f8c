"""Who may ask, and for what: the host that was meant, a page of this very origin, and for actions the token.

A page of somebody else's, open in the same browser, can send requests here. It cannot read this origin's answers, nor
know the token, and the browser says where a request comes from. A name that is made to point here (DNS rebinding) shows
in ``Host``.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from thrifty.errors import RequestError
from thrifty.serve.server import is_loopback

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

TOKEN_HEADER = "x-thrifty-token"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# plotly writes rules into a style sheet of its own, so styles cannot be held to files
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data:; frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def new_token() -> str:
    """Make what lets its holder act: 192 random bits."""
    return secrets.token_urlsafe(24)


class Guard:
    """Lets requests through to an application that are meant for it; answers carry the policy of all pages.

    Args:
        app: that answers.
        host: address that is listened on.
        token: that actions need; every request but GET and HEAD is one.
    """

    def __init__(self, app: App, *, host: str, token: str) -> None:
        self._app, self._host, self._token = app, host, token

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            self._check(scope["method"], Headers(scope=scope))
        except RequestError as error:
            await PlainTextResponse(str(error), error.status)(scope, receive, _with_headers(send))
            return
        await self._app(scope, receive, _with_headers(send))

    def _check(self, method: str, headers: Headers) -> None:
        """Refuse what was not meant.

        Raises:
            RequestError: 403.
        """
        host = headers.get("host", "")
        if not is_ours(host, self._host):
            raise RequestError(
                f"these pages are not at '{host}'", status=403, mend="Open the address that was printed."
            )
        origin = headers.get("origin")
        if (origin is not None and origin != f"http://{host}") or _is_foreign(headers):
            raise RequestError("a page of another origin asked", status=403)
        if method in ("GET", "HEAD"):
            return
        if origin is None:
            raise RequestError("an action says no origin", status=403)
        if not secrets.compare_digest(headers.get(TOKEN_HEADER, "").encode(), self._token.encode()):
            raise RequestError(
                "this page may look and not act",
                status=403,
                mend="Open the address that thrifty ui printed; its last part is new each time.",
            )


def is_ours(said: str, listening: str) -> bool:
    """Say whether a ``Host`` is a name of this machine, whatever its port: that of a tunnel is another.

    Args:
        said: the header.
        listening: the address that is listened on.

    >>> is_ours("localhost:8600", "127.0.0.1"), is_ours("evil.example:8600", "127.0.0.1"), is_ours("[::1]", "::1")
    (True, False, True)
    >>> is_ours("192.168.0.7:8600", "127.0.0.1"), is_ours("192.168.0.7:8600", "0.0.0.0")
    (False, True)
    """
    name = said.rpartition(":")[0] if said.rpartition(":")[2].isdigit() else said
    name = name.removeprefix("[").removesuffix("]").lower()
    if name in _LOOPBACK or name == listening.lower():
        return True
    if is_loopback(listening):
        return False
    # nobody can make an address of numbers point elsewhere
    return _address(name) is not None or name in {socket.gethostname().lower(), socket.getfqdn().lower()}


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_foreign(headers: Headers) -> bool:
    """Whether the browser says that another site's page asks, and not its user by following a link."""
    site = headers.get("sec-fetch-site", "none")
    return site not in ("none", "same-origin") and headers.get("sec-fetch-mode", "navigate") != "navigate"


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in message["headers"]}
            more = [(name.encode(), text.encode()) for name, text in _HEADERS.items() if name.encode() not in own]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sending
