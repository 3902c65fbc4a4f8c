"""Which path of the Open Inference Protocol is what: health, metadata, infer."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote

from thrifty.errors import RequestError
from thrifty.serve.http import Reply, Work, json_reply
from thrifty.serve.metrics import Metrics
from thrifty.serve.models import Ask, Model, Models
from thrifty.serve.oip.metadata import metadata_of, server_metadata, stats_of
from thrifty.serve.oip.repository import OFF, OFF_MEND, Repository, check_parameters
from thrifty.serve.oip.rest import HEAD_LENGTH, parse_infer, parse_object

_REPOSITORY = re.compile(r"/v2/repository/(?:index|models/([^/]+)/(load|unload))")
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|infer|stats))?")


def owns(path: str) -> bool:
    """Say whether a path is this protocol's."""
    return path == "/v2" or path.startswith("/v2/")


def ask_for(
    method: str, path: str, headers: dict[bytes, bytes], models: Models
) -> tuple[Model, Callable[[bytes], Ask]] | None:
    """Find the model that an infer request is for, and the function that parses its body; None when it is none.

    Raises:
        RequestError: 404 unknown model or version.
    """
    match = _MODEL.fullmatch(path)
    if match is None or match[3] != "infer" or method != "POST":
        return None
    model = _find(match, models)
    head_length = headers.get(HEAD_LENGTH)
    return model, lambda body: parse_infer(model, head_length, body)


def work_for(method: str, path: str, repository: Repository | None) -> Work | None:
    """Find what a request of the model repository asks for; None when it is none.

    Raises:
        RequestError: 403 the repository is off, 405 another verb than POST.
    """
    match = _REPOSITORY.fullmatch(path)
    if match is None:
        return None
    if method != "POST":
        raise RequestError("Method Not Allowed", status=405)
    if repository is None:
        raise RequestError(OFF, status=403, mend=OFF_MEND)
    held = repository
    name, verb = unquote(match[1] or ""), match[2]

    def run(body: bytes) -> Reply:
        asked = parse_object(body) if body else {}
        if verb is None:
            ready_only = asked.get("ready", False)
            if not isinstance(ready_only, bool):
                raise RequestError("'ready' must be true or false")
            return json_reply(held.index(ready_only=ready_only))
        parameters = asked.get("parameters", {})
        if not isinstance(parameters, dict):
            raise RequestError("'parameters' must be an object")
        check_parameters(parameters)
        (held.load if verb == "load" else held.unload)(name)
        return Reply(200, b"")

    return Work(run)


def look_up(method: str, path: str, models: Models, metrics: Metrics, *, ready: bool, repository: bool) -> Reply:
    """Answer what needs no model to compute: health, metadata and statistics.

    Raises:
        RequestError: 404 unknown model or path, 405 another verb than the path has.
    """
    match = _MODEL.fullmatch(path)
    plain = path.rstrip("/") if path == "/v2/" else path
    if match is None and plain not in ("/v2", "/v2/health/live", "/v2/health/ready"):
        raise RequestError("Not Found", status=404)
    if method != ("POST" if match is not None and match[3] == "infer" else "GET"):
        raise RequestError("Method Not Allowed", status=405)
    if match is not None:
        model = _find(match, models)
        if match[3] == "ready":
            return json_reply({"name": model.name, "ready": model.ready}, 200 if model.ready else 503)
        if match[3] == "stats":
            asked = [model] if match[2] else reversed(models.versions(model.name))
            return json_reply({"model_stats": [stats_of(each, metrics) for each in asked]})
        return json_reply(metadata_of(model, models))
    if plain == "/v2":
        return json_reply(server_metadata(repository=repository))
    if plain == "/v2/health/live":
        return json_reply({"live": True})
    return json_reply({"ready": ready}, 200 if ready else 503)


def _find(match: re.Match[str], models: Models) -> Model:
    name, version = unquote(match[1]), match[2]
    number = int(version) if version is not None and version.isdecimal() and len(version) < 20 else None
    model = models.find(name, number) if version is None or number is not None else None
    if model is None:
        which = f"'{name}'" if version is None else f"'{name}' version {unquote(version)}"
        raise RequestError(f"Request for unknown model: {which} is not found", status=404)
    return model
