"""Tests that are marked `alone` are alone where several workers run tests, and the others are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import os, time
from pathlib import Path
import pytest

def note(name):
    began = time.monotonic()
    time.sleep(0.1)
    with Path("log").open("a") as file:
        file.write(f"{name} {os.environ['PYTEST_XDIST_WORKER']} {began} {time.monotonic()}\\n")

@pytest.mark.parametrize("number", range(8))
def test_before(number):
    note("together")

@pytest.mark.alone
@pytest.mark.parametrize("number", range(4))
def test_alone(number):
    note("alone")

@pytest.mark.parametrize("number", range(8))
def test_after(number):
    note("together")
"""


@pytest.mark.slow
def test_those_that_are_to_be_alone_are(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [env.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-n", "2", "--dist", "worksteal"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout
    rows = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert len(rows) == 20 and len({worker for _, worker, *_ in rows}) == 2

    def beside(name: str) -> list[int]:
        """How many others ran while each of that name did."""
        spans = [(float(began), float(ended)) for *_, began, ended in rows]
        return [
            sum(began < spans[at][1] and spans[at][0] < ended for began, ended in spans) - 1
            for at, row in enumerate(rows)
            if row[0] == name
        ]

    assert beside("alone") == [0] * 4
    assert any(beside("together")), "the workers never ran side by side"
