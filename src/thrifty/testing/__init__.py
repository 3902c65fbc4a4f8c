"""Contract suites for extenders and for servers: hand in what you built, and it is told which promise it breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thrifty.testing.conformance import check_server

if TYPE_CHECKING:
    from thrifty.testing.models import check_model

__all__ = ["check_model", "check_server"]


def __getattr__(name: str) -> Any:
    """Load the suite of models when it is asked for: it needs torch, the suites of servers do not."""
    if name != "check_model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from thrifty.testing.models import check_model

    return check_model
