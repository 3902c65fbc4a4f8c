"""Shared ground of the tests: real digits and real source files in folders, and a cache of their own."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

# a conftest is found by its name, not collected for doctests: several of one name cannot be
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

IMAGES = 360
SOURCES = ("json", "email", "html", "http", "urllib", "xml")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the tests out of the user's cache; processes that the tests start inherit it."""
    folder = tmp_path_factory.mktemp("cache")
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
    bundled = load_digits()
    for index in range(IMAGES):
        path = folder / str(bundled.target[index]) / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (bundled.images[index] * (255 / 16)).round().astype(np.uint8)
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
