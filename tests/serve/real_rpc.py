"""A real server over HTTP and gRPC in a thread of the test, on free ports."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from thrifty.serve.asgi import App
from thrifty.serve.rpc import RpcServer
from thrifty.serve.server import Server, config_of


@contextmanager
def answering(app: App) -> Iterator[RpcServer]:
    """Serve an application in a thread; returns once the server has drained."""
    rpc = RpcServer(app, host="127.0.0.1", port=0)
    ready = threading.Event()
    server = Server(config_of(app, app.limits), app, ready.set, rpc)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        assert ready.wait(60)
        try:
            yield rpc
        finally:
            server.should_exit = True
            thread.join(60)
    assert not thread.is_alive()
