"""Every module of the package can be imported without a warning, those included that no other test asks for."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "thrifty"
# what a Python that has TensorFlow runs
ELSEWHERE = PACKAGE / "export" / "tensorflow"


@pytest.mark.slow
def test_every_module_can_be_imported() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if ELSEWHERE not in path.parents and path.name != "__main__.py"]
    assert len(files) > 500
    for path in files:
        importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
