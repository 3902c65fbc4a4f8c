"""API keys: who may ask, told by a header; compared in a time that says nothing of them."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from thrifty.errors import JobError, RequestError

VARIABLE = "THRIFTY_API_KEYS"
LEAST_CHARACTERS = 16
_MAX_FILE_BYTES = 2**20
# asked by what watches over a server, and telling nothing but that it lives
OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})


class Keys:
    """The keys that a server takes; it holds their hashes alone.

    Args:
        keys: at least one, of 16 characters or more.

    Raises:
        JobError: there is none, or one is too short to be a secret.

    >>> Keys(["0123456789abcdef"]).allow({b"authorization": b"Bearer 0123456789abcdef"})
    True
    """

    def __init__(self, keys: Iterable[str]) -> None:
        given = list(keys)
        short = next((number for number, key in enumerate(given, 1) if len(key) < LEAST_CHARACTERS), None)
        if short is not None:
            raise JobError(
                f"API key {short} has under {LEAST_CHARACTERS} characters", mend="Make one: openssl rand -hex 16"
            )
        if not given:
            raise JobError("there is no API key", mend="Write one to a line.")
        self._hashes = [hashlib.sha256(key.encode()).digest() for key in given]

    def allow(self, headers: Mapping[bytes, bytes]) -> bool:
        """Say whether ``Authorization: Bearer KEY`` or ``X-API-Key: KEY`` names one of them."""
        given = headers.get(b"x-api-key")
        if given is None:
            kind, _, rest = headers.get(b"authorization", b"").partition(b" ")
            given = rest.strip() if kind.lower() == b"bearer" else b""
        found = hashlib.sha256(given).digest()
        # all of them are compared, so that the time does not tell which comes near
        return sum(hmac.compare_digest(found, each) for each in self._hashes) > 0

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse who names none of them.

        Raises:
            RequestError: 401.
        """
        if not self.allow(headers):
            raise RequestError("Unauthorized: an API key is needed", status=401)


def read_keys(path: Path | None) -> Keys | None:
    """Read keys from a file, one a line, ``#`` before what is none, and from ``$THRIFTY_API_KEYS``, with commas.

    Returns:
        None when neither is there: all may ask.

    Raises:
        JobError: the file cannot be read, or a key is no secret.
    """
    found = [key.strip() for key in os.environ.get(VARIABLE, "").split(",") if key.strip()]
    if path is not None:
        try:
            if path.stat().st_size > _MAX_FILE_BYTES:
                raise JobError(f"the file of API keys '{path}' is over {_MAX_FILE_BYTES} bytes")
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise JobError(f"the API keys in '{path}' cannot be read: {error}") from None
        found += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return Keys(found) if found or path is not None else None
