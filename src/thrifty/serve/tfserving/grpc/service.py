"""The gRPC services: each method as its REST sibling answers, on the same models, limits and metrics."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import ParseDict

from thrifty.errors import RequestError
from thrifty.serve.calls import Call, Spoken, infer
from thrifty.serve.models import Model
from thrifty.serve.oip.tensors import Wanted, output
from thrifty.serve.protos import Protos, read_protos
from thrifty.serve.tfserving.grpc.requests import parse_examples, parse_predict
from thrifty.serve.tfserving.grpc.tensors import fill
from thrifty.serve.tfserving.replies import scored, told
from thrifty.serve.tfserving.routes import check_method, find, labelled, statuses
from thrifty.serve.tfserving.signatures import DEFAULT, metadata_of

if TYPE_CHECKING:
    from thrifty.serve.asgi import App

# each after those that it needs
FILES = ("google.proto", "error.proto", "tensorflow.proto", "serving.proto")
_PROTOCOL = "tfserving_grpc"
_METADATA = "signature_def"
_METHODS = {f"tensorflow/serving/{verb}": verb for verb in ("classify", "regress")}
_MAP = "tensorflow.serving.SignatureDefMap"


def protos() -> Protos:
    """Read the services' messages."""
    folder = files("thrifty.serve.tfserving.grpc")
    return read_protos((folder / name).read_text("utf-8") for name in FILES)


def spoken(app: App) -> Spoken:
    """Return the services over an application's models."""
    own = _Prediction(app, found := protos())
    return Spoken(found, own.answers)


class _Prediction:
    def __init__(self, app: App, known: Protos) -> None:
        self._app, self._map = app, known.messages[_MAP]
        self.answers = {
            "Predict": self._predict,
            "Classify": self._classify,
            "Regress": self._regress,
            "MultiInference": self._several,
            "GetModelMetadata": self._metadata,
            "GetModelStatus": self._status,
        }

    async def _predict(self, request: Any, response: Any) -> None:
        def parse(model: Model) -> Call:
            rows, names = parse_predict(model, request)

            def answer(answers: list[Any]) -> None:
                for name in names:
                    fill(response.outputs[name], output(model, answers, Wanted(name)))
                _name(response, model, request)

            return Call(rows, answer)

        await infer(self._app, _PROTOCOL, request, lambda: self._find(request), parse)

    async def _classify(self, request: Any, response: Any) -> None:
        await self._examples("classify", request, request.input, response, response.result)

    async def _regress(self, request: Any, response: Any) -> None:
        await self._examples("regress", request, request.input, response, response.result)

    async def _several(self, request: Any, response: Any) -> None:
        if not request.tasks:
            raise RequestError("Missing ModelSpec")
        first, signatures = request.tasks[0].model_spec.name, set()
        for task in request.tasks:
            spec, signature = task.model_spec, task.model_spec.signature_name or DEFAULT
            if not spec.name:
                raise RequestError("Found ModelSpec with an empty model name.")
            if spec.name != first:
                raise RequestError("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
            if signature in signatures:
                raise RequestError(f"Duplicate evaluation of signature: {signature}")
            if task.method_name not in _METHODS:
                raise RequestError(f"Unsupported signature method_name: {task.method_name}", status=501)
            signatures.add(signature)
        for task in request.tasks:
            verb, result = _METHODS[task.method_name], response.results.add()
            held = result.classification_result if verb == "classify" else result.regression_result
            await self._examples(verb, task, request.input, result, held)

    async def _examples(self, verb: str, asked: Any, examples: Any, named: Any, result: Any) -> None:
        """Classify or regress examples.

        Args:
            verb: which of them.
            asked: has the spec of the model.
            examples: an Input.
            named: gets the name of the model that answered.
            result: gets the answers.
        """

        def parse(model: Model) -> Call:
            check_method(model, verb)

            def answer(answers: list[Any]) -> None:
                (_fill_classes if verb == "classify" else _fill_numbers)(model, answers, result)
                _name(named, model, asked)

            return Call(parse_examples(model, asked.model_spec.signature_name, examples), answer)

        await infer(self._app, _PROTOCOL, examples, lambda: self._find(asked), parse)

    async def _metadata(self, request: Any, response: Any) -> None:
        _check_spec(request)
        if not request.metadata_field:
            raise RequestError("GetModelMetadataRequest must specify at least one metadata_field")
        for each in request.metadata_field:
            if each != _METADATA:
                raise RequestError(f"Metadata field {each} is not supported")
        model = self._find(request)
        described = ParseDict(metadata_of(model)["metadata"][_METADATA], self._map())
        response.model_spec.name, response.model_spec.version.value = model.name, model.version
        packed = response.metadata[_METADATA]
        packed.type_url, packed.value = f"type.googleapis.com/{_MAP}", described.SerializeToString()

    async def _status(self, request: Any, response: Any) -> None:
        _check_spec(request)
        spec = request.model_spec
        ParseDict(statuses(self._app.models, spec.name, self._version(spec)), response)

    def _find(self, request: Any) -> Model:
        _check_spec(request)
        spec = request.model_spec
        return find(self._app.models, spec.name, self._version(spec))

    def _version(self, spec: Any) -> int | None:
        chosen = spec.WhichOneof("version_choice")
        if chosen == "version_label":
            return labelled(self._app.models, spec.name, spec.version_label)
        return int(spec.version.value) if chosen else None


def _fill_classes(model: Model, answers: list[Any], result: Any) -> None:
    for row in scored(model, answers):
        classes = result.classifications.add().classes
        for label, score in row:
            classes.add(label=label, score=score)


def _fill_numbers(model: Model, answers: list[Any], result: Any) -> None:
    for value in told(answers):
        result.regressions.add(value=value)


def _check_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise RequestError("Missing ModelSpec")


def _name(response: Any, model: Model, request: Any) -> None:
    spec = response.model_spec
    spec.name, spec.version.value = model.name, model.version
    spec.signature_name = request.model_spec.signature_name or DEFAULT
