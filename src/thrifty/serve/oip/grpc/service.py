"""The protocol's gRPC service: each method as its REST sibling answers, on the same models, limits and metrics."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from thrifty.errors import RequestError
from thrifty.serve.calls import Call, Spoken, infer
from thrifty.serve.models import Model
from thrifty.serve.oip.grpc.tensors import fill_answer, parse_infer
from thrifty.serve.oip.metadata import metadata_of, server_metadata
from thrifty.serve.oip.repository import OFF, OFF_MEND, Repository
from thrifty.serve.protos import read_protos

if TYPE_CHECKING:
    from thrifty.serve.asgi import App

FILE = "inference.proto"
_LAST = "triton_final_response"


def spoken(app: App) -> Spoken:
    """Return the service over an application's models."""
    own = _Inference(app)
    text = (files("thrifty.serve.oip.grpc") / FILE).read_text("utf-8")
    tells = {"ModelStreamInfer": _tell}
    return Spoken(read_protos([text]), own.answers, frozenset({"ServerLive", "ServerReady"}), tells)


class _Inference:
    def __init__(self, app: App) -> None:
        self._app = app
        self.answers = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
            "ModelStreamInfer": self._model_stream_infer,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._repository_load,
            "RepositoryModelUnload": self._repository_unload,
        }

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
        def parse(model: Model) -> Call:
            rows, wanted = parse_infer(model, request)
            return Call(rows, lambda answers: fill_answer(model, answers, wanted, request.id, response))

        await infer(self._app, "grpc", request, lambda: self._find(request.model_name, request.model_version), parse)

    async def _model_stream_infer(self, request: Any, response: Any) -> None:
        await self._model_infer(request, response.infer_response)
        # each request has one answer here; clients of models with several look for the last
        response.infer_response.parameters[_LAST].bool_param = True

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


def _tell(request: Any, response: Any, text: str) -> None:
    response.error_message = text
    response.infer_response.id = request.id
