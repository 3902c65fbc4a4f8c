"""`Answering`: how long a served bundle took for a batch of so many rows, as the server measured it and kept it."""

from __future__ import annotations

from thrifty.spec.plain import Plain


class Answering(Plain):
    """A curve that a server measured while it was idle.

    Attributes:
        seconds: of one batch, by its rows.
        sha256: of the bundle's description; empty where it was kept without.
        cores: that computed it.
    """

    seconds: dict[int, float]
    sha256: str = ""
    cores: int = 0
