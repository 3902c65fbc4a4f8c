"""The server's log: a line for each request, with its id, for people or as JSON for machines."""

from __future__ import annotations

import datetime
import itertools
import logging
import re
import secrets
import sys
from typing import Literal

import msgspec

LogFormat = Literal["text", "json"]
_ID = re.compile(rb"[!-~]{1,128}")
# an id names a request among those of all servers, and is no secret
_PROCESS, _NUMBERS = secrets.token_hex(4), itertools.count(secrets.randbits(32))
_FIELDS = ("id", "method", "path", "status", "seconds", "client")

requests = logging.getLogger("thrifty.serve.requests")


class JsonLines(logging.Formatter):
    """A record as one JSON object on a line: time, level, logger, message, and the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        """Write it."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line |= {field: getattr(record, field) for field in _FIELDS if hasattr(record, field)}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def set_up(form: LogFormat) -> None:
    """Have all of thrifty's log, each request in it, written to stderr in this form."""
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else plain)
    logger = logging.getLogger("thrifty")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def log_request(request_id: str, method: str, path: str, status: int, seconds: float, client: str) -> None:
    """Write the line of a request; 499 is a client that left."""
    requests.info(
        "%s %s %d in %.1f ms, id %s",
        method, path, status, seconds * 1000, request_id,
        extra={
            "id": request_id, "method": method, "path": path, "status": status, "seconds": round(seconds, 6),
            "client": client,
        },
    )  # fmt: skip


def id_of(given: bytes | None) -> str:
    """Return the id that a client gave its request, or a new one where it gave none that can be written down.

    >>> id_of(b"abc-1"), len(id_of(b"a b"))
    ('abc-1', 16)
    """
    if given is not None and _ID.fullmatch(given):
        return given.decode("ascii")
    return f"{_PROCESS}{next(_NUMBERS) % 2**32:08x}"
