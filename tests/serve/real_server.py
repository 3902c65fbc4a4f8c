"""A real server in a thread of the test, on a free port."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from thrifty import serve
from thrifty.export.bundle import Bundle
from thrifty.serve.asgi import App
from thrifty.serve.server import config_of


@contextmanager
def running(
    bundles: Sequence[Bundle], *, limits: serve.Limits | None = None, warm: bool = True, **more: Any
) -> Iterator[str]:
    """Serve in a thread and give the base URL; returns once the server has drained."""
    with serving(serve.app(bundles, limits=limits, **more), warm=warm) as url:
        yield url


@contextmanager
def serving(app: App, *, warm: bool = True) -> Iterator[str]:
    """Serve an application in a thread and give the base URL; returns once the server has drained."""
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
            while warm and not all(model.measured for model in app.models):
                assert time.monotonic() < until, "the curves of the models were not measured"
                time.sleep(0.01)
            yield url
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()
