"""The site of docs/, built once for all tests of it, whichever process runs them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# as mkdocs does for its hooks
sys.path.insert(0, str(ROOT / "docs" / "hooks"))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site; a warning of the build is an error."""
    if find_spec("material") is None or find_spec("mkdocstrings") is None:
        pytest.skip("MkDocs Material is not installed: pip install -e '.[docs]' -c constraints.txt")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "site"
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            part = f"{folder}.part"
            command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", part]
            built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert built.returncode == 0, built.stderr[-6000:]
            Path(part).rename(folder)
    return folder
