"""The gRPC server: the services of several protocols on one port, over the models of an application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from thrifty.errors import JobError, MissingExtraError, RequestError, ThriftyError
from thrifty.serve.calls import Spoken
from thrifty.serve.receiving import Receiving

if TYPE_CHECKING:
    from thrifty.serve.asgi import App
    from thrifty.serve.protos import Method
    from thrifty.serve.spans import Trace
    from thrifty.serve.tls import Certificate

logger = logging.getLogger("thrifty.serve")

# gRPC's code of an HTTP status; others below 500 are INVALID_ARGUMENT, the rest INTERNAL
_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    412: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CALLS = 256  # at once; over it RESOURCE_EXHAUSTED
# of them that stream, for each may be in the midst of a message that nobody can tell from none
_STREAMS = 64
# requests of a stream that are computed while their answers wait for their turn
_AHEAD = 16


class RpcServer:
    """The services on a port of their own, in the event loop of the application whose models they answer with.

    Args:
        app: whose models answer.
        host, port: to listen on.
        tls: shown to clients; None speaks without TLS.

    Attributes:
        port: that it listens on, once it has started.

    Raises:
        MissingExtraError: grpcio or protobuf is not installed.
    """

    def __init__(self, app: App, *, host: str, port: int, tls: Certificate | None = None) -> None:
        try:
            import grpc

            import thrifty.serve.oip.grpc.service as oip
            import thrifty.serve.tfserving.grpc.service as tfserving
        except ImportError:
            raise MissingExtraError("serving gRPC", package="grpcio", extra="grpc") from None
        self._grpc, self._app, self._host, self._tls = grpc, app, host, tls
        self._spoken = (oip.spoken(app), tfserving.spoken(app))
        self._receiving = Receiving(app.limits)
        self._readers: set[asyncio.Task[None]] = set()
        self._ending = False
        self.port = port
        self._server: Any = None

    async def start(self) -> None:
        """Listen.

        Raises:
            JobError: the address cannot be had.
        """
        grpc, most = self._grpc, self._app.limits.body_bytes
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", most),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # else a second server would quietly share the port
                ("grpc.max_metadata_size", 64 * 2**10),
            ],
            maximum_concurrent_rpcs=_CALLS,
        )
        for spoken in self._spoken:
            for service, methods in spoken.protos.services.items():
                handlers = {method.name: self._handler(spoken, service, method) for method in methods}
                self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        address = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self.port = self._listen(f"{address}:{self.port}")
        except RuntimeError as error:
            await self._server.stop(0)
            raise JobError(
                f"cannot serve gRPC on {self._host} port {self.port}: {error}", mend="Choose another."
            ) from None
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Take no more, and answer what was taken for at most this long; streams end with what they were sent."""
        self._ending = True
        for reader in self._readers:
            reader.cancel()
        if self._server is not None:
            await self._server.stop(seconds)

    def _listen(self, address: str) -> int:
        if self._tls is None:
            return int(self._server.add_insecure_port(address))
        shown = self._grpc.ssl_server_credentials([(self._tls.key, self._tls.chain)])
        return int(self._server.add_secure_port(address, shown))

    def _handler(self, spoken: Spoken, service: str, method: Method) -> Any:
        """What answers one method; each reads its messages itself, once it is known who asks."""
        make, run = self._grpc.stream_unary_rpc_method_handler, self._single
        if method.streams:
            make, run = self._grpc.stream_stream_rpc_method_handler, self._stream
        return make(
            run(spoken, f"/{service}/{method.name}", method),
            request_deserializer=method.request.FromString,
            response_serializer=method.answer.SerializeToString,
        )

    def _single(self, spoken: Spoken, path: str, method: Method) -> Callable[[Any, Any], Awaitable[Any]]:
        """Answer the one request of a call: an empty answer is filled, and errors become gRPC's."""
        fill, closed = spoken.answers[method.name], method.name not in spoken.open

        async def handle(requests: Any, context: Any) -> Any:
            given = _headers(context)
            with self._app.following("POST", path, given.items()) as trace:
                try:
                    if closed and self._app.keys is not None:
                        self._app.keys.check(given)
                    request = await self._receiving.whole(context.read)
                    if request is self._grpc.aio.EOF:
                        raise RequestError("The call has no message")
                    response = method.answer()
                    await fill(request, response)
                    _set_status(trace, 200)
                except Exception as error:
                    status, text = _told(error, path)
                    _set_status(trace, status)
                    await context.abort(self._code(status), text)
            return response

        return handle

    def _stream(self, spoken: Spoken, path: str, method: Method) -> Callable[[Any, Any], Awaitable[None]]:
        """Answer the requests of a call in their order, some of them computed at once; one that fails says so."""
        fill, tell = spoken.answers[method.name], spoken.tells[method.name]

        async def answer(request: Any, given: dict[bytes, bytes]) -> Any:
            with self._app.following("POST", path, given.items()) as trace:
                try:
                    response = method.answer()
                    await fill(request, response)
                    _set_status(trace, 200)
                except Exception as error:
                    status, text = _told(error, path)
                    _set_status(trace, status)
                    response = method.answer()
                    tell(request, response, text)
            return response

        async def handle(requests: Any, context: Any) -> None:
            given = _headers(context)
            try:
                if self._app.keys is not None:
                    self._app.keys.check(given)
                if len(self._readers) >= _STREAMS:
                    raise RequestError(f"There are {_STREAMS} streams already", status=429)
            except RequestError as error:
                await context.abort(self._code(error.status), _said(error))
            waiting: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
            room = asyncio.Semaphore(_AHEAD)

            async def read() -> None:
                try:
                    while await room.acquire():
                        if (request := await context.read()) is self._grpc.aio.EOF:
                            break
                        waiting.put_nowait(group.create_task(answer(request, given)))
                except asyncio.CancelledError:
                    if not self._ending:
                        raise
                waiting.put_nowait(None)

            async with asyncio.TaskGroup() as group:
                reader = group.create_task(read())
                self._readers.add(reader)
                reader.add_done_callback(self._readers.discard)
                while (task := await waiting.get()) is not None:
                    await context.write(await task)
                    room.release()

        return handle

    def _code(self, status: int) -> Any:
        name = _CODES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
        return getattr(self._grpc.StatusCode, name)


def _told(error: Exception, path: str) -> tuple[int, str]:
    """The HTTP status of an error and what its client is told; what nobody foresaw is logged."""
    if isinstance(error, ThriftyError):
        return error.status if isinstance(error, RequestError) else 400, _said(error)
    logger.error("gRPC %s failed", path, exc_info=error)
    return 500, "Internal error; the server's log says more"


def _said(error: ThriftyError) -> str:
    return str(error) if error.mend or error.nearest else error.what


def _headers(context: Any) -> dict[bytes, bytes]:
    """The metadata of a call, without what is binary."""
    given = context.invocation_metadata() or ()
    return {key.encode(): value.encode() for key, value in given if isinstance(value, str)}


def _set_status(trace: Trace | None, status: int) -> None:
    if trace is not None:
        trace.status = status
