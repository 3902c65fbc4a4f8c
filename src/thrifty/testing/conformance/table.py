"""A row of a conformance table, what asks a server for it, and what judges its answer."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

Outcome = Literal["passed", "failed", "not applicable"]
_SHOWN = 300


@dataclass(frozen=True)
class Answer:
    """What a server answered: status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


# what is wrong with an answer, or an empty text
Check = Callable[[Answer], str]


@dataclass(frozen=True)
class Row:
    """A request and what must come of it.

    Attributes:
        name: of what the row shows.
        method, path, body, headers: the request; a body that is no bytes is sent as JSON.
        status: one or several, each of which is right.
        check: of the answer, beyond its status.
        skip: why the row does not apply to this server; then nothing is asked.
    """

    name: str
    method: str = "GET"
    path: str = "/"
    body: Any = None
    status: tuple[int, ...] = (200,)
    check: Check = lambda answer: ""
    headers: Mapping[str, str] = field(default_factory=dict)
    skip: str = ""


@dataclass(frozen=True)
class Result:
    """How a row went; ``why`` says what was wrong, or why it does not apply."""

    name: str
    outcome: Outcome
    why: str = ""


class Server:
    """A server that is asked; one connection a request.

    Args:
        url: its base, ``http://host:port`` with a path before the protocol's where there is one.
        seconds: for one answer.
    """

    def __init__(self, url: str, *, seconds: float = 30.0) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connect = lambda: kind(parts.hostname or "", parts.port, timeout=seconds)
        self._root = parts.path.rstrip("/")

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request and read its answer.

        Raises:
            OSError, http.client.HTTPException: there is no server, or it answers no HTTP.
        """
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        said = {"Content-Type": "application/json"} if content is not None else {}
        connection = self._connect()
        try:
            connection.request(method, self._root + path, content, {**said, **(headers or {})})
            found = connection.getresponse()
            return Answer(found.status, {key.lower(): value for key, value in found.getheaders()}, found.read())
        finally:
            connection.close()


def judge(server: Server, rows: Iterable[Row]) -> list[Result]:
    """Ask for every row that applies."""
    return [_judged(server, row) for row in rows]


def _judged(server: Server, row: Row) -> Result:
    if row.skip:
        return Result(row.name, "not applicable", row.skip)
    try:
        answer = server.ask(row.method, row.path, row.body, row.headers)
    except (OSError, http.client.HTTPException) as error:
        return Result(row.name, "failed", f"{row.method} {row.path}: {type(error).__name__}: {error}")
    found = answer.body[:_SHOWN].decode("utf-8", "replace")
    if answer.status not in row.status:
        wanted = " or ".join(map(str, row.status))
        return Result(row.name, "failed", f"{row.method} {row.path}: status {answer.status}, not {wanted}: {found}")
    try:
        wrong = row.check(answer)
    except (TypeError, KeyError, IndexError, AttributeError, ValueError):
        wrong = "the answer has another shape"
    return (
        Result(row.name, "failed", f"{row.method} {row.path}: {wrong}: {found}")
        if wrong
        else Result(row.name, "passed")
    )


def says(text: str, *, whole: bool = True) -> Check:
    """Check for ``{"error": text}``, or for a text with this in it."""

    def check(answer: Answer) -> str:
        said = error_of(answer)
        if said is None:
            return 'the body is not {"error": a text}'
        right = said == text if whole else text in said
        return "" if right else f"the error is not {text!r}"

    return check


def any_error(answer: Answer) -> str:
    """Check for ``{"error": a text}``."""
    return "" if error_of(answer) else 'the body is not {"error": a text}'


def error_of(answer: Answer) -> str | None:
    """The text of an error; None where there is none."""
    value = answer.value
    said = value.get("error") if isinstance(value, dict) else None
    return said if isinstance(said, str) else None


def holds(what: str, test: Callable[[Any], bool]) -> Check:
    """Check the JSON of an answer: ``what`` must be true of it."""
    return lambda answer: "" if test(answer.value) else f"not so: {what}"
