"""Shared ground of the tests: real digits and real source files in folders, a cache of their own, and a browser."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import settings

# a conftest is found by its name, not collected for doctests: several of one name cannot be
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

IMAGES = 360
OWN_PROCESS = "THRIFTY_TEST_OWN_PROCESS"
WORKER = "PYTEST_XDIST_WORKER" in os.environ
CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SOURCES = ("json", "email", "html", "http", "urllib", "xml")

# the quick ring looks at fewer examples of each property; all of them are looked at in the whole run
settings.register_profile("quick", max_examples=20, deadline=None)

if WORKER:
    # how long one example takes is up to the neighbours too
    settings.register_profile("side by side", settings.get_profile(settings.get_current_profile_name()), deadline=None)
    settings.load_profile("side by side")


@contextmanager
def _held(path: Path, how: int) -> Iterator[None]:
    """Hold a lock between processes; the system takes it from one that dies."""
    with path.open("w") as file:
        fcntl.flock(file, how)
        try:
            yield
        finally:
            # closing does not do where a copy of this process still has the file open
            fcntl.flock(file, fcntl.LOCK_UN)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Where several workers run tests, one that is marked `alone` waits for the others' tests and they for it."""
    if not WORKER:
        return (yield)
    alone = item.get_closest_marker("alone") is not None
    folder = item.config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]
    with ExitStack() as stack:
        # through this door all come one by one, so that who waits behind it to be alone is not overtaken for ever
        door = stack.enter_context(ExitStack())
        door.enter_context(_held(folder / "door", fcntl.LOCK_EX))
        stack.enter_context(_held(folder / "room", fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        if not alone:
            door.close()
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is marked `own_process` in one: the heap of a process that ran others has holes of its own."""
    if pyfuncitem.get_closest_marker("own_process") is None or OWN_PROCESS in os.environ:
        return None
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", pyfuncitem.nodeid]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=pyfuncitem.config.rootpath, env={**environment, OWN_PROCESS: "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return True


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the tests out of the user's cache; processes that the tests start inherit it."""
    folder = tmp_path_factory.mktemp("cache")
    if WORKER:
        # what one worker measures of the machine holds for all
        measured = tmp_path_factory.getbasetemp().parent / "hardware"
        measured.mkdir(exist_ok=True)
        (folder / "hardware").symlink_to(measured)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THRIFTY_CACHE", str(folder))
        # a few operators of each family: tests of prices bring their own
        patch.setenv("THRIFTY_MEASURE_SECONDS", "3")
        # a process of its own for each plan would take the tests minutes
        patch.setenv("THRIFTY_ASK_SECONDS", "0")
        patch.delenv("THRIFTY_LEDGER", raising=False)
        patch.delenv("THRIFTY_PRICES", raising=False)
        yield folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real handwritten digits as PNG files, one folder a label. Not to be changed: copy it first."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    # the file of scikit-learn, eight rows of eight and a label a line: the library itself takes seconds to load
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None
    bundled = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",", max_rows=IMAGES)
    for index, row in enumerate(bundled):
        path = folder / str(int(row[64])) / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (row[:64].reshape(8, 8) * (255 / 16)).round().astype(np.uint8)
        assert cv2.imwrite(str(path), pixels)
    return folder


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real Python source files. Not to be changed: copy it first."""
    folder = tmp_path_factory.mktemp("data") / "sources"
    library = Path(sysconfig.get_path("stdlib"))
    for package in SOURCES:
        shutil.copytree(library / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's browser, which asks nobody anything by itself; no longer than a module, for its loop is the thread's."""
    if not CHROMIUM.exists():
        pytest.skip("no /usr/bin/chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield browser
        browser.close()
