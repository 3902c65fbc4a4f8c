"""The server's certificate and its key, read and tried before anything listens."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from thrifty.errors import JobError

_PEM = "Both are files in PEM; the key is not locked by a passphrase: openssl pkey -in locked.pem -out key.pem"


@dataclass(frozen=True)
class Certificate:
    """What the server shows who it is by.

    Attributes:
        chain_file: its certificate, then those that lead to one that clients trust.
        key_file: the private key of it.
        chain, key: what is in them.
    """

    chain_file: Path
    key_file: Path
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)


def read_certificate(chain: str | Path | None, key: str | Path | None) -> Certificate | None:
    """Read a certificate and its key, and try whether they go together.

    Returns:
        None where neither is given: the server speaks without TLS.

    Raises:
        JobError: one is given alone, or cannot be read, or they are no certificate and key in PEM that go together.
    """
    if chain is None and key is None:
        return None
    if chain is None or key is None:
        given, lacking = ("--tls-key", "--tls-cert") if chain is None else ("--tls-cert", "--tls-key")
        raise JobError(f"{given} is given without {lacking}", mend="TLS takes a certificate and its private key.")
    chain, key = Path(chain), Path(key)
    contents = [_read(path, option) for path, option in ((chain, "--tls-cert"), (key, "--tls-key"))]
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, _locked)
    except (ssl.SSLError, OSError, ValueError) as error:
        if isinstance(error, JobError):
            raise
        reason = " ".join(str(error).split())
        raise JobError(f"'{chain}' and '{key}' are no certificate and its key: {reason}", mend=f"{_PEM}.") from None
    return Certificate(chain, key, *contents)


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise JobError(f"{option} '{path}' cannot be read: {error}", mend="Name a file in PEM.") from None


def _locked() -> str:
    """Asked for the passphrase of a key that is locked."""
    raise JobError("the private key is locked by a passphrase", mend=f"{_PEM}.")
