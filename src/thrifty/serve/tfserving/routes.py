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
    model = find(models, name, _version(models, name, match[2], match[3]))
    check_method(model, verb)
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
    if metadata:
        return json_reply(metadata_of(find(models, name, version)))
    return json_reply(statuses(models, name, version))


def find(models: Models, name: str, version: int | None) -> Model:
    """Return a version of a model, or its latest.

    Raises:
        RequestError: 404, there is none.
    """
    model = models.find(name, version)
    if model is None:
        wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise RequestError(f"Servable not found for request: {wanted}", status=404)
    return model


def check_method(model: Model, verb: str) -> None:
    """Refuse a method that a model has no answer for.

    Raises:
        RequestError: a model without labels is to classify, or one with labels to tell a number.
    """
    if verb in _ANSWERS and _ANSWERS[verb] not in model.form.outputs:
        raise RequestError(
            f"Expected {'regression' if verb == 'regress' else 'classification'} signature method_name to be "
            f"tensorflow/serving/{verb}. Was: tensorflow/serving/predict"
        )


def statuses(models: Models, name: str, version: int | None) -> dict[str, Any]:
    """Say how the versions of a model stand, or one of them.

    Raises:
        RequestError: 404, there is none.
    """
    found = [each for each in models.versions(name) if version in (None, each.version)]
    if not found:
        what = "any versions" if version is None else f"version {version}"
        raise RequestError(f"Could not find {what} of model {name}", status=404)
    return {"model_version_status": [_status(each) for each in found]}


def labelled(models: Models, name: str, label: str) -> int:
    """Return the version that a label stands for.

    Raises:
        RequestError: it stands for none.
    """
    version = models.labelled(name, label)
    if version is None:
        raise RequestError(f"Unrecognized servable version label: {label}")
    return version


def _version(models: Models, name: str, digits: str | None, label: str | None) -> int | None:
    if label is not None:
        return labelled(models, name, unquote(label))
    if digits is None:
        return None
    if len(digits) > 19 or int(digits) >= 2**63:
        raise RequestError(f"Failed to convert version: {digits} to numeric.")
    return int(digits)


def _status(model: Model) -> dict[str, Any]:
    state = "AVAILABLE" if model.ready else "LOADING" if model.batcher.healthy else "END"
    return {"version": str(model.version), "state": state, "status": {"error_code": "OK", "error_message": ""}}
