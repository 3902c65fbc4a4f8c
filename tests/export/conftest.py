"""Bundles that the tests of this room share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from made_bundles import write_image_bundle, write_language_bundle, write_text_bundle

from thrifty.export.bundle import Bundle, load_bundle


@pytest.fixture(scope="session")
def image_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("image") / "bundle"
    write_image_bundle(folder)
    return load_bundle(folder)


@pytest.fixture(scope="session")
def language_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("language") / "bundle"
    write_language_bundle(folder)
    return load_bundle(folder)


@pytest.fixture(scope="session")
def text_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("text") / "bundle"
    write_text_bundle(folder)
    return load_bundle(folder)
