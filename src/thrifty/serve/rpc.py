"""The gRPC server: the services of several protocols on one port, over the models of an application."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from thrifty.errors import JobError, MissingExtraError, RequestError, ThriftyError
from thrifty.serve.calls import Spoken

if TYPE_CHECKING:
    from thrifty.serve.asgi import App
    from thrifty.serve.protos import Method
    from thrifty.serve.spans import Trace

logger = logging.getLogger("thrifty.serve")

# gRPC's code of an HTTP status; others below 500 are INVALID_ARGUMENT, the rest INTERNAL
_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    412: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CALLS = 256  # at once; over it RESOURCE_EXHAUSTED


class RpcServer:
    """The services on a port of their own, in the event loop of the application whose models they answer with.

    Attributes:
        port: that it listens on, once it has started.

    Raises:
        MissingExtraError: grpcio or protobuf is not installed.
    """

    def __init__(self, app: App, *, host: str, port: int) -> None:
        try:
            import grpc

            import thrifty.serve.oip.grpc.service as oip
            import thrifty.serve.tfserving.grpc.service as tfserving
        except ImportError:
            raise MissingExtraError("serving gRPC", package="grpcio", extra="grpc") from None
        self._grpc, self._app, self._host = grpc, app, host
        self._spoken = (oip.spoken(app), tfserving.spoken(app))
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
                handlers = {
                    method.name: grpc.unary_unary_rpc_method_handler(
                        self._handler(spoken, service, method),
                        request_deserializer=method.request.FromString,
                        response_serializer=method.answer.SerializeToString,
                    )
                    for method in methods
                }
                self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        address = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self.port = self._server.add_insecure_port(f"{address}:{self.port}")
        except RuntimeError as error:
            await self._server.stop(0)
            raise JobError(
                f"cannot serve gRPC on {self._host} port {self.port}: {error}", mend="Choose another."
            ) from None
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Take no more, and answer what was taken for at most this long."""
        if self._server is not None:
            await self._server.stop(seconds)

    def _handler(self, spoken: Spoken, service: str, method: Method) -> Callable[[Any, Any], Awaitable[Any]]:
        """What answers one method: it fills an empty answer, and its errors become gRPC's."""
        fill, closed = spoken.answers[method.name], method.name not in spoken.open

        async def handle(request: Any, context: Any) -> Any:
            response = method.answer()
            given = _headers(context)
            with self._app.following("POST", f"/{service}/{method.name}", given.items()) as trace:
                try:
                    if closed and self._app.keys is not None:
                        self._app.keys.check(given)
                    await fill(request, response)
                    _set_status(trace, 200)
                except ThriftyError as error:
                    status = error.status if isinstance(error, RequestError) else 400
                    _set_status(trace, status)
                    text = str(error) if error.mend or error.nearest else error.what
                    await context.abort(self._code(status), text)
                except Exception:
                    logger.exception("gRPC %s failed", method.name)
                    _set_status(trace, 500)
                    await context.abort(self._code(500), "Internal error; the server's log says more")
            return response

        return handle

    def _code(self, status: int) -> Any:
        name = _CODES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
        return getattr(self._grpc.StatusCode, name)


def _headers(context: Any) -> dict[bytes, bytes]:
    """The metadata of a call, without what is binary."""
    given = context.invocation_metadata() or ()
    return {key.encode(): value.encode() for key, value in given if isinstance(value, str)}


def _set_status(trace: Trace | None, status: int) -> None:
    if trace is not None:
        trace.status = status
