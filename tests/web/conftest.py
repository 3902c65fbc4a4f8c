"""A site over a few made runs, and one over ten thousand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "report"))
sys.path.insert(0, str(Path(__file__).parent))
from made_site import CROWD, Shown, add_run, copy_runs, make_crowd, showing


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of runs that holds none yet."""
    return tmp_path / "runs"


@pytest.fixture
def site(runs: Path, tmp_path: Path) -> Iterator[Shown]:
    """Pages over that folder, at work."""
    with showing(runs, tmp_path) as shown:
        yield shown


NAMES = ("digits", "wider", "now", "killed", "broke")


def make_few(runs: Path) -> None:
    add_run(runs, "digits")
    add_run(runs, "wider", batch=64, accuracy=0.9722, slower=1.4)
    add_run(runs, "now", status="running", steps=300)
    add_run(runs, "killed", status="interrupted", steps=120)
    add_run(runs, "broke", status="failed", steps=40)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of such runs. Not to be changed: copy it first."""
    folder = tmp_path_factory.mktemp("made") / "runs"
    make_few(folder)
    return folder


@pytest.fixture
def few(made: Path, runs: Path) -> dict[str, int]:
    """Numbers of runs by name: done, with another batch, under way, killed, and one that failed."""
    copy_runs(made, runs)
    return {name: number for number, name in enumerate(NAMES, 1)}


@pytest.fixture(scope="session")
def shared(made: Path) -> Iterator[Shown]:
    """Pages over such runs for tests that only look."""
    folder = made.parent
    with showing(folder / "runs", folder) as shown:
        yield shown


@pytest.fixture(scope="session")
def numbers() -> dict[str, int]:
    """Their numbers by name."""
    return {name: number for number, name in enumerate(NAMES, 1)}


@pytest.fixture(scope="session")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ledger knows ten thousand runs."""
    folder = tmp_path_factory.mktemp("crowd") / "runs"
    make_crowd(folder, CROWD)
    return folder
