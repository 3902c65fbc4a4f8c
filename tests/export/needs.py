"""What tests of exports may need that is not always installed, with the reason that they are skipped for."""

from __future__ import annotations

import importlib.util

import pytest

from thrifty.errors import MissingExtraError
from thrifty.export.other_python import python_with_tensorflow


def _lacks_tensorflow() -> str:
    try:
        python_with_tensorflow()
    except MissingExtraError as error:
        return str(error)
    return ""


def _lacks_litert_torch() -> str:
    missing = [name for name in ("litert_torch", "ai_edge_litert") if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)} (the extra 'litert')" if missing else ""


needs_tensorflow = pytest.mark.skipif(bool(_lacks_tensorflow()), reason=_lacks_tensorflow() or "there")
needs_litert_torch = pytest.mark.skipif(bool(_lacks_litert_torch()), reason=_lacks_litert_torch() or "there")
