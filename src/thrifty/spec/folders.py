"""Where thrifty keeps what it can make again: one cache folder for the user."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$THRIFTY_CACHE``, else ``$XDG_CACHE_HOME/thrifty``, else ``~/.cache/thrifty``; not created here."""
    own = os.environ.get("THRIFTY_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "thrifty"


def kept_curves(cache: Path) -> Path:
    """Return the folder in which servers keep how long batches take them (`thrifty.spec.answering.Answering`)."""
    return cache / "serve"
