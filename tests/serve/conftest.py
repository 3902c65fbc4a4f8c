"""A real server on a free port, over small bundles."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

sys.path.insert(0, str(Path(__file__).parent.parent / "export"))
sys.path.insert(0, str(Path(__file__).parent))
from made_bundles import write_image_bundle, write_language_bundle

from thrifty import serve
from thrifty.export.bundle import Bundle, load_bundle
from thrifty.serve.server import config_of


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


@contextmanager
def running(bundles: Sequence[Bundle], *, limits: serve.Limits | None = None, warm: bool = True) -> Iterator[str]:
    """Serve in a thread and give the base URL; returns once the server has drained."""
    app = serve.app(bundles, limits=limits)
    server = uvicorn.Server(config_of(app, app.limits))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            until = time.monotonic() + 30
            while not server.started or (warm and httpx.get(f"{url}/v2/health/ready").status_code != 200):
                assert time.monotonic() < until, "the server did not become ready"
                time.sleep(0.01)
            yield url
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def url(pets: Bundle, pets2: Bundle, poet: Bundle) -> Iterator[str]:
    with running([pets, pets2, poet]) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client
