"""The OpenAPI 3.1 document of what a server speaks: its paths with the models that it serves."""

from __future__ import annotations

from typing import Any

from thrifty import __version__
from thrifty.serve.models import Model, Models

_JSON = "application/json"
_TEXT = {"type": "string"}
_ANY: dict[str, Any] = {}
_OBJECT = {"type": "object"}
_ERRORS = {
    400: "what was sent cannot be answered",
    404: "there is no such model or version",
    408: "the body was too slow",
    413: "the body is too large",
    415: "the body has an encoding that is not known",
    429: "there is more to do than may wait",
    500: "the model failed",
    503: "there is more to do than can be done, or it is not ready",
    504: "no answer in time",
}


def document(models: Models, *, repository: bool) -> dict[str, Any]:
    """Describe the server as it is now.

    Args:
        models: that it serves.
        repository: whether models may be loaded and unloaded.
    """
    found = sorted({model.name: model for model in models}.values(), key=lambda model: model.name)
    paths = _of_server(repository=repository)
    for model in found:
        paths |= _of_tfserving(model) | _of_oip(model)
    return {
        "openapi": "3.1.0",
        "info": {"title": "thrifty", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {"Error": {"type": "object", "required": ["error"], "properties": {"error": _TEXT}}},
        },
    }


def _of_server(*, repository: bool) -> dict[str, Any]:
    version = _object(name=_TEXT, version=_TEXT, extensions={"type": "array", "items": _TEXT})
    paths: dict[str, Any] = {
        "/v2": {"get": _operation("what the server is", version)},
        "/v2/health/live": {"get": _operation("whether it lives", _object(live={"type": "boolean"}))},
        "/v2/health/ready": {"get": _operation("whether all models answer", _object(ready={"type": "boolean"}))},
        "/metrics": {"get": {"summary": "counters for Prometheus", "responses": {"200": {"description": "text"}}}},
    }
    if repository:
        index = {"type": "array", "items": _object(name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT)}
        asked = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
        paths["/v2/repository/index"] = {"post": _operation("models that there are", index, asked)}
    return paths


def _of_tfserving(model: Model) -> dict[str, Any]:
    base = f"/v1/models/{model.name}"
    signature = {"signature_name": _TEXT}
    rows = {"type": "array", "minItems": 1}
    asked = {
        "type": "object",
        "oneOf": [
            {"required": ["instances"], "properties": {**signature, "instances": rows}},
            {"required": ["inputs"], "properties": {**signature, "inputs": _ANY}},
        ],
    }
    answer = {"oneOf": [_object(predictions={"type": "array"}), _object(outputs=_ANY)]}
    status = _object(model_version_status={"type": "array", "items": _OBJECT})
    paths: dict[str, Any] = {
        base: {"get": _operation("status of its versions", status)},
        f"{base}/metadata": {"get": _operation("its signatures", _object(model_spec=_OBJECT, metadata=_OBJECT))},
        f"{base}:predict": {"post": _operation("answers to rows", answer, asked)},
    }
    for verb, output in (("classify", "probabilities"), ("regress", "value")):
        if output in model.form.outputs:
            examples = {"type": "object", "required": ["examples"], "properties": {"examples": rows}}
            told = _object(results={"type": "array"})
            paths[f"{base}:{verb}"] = {"post": _operation(f"{verb} examples", told, examples)}
    return paths


def _of_oip(model: Model) -> dict[str, Any]:
    base = f"/v2/models/{model.name}"
    tensors = {"type": "array", "minItems": 1, "items": {"anyOf": [_tensor(model, name) for name in model.form.inputs]}}
    asked = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": _TEXT,
            "parameters": _OBJECT,
            "inputs": tensors,
            "outputs": {"type": "array", "items": _object(name={"enum": list(model.form.outputs)})},
        },
    }
    answer = _object(model_name=_TEXT, outputs={"type": "array", "items": _OBJECT})
    told = _object(name=_TEXT, platform=_TEXT, inputs={"type": "array"}, outputs={"type": "array"})
    return {
        base: {"get": _operation("its tensors", told)},
        f"{base}/ready": {"get": _operation("whether it answers", _object(name=_TEXT, ready={"type": "boolean"}))},
        f"{base}/stats": {"get": _operation("what it has computed", _object(model_stats={"type": "array"}))},
        f"{base}/infer": {"post": _operation("answers to tensors", answer, asked)},
    }


def _tensor(model: Model, name: str) -> dict[str, Any]:
    datatype, shape = model.form.inputs[name]
    sizes: list[Any] = [{"const": size} if size >= 0 else {"type": "integer", "minimum": 1} for size in shape]
    return {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": name},
            "datatype": {"const": datatype},
            "shape": {"type": "array", "prefixItems": sizes, "minItems": len(sizes), "maxItems": len(sizes)},
            "data": {"type": "array", "items": _TEXT if datatype == "BYTES" else _ANY},
        },
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _operation(summary: str, answer: dict[str, Any], asked: dict[str, Any] | None = None) -> dict[str, Any]:
    error = {"content": {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
    told = {"description": summary, "content": {_JSON: {"schema": answer}}}
    codes = _ERRORS if asked is not None else {code: _ERRORS[code] for code in (404, 500)}
    # readiness is told by its own shape
    unready = {} if asked is not None else {"503": {"description": _ERRORS[503], "content": told["content"]}}
    responses = {"200": told, **{str(code): {"description": text, **error} for code, text in codes.items()}, **unready}
    body = {} if asked is None else {"requestBody": {"required": True, "content": {_JSON: {"schema": asked}}}}
    return {"summary": summary, **body, "responses": responses}
