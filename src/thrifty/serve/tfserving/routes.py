"""Which path of TensorFlow Serving's REST API is what, and the models that paths name by version or by label."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from thrifty.errors import RequestError
from thrifty.serve.http import Reply, json_reply
from thrifty.serve.models import Ask, Model, Models
from thrifty.serve.tfserving.replies import malformed, not_allowed
from thrifty.serve.tfserving.requests import parse_examples, parse_predict
from thrifty.serve.tfserving.signatures import metadata_of

_POST = re.compile(
    r"/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?:(classify|regress|predict)", re.IGNORECASE
)
_GET = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?(?:/(metadata))?", re.IGNORECASE
)
# the output that a method other than predict asks for
_ANSWERS = {"classify": "probabilities", "regress": "value"}


def owns(path: str) -> bool:
    """Say whether a path is this protocol's."""
    return path[:4].lower() == "/v1/"


def ask_for(method: str, path: str, models: Models) -> tuple[Model, Callable[[bytes], Ask]] | None:
    """Find the model that a POST is for, and the function that parses its body; None when it is no such request.

    Raises:
        RequestError: 404 unknown model or version, 400 a label or a method that there is not.
    """
    match = _POST.fullmatch(path) if method == "POST" else None
    if match is None:
        return None
    name, verb = unquote(match[1]), match[4].lower()
    version = _version(models, name, match[2], match[3])
    model = models.find(name, version)
    if model is None:
        raise _not_found(name, version)
    if verb in _ANSWERS and _ANSWERS[verb] not in model.form.outputs:
        raise RequestError(
            f"Expected {'regression' if verb == 'regress' else 'classification'} signature method_name to be "
            f"tensorflow/serving/{verb}. Was: tensorflow/serving/predict"
        )
    parse = parse_examples if verb in _ANSWERS else parse_predict
    return model, lambda body: parse(model, body)


def look_up(method: str, path: str, headers: dict[bytes, bytes], models: Models) -> Reply:
    """Answer what needs no model to compute: status and metadata.

    Raises:
        RequestError: 404 unknown model or version, 400 anything else.
    """
    if method == "OPTIONS":
        return not_allowed(headers.get(b"origin", b""))
    match = _GET.fullmatch(path) if method == "GET" else None
    if match is None:
        raise malformed(method, path)
    if match[1] is None:
        raise RequestError("Missing model name in request.")
    name, metadata = unquote(match[1]), match[4] is not None
    version = _version(models, name, match[2], match[3])
    found = [each for each in models.versions(name) if version in (None, each.version)]
    if metadata and found:
        return json_reply(metadata_of(found[0]))
    if found:
        return json_reply({"model_version_status": [_status(each) for each in found]})
    if metadata:
        raise _not_found(name, version)
    what = "any versions" if version is None else f"version {version}"
    raise RequestError(f"Could not find {what} of model {name}", status=404)


def _version(models: Models, name: str, digits: str | None, label: str | None) -> int | None:
    if label is not None:
        version = models.labelled(name, unquote(label))
        if version is None:
            raise RequestError(f"Unrecognized servable version label: {unquote(label)}")
        return version
    if digits is None:
        return None
    if len(digits) > 19 or int(digits) >= 2**63:
        raise RequestError(f"Failed to convert version: {digits} to numeric.")
    return int(digits)


def _not_found(name: str, version: int | None) -> RequestError:
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return RequestError(f"Servable not found for request: {wanted}", status=404)


def _status(model: Model) -> dict[str, Any]:
    state = "AVAILABLE" if model.ready else "LOADING" if model.batcher.healthy else "END"
    return {"version": str(model.version), "state": state, "status": {"error_code": "OK", "error_message": ""}}
