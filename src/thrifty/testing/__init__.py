"""Contract suites for extenders: hand in what you built, and an `AssertionError` names the promise that it breaks."""

from thrifty.testing.models import check_model

__all__ = ["check_model"]
