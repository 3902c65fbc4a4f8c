"""The gRPC service: each method as its REST sibling answers, on the same models, limits and metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from thrifty.errors import JobError, MissingExtraError, RequestError, ThriftyError
from thrifty.serve.models import Model
from thrifty.serve.oip.metadata import metadata_of, server_metadata
from thrifty.serve.oip.repository import OFF, OFF_MEND, Repository
from thrifty.serve.spans import Trace, named, noted

if TYPE_CHECKING:
    from thrifty.serve.asgi import App

logger = logging.getLogger("thrifty.serve")

# gRPC's code of an HTTP status; others below 500 are INVALID_ARGUMENT, the rest INTERNAL
_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_OPEN = {"ServerLive", "ServerReady"}  # told without a key, as their paths are
_CALLS = 256  # at once; over it RESOURCE_EXHAUSTED
Answer = Callable[[Any, Any], Awaitable[None]]


class RpcServer:
    """The service on a port of its own, in the event loop of the application whose models it answers with.

    Attributes:
        port: that it listens on, once it has started.

    Raises:
        MissingExtraError: grpcio or protobuf is not installed.
    """

    def __init__(self, app: App, *, host: str, port: int) -> None:
        try:
            import grpc

            from thrifty.serve.oip.grpc.proto import read_service
        except ImportError:
            raise MissingExtraError("serving gRPC", package="grpcio", extra="grpc") from None
        self._grpc, self._app, self._host = grpc, app, host
        self._service = read_service((files("thrifty.serve.oip.grpc") / "inference.proto").read_text("utf-8"))
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
        handlers = {
            method.name: grpc.unary_unary_rpc_method_handler(
                self._handler(method.name, method.answer),
                request_deserializer=method.request.FromString,
                response_serializer=method.answer.SerializeToString,
            )
            for method in self._service.methods
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self._service.name, handlers),))
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

    def _handler(self, name: str, answer: Any) -> Callable[[Any, Any], Awaitable[Any]]:
        """What answers one method: it fills an empty answer, and its errors become gRPC's."""
        fill: Answer = getattr(self, _METHODS[name])

        async def handle(request: Any, context: Any) -> Any:
            response = answer()
            given = _headers(context)
            with self._app.following("POST", f"/{self._service.name}/{name}", given.items()) as trace:
                try:
                    self._check_key(name, given)
                    await fill(request, response)
                    _set_status(trace, 200)
                except ThriftyError as error:
                    status = error.status if isinstance(error, RequestError) else 400
                    _set_status(trace, status)
                    text = str(error) if error.mend or error.nearest else error.what
                    await context.abort(self._code(status), text)
                except Exception:
                    logger.exception("gRPC %s failed", name)
                    _set_status(trace, 500)
                    await context.abort(self._code(500), "Internal error; the server's log says more")
            return response

        return handle

    def _check_key(self, name: str, given: Mapping[bytes, bytes]) -> None:
        keys = self._app.keys
        if keys is not None and name not in _OPEN:
            keys.check(given)

    def _code(self, status: int) -> Any:
        name = _CODES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
        return getattr(self._grpc.StatusCode, name)

    async def _server_live(self, request: Any, response: Any) -> None:
        response.live = True

    async def _server_ready(self, request: Any, response: Any) -> None:
        response.ready = self._app.ready

    async def _model_ready(self, request: Any, response: Any) -> None:
        response.ready = self._find(request.name, request.version).ready

    async def _server_metadata(self, request: Any, response: Any) -> None:
        found = server_metadata(repository=self._app.repository is not None)
        response.name, response.version = found["name"], found["version"]
        response.extensions.extend(found["extensions"])

    async def _model_metadata(self, request: Any, response: Any) -> None:
        found = metadata_of(self._find(request.name, request.version), self._app.models)
        response.name, response.platform = found["name"], found["platform"]
        response.versions.extend(found["versions"])
        for kind in ("inputs", "outputs"):
            for tensor in found[kind]:
                named = {key: tensor[key] for key in ("name", "datatype", "shape")}
                getattr(response, kind).add(**named)

    async def _model_infer(self, request: Any, response: Any) -> None:
        from thrifty.serve.oip.grpc.tensors import fill_answer, parse_infer

        model = self._find(request.model_name, request.model_version)
        while not model.hold():
            model = self._find(request.model_name, request.model_version)
        named(model.label, "grpc")
        start, status, held = time.perf_counter(), 499, 0
        try:
            size = request.ByteSize()
            self._app.held.take(size)
            held = size
            with noted("decoding"):
                rows, wanted = await self._app.beside(lambda: parse_infer(model, request))
            limit = self._app.limits.deadline_seconds
            try:
                # a call that its client gives up is cancelled here, and its rows with it
                answers = await asyncio.wait_for(asyncio.wrap_future(model.submit(rows)), limit)
            except TimeoutError:
                raise RequestError(f"Deadline exceeded: no answer within {limit:g} s", status=504) from None
            with noted("encoding"):
                fill_answer(model, answers, wanted, request.id, response)
            status = 200
        except ThriftyError as error:
            status = error.status if isinstance(error, RequestError) else 400
            raise
        except Exception:
            status = 500
            raise
        finally:
            self._app.held.release(held)
            model.release()
            self._app.metrics.request_done(model.label, "grpc", status, time.perf_counter() - start)

    async def _repository_index(self, request: Any, response: Any) -> None:
        repository = self._repository()
        for each in await self._app.beside(lambda: repository.index(ready_only=request.ready)):
            response.models.add(**each)

    async def _repository_load(self, request: Any, response: Any) -> None:
        repository = self._repository()
        await asyncio.to_thread(repository.load, request.model_name)

    async def _repository_unload(self, request: Any, response: Any) -> None:
        repository = self._repository()
        await asyncio.to_thread(repository.unload, request.model_name)

    def _repository(self) -> Repository:
        if self._app.repository is None:
            raise RequestError(OFF, status=403, mend=OFF_MEND)
        return self._app.repository

    def _find(self, name: str, version: str) -> Model:
        number = int(version) if version.isdecimal() and len(version) < 20 else None
        model = self._app.models.find(name, number) if not version or number is not None else None
        if model is None:
            which = f"'{name}' version {version}" if version else f"'{name}'"
            raise RequestError(f"Request for unknown model: {which} is not found", status=404)
        return model


def _headers(context: Any) -> dict[bytes, bytes]:
    """The metadata of a call, without what is binary."""
    given = context.invocation_metadata() or ()
    return {key.encode(): value.encode() for key, value in given if isinstance(value, str)}


def _set_status(trace: Trace | None, status: int) -> None:
    if trace is not None:
        trace.status = status


_METHODS = {
    "ServerLive": "_server_live",
    "ServerReady": "_server_ready",
    "ModelReady": "_model_ready",
    "ServerMetadata": "_server_metadata",
    "ModelMetadata": "_model_metadata",
    "ModelInfer": "_model_infer",
    "RepositoryIndex": "_repository_index",
    "RepositoryModelLoad": "_repository_load",
    "RepositoryModelUnload": "_repository_unload",
}
