"""Run the server in this process until it is told to stop: uvicorn on httptools and uvloop."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from thrifty.errors import JobError
from thrifty.serve.asgi import App
from thrifty.serve.connection import Connection
from thrifty.serve.keys import Keys
from thrifty.serve.limits import Limits
from thrifty.serve.rpc import RpcServer
from thrifty.serve.tls import Certificate

logger = logging.getLogger("thrifty.serve")

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75
_WARM_POLL_SECONDS = 0.01


class Server(uvicorn.Server):
    """uvicorn's server, telling when it listens and its models have answered a first row."""

    def __init__(
        self, config: uvicorn.Config, app: App, ready: Callable[[], None], rpc: RpcServer | None = None
    ) -> None:
        super().__init__(config)
        self._app, self._ready, self._rpc = app, ready, rpc
        self.failed: JobError | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._rpc is not None:
            try:
                await self._rpc.start()
            except JobError as error:  # told once what has started is stopped again
                self.failed, self.should_exit = error, True
        if self.started and self.failed is None:
            self._warming = asyncio.create_task(self._tell_when_warm())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._rpc is not None:
            await self._rpc.stop(self._app.limits.drain_seconds)
        await super().shutdown(sockets)

    async def _tell_when_warm(self) -> None:
        while not self._app.ready:
            if self.should_exit:
                return
            await asyncio.sleep(_WARM_POLL_SECONDS)
        # what is there by now stays; each time that it is looked through for garbage, requests wait for 40 ms
        gc.freeze()
        self._ready()


def serve(
    app: App,
    *,
    host: str,
    port: int,
    grpc_port: int | None = None,
    tls: Certificate | None = None,
    ready: Callable[[str, int], None],
) -> None:
    """Serve until told to stop; `thrifty.serve.run` says the rest."""
    rpc = None if grpc_port is None else RpcServer(app, host=host, port=grpc_port, tls=tls)
    listener = bind(host, port)
    warn_of_strangers(host, app.keys)
    with listener, quiet_signals():
        server = Server(config_of(app, app.limits, tls), app, lambda: ready(host, listener.getsockname()[1]), rpc)
        server.run(sockets=[listener])
    if server.failed is not None:
        raise server.failed


def config_of(app: App, limits: Limits, tls: Certificate | None = None) -> uvicorn.Config:
    """Settings of uvicorn for an app: nothing on stdout, no log set up, connections and the stop bounded."""
    return uvicorn.Config(
        app,
        http=Connection,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        date_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(limits.drain_seconds)),
        ssl_certfile=None if tls is None else tls.chain_file,
        ssl_keyfile=None if tls is None else tls.key_file,
    )


def warn_of_strangers(host: str, keys: Keys | None) -> None:
    """Say it when an address lets in who reaches this machine, without a password."""
    if not is_loopback(host) and keys is None:
        logger.warning("serving on %s: whoever reaches this machine can ask; there is no password", host)


def bind(host: str, port: int) -> socket.socket:
    """Take an address; it is not listened on yet.

    Raises:
        JobError: it cannot be had.
    """
    if not 0 <= port <= 65_535:  # the resolver would quietly take it modulo 65,536
        raise JobError(f"port {port} does not exist", mend="A port is 0 to 65535; 0 takes a free one.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise JobError(
            f"cannot serve on {host} port {port}: {error}", mend="Choose another; port 0 takes a free one."
        ) from None
    return listener


def is_loopback(host: str) -> bool:
    """Say whether an address lets in this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def quiet_signals() -> Iterator[None]:
    """Let a stop by signal end in a plain return: uvicorn raises the signal again once it has drained."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stops = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, lambda number, frame: None) for each in stops]
    try:
        yield
    finally:
        for each, handler in zip(stops, before, strict=True):
            signal.signal(each, handler)
