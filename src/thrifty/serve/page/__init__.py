"""The page at ``/``: each model's card, a form to try it, and its bill so far, which refreshes itself.

What is loaded first is the same for everyone and says nothing of any model; the cards and the bill are JSON that a key
is asked for where the server has keys. There is no inline script or style, and nothing is fetched from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files

from thrifty.errors import RequestError
from thrifty.serve.http import Reply, Work, json_reply
from thrifty.serve.metrics import Metrics
from thrifty.serve.models import Models
from thrifty.serve.page.cards import cards
from thrifty.serve.page.tiles import bills

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    b"media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
)
_HTML, _CSS, _SCRIPT = b"text/html; charset=utf-8", b"text/css; charset=utf-8", b"text/javascript; charset=utf-8"
# by path: the file of the package, and what it is; the look is that of a run's page
_ASSETS = {
    "/": ("serve/page/page.html", _HTML),
    "/page/report.css": ("report/page.css", _CSS),
    "/page/page.css": ("serve/page/page.css", _CSS),
    "/page/page.js": ("serve/page/page.js", _SCRIPT),
}
_TOLD: dict[str, Callable[[Models, Metrics], object]] = {
    "/page/models": lambda models, metrics: cards(models),
    "/page/bill": lambda models, metrics: bills(models, metrics),
}


def owns(path: str, headers: Mapping[bytes, bytes]) -> bool:
    """Say whether a request is the page's; at ``/`` those of browsers alone are, which ask for HTML."""
    if path == "/":
        return b"text/html" in headers.get(b"accept", b"")
    return path in _ASSETS or path in _TOLD


def is_open(path: str, headers: Mapping[bytes, bytes]) -> bool:
    """Say whether a request is for what is told without a key, since it is the same on every server."""
    return path in _ASSETS and owns(path, headers)


def look_up(method: str, path: str, models: Models, metrics: Metrics) -> Reply | Work:
    """Answer a request of the page's.

    Raises:
        RequestError: 405, it is no GET.
    """
    if method not in ("GET", "HEAD"):
        raise RequestError("Method Not Allowed", status=405)
    if path in _ASSETS:
        name, kind = _ASSETS[path]
        return Reply(200, _file(name), kind, headers=_HEADERS)
    tell = _TOLD[path]
    # sizes of files, and at first what this machine costs, are looked up beside the event loop
    return Work(lambda body: replace(json_reply(tell(models, metrics)), headers=((b"cache-control", b"no-store"),)))


@cache
def _file(name: str) -> bytes:
    return files("thrifty").joinpath(name).read_bytes()
