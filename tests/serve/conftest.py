"""A real server on a free port, over small bundles."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "export"))
sys.path.insert(0, str(Path(__file__).parent))
from made_bundles import write_image_bundle, write_language_bundle, write_text_bundle
from real_server import running

from thrifty.export.bundle import Bundle, load_bundle


@pytest.fixture(scope="session", autouse=True)
def no_certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have clients read no certificates, which takes each longer than a request: no server here has TLS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSL_CERT_FILE", raising=False)
        patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("certificates")))
        yield


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("pets") / "bundle"
    write_image_bundle(folder, name="pets", version=1)
    return load_bundle(folder)


@pytest.fixture(scope="session")
def pets2(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("pets2") / "bundle"
    write_image_bundle(folder, name="pets", version=2, seed=9)
    return load_bundle(folder)


@pytest.fixture(scope="session")
def poet(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("poet") / "bundle"
    write_language_bundle(folder, name="poet", version=1)
    return load_bundle(folder)


@pytest.fixture(scope="session")
def critic(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("critic") / "bundle"
    write_text_bundle(folder, name="critic", version=1)
    return load_bundle(folder)


@pytest.fixture(scope="session")
def url(pets: Bundle, pets2: Bundle, poet: Bundle, critic: Bundle) -> Iterator[str]:
    with running([pets, pets2, poet, critic]) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client
