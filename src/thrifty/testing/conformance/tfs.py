"""The conformance table of TensorFlow Serving's REST API v1.

Source: tensorflow_serving/model_servers/http_rest_api_handler.cc and util/json_tensor.cc.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from thrifty.testing.conformance.samples import base64_of, texts, zeros
from thrifty.testing.conformance.table import Answer, Check, Row, Server, holds, says

_ABSENT = "no-such-model"
_NO_MODEL = "no model is named: give --model"
_NO_SAMPLE = "no made-up input is answered: give --sample"
_DIGITS = 10**20


def rows(server: Server, model: str | None, sample: Any) -> Iterator[Row]:
    """The rows for a server; what needs a model is made of what its metadata says.

    Args:
        server: to ask.
        model: of its models.
        sample: an instance that the model answers; made up when None.
    """
    yield from _of_paths()
    if model is None:
        yield Row("a model's own rows", skip=_NO_MODEL)
        return
    base = f"/v1/models/{quote(model, safe='')}"
    yield from _of_status(server, base, model)
    yield from _of_bodies(base)
    instance = sample if sample is not None else _made_up(server, base)
    yield from _of_answers(base, instance)


def _of_paths() -> Iterator[Row]:
    for path in ("/v1/foo", "/v1/models/m/versions/x", "/v1/models/m/n/o"):
        yield Row(f"malformed {path}", path=path, status=(400,), check=says(f"Malformed request: GET {path}"))
    path = f"/v1/models/{_ABSENT}"
    yield Row("wrong verb", "DELETE", path, status=(400,), check=says(f"Malformed request: DELETE {path}"))
    yield Row("unknown method", "POST", f"{path}:train", {}, (400,), says(f"Malformed request: POST {path}:train"))
    yield Row(
        "status of an unknown model",
        path=path,
        status=(404,),
        check=says(f"Could not find any versions of model {_ABSENT}"),
    )
    yield Row(
        "status of an unknown model's version",
        path=f"{path}/versions/7",
        status=(404,),
        check=says(f"Could not find version 7 of model {_ABSENT}"),
    )
    latest = says(f"Servable not found for request: Latest({_ABSENT})")
    yield Row("metadata of an unknown model", path=f"{path}/metadata", status=(404,), check=latest)
    yield Row("predict of an unknown model", "POST", f"{path}:predict", {"instances": [1]}, (404,), latest)
    yield Row(
        "predict of an unknown model's version",
        "POST",
        f"{path}/versions/7:predict",
        {"instances": [1]},
        (404,),
        says(f"Servable not found for request: Specific({_ABSENT}, 7)"),
    )
    yield Row(
        "version too large",
        "POST",
        f"{path}/versions/{_DIGITS}:predict",
        {"instances": [1]},
        (400,),
        says(f"Failed to convert version: {_DIGITS} to numeric."),
    )
    yield Row("OPTIONS without an origin", "OPTIONS", path, status=(400,), check=_empty)
    yield Row(
        "OPTIONS with an origin", "OPTIONS", path, status=(200,), check=_empty, headers={"Origin": "http://a.example"}
    )


def _empty(answer: Answer) -> str:
    return "the body is not empty" if answer.body else ""


def _of_status(server: Server, base: str, model: str) -> Iterator[Row]:
    status = holds("model_version_status lists versions as texts with a state and a status", _is_status)
    yield Row("status", path=base, check=status)
    found = server.ask("GET", base).value
    known = found["model_version_status"][0]["version"] if _is_status(found) else "1"
    yield Row("status of a version", path=f"{base}/versions/{known}", check=status)
    yield Row("paths are case-insensitive", path=f"/V1/MODELS/{quote(model, safe='')}", check=status)
    encoded = "".join(f"%{byte:02X}" for byte in model.encode())
    yield Row("names are percent-decoded", path=f"/v1/models/{encoded}", check=status)
    yield Row("metadata", path=f"{base}/metadata", check=holds("it has model_spec and signature_def", _is_metadata))
    label = f"{base}/labels/no-such-label:predict"
    yield Row(
        "unknown label",
        "POST",
        label,
        {"instances": [1]},
        (400,),
        says("Unrecognized servable version label: no-such-label"),
    )
    missing = f"Could not find version 999999 of model {model}"
    yield Row("unknown version", path=f"{base}/versions/999999", status=(404,), check=says(missing))


def _is_status(value: Any) -> bool:
    versions = value["model_version_status"]
    states = {"UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"}
    return bool(versions) and all(
        isinstance(each["version"], str)
        and each["state"] in states
        and set(each["status"]) == {"error_code", "error_message"}
        for each in versions
    )


def _is_metadata(value: Any) -> bool:
    spec, signatures = value["model_spec"], value["metadata"]["signature_def"]["signature_def"]
    tensors = [tensor for each in signatures.values() for tensor in (each["inputs"] | each["outputs"]).values()]
    sizes = [dim["size"] for tensor in tensors for dim in tensor["tensor_shape"].get("dim", [])]
    texts = all(isinstance(size, str) for size in sizes) and isinstance(spec["version"], str)
    return texts and all(tensor["dtype"].startswith("DT_") and "name" in tensor for tensor in tensors)


def _of_bodies(base: str) -> Iterator[Row]:
    path = f"{base}:predict"

    def part(text: str) -> Check:
        return says(text, whole=False)

    both, unknown = {"inputs": [1], "instances": [1]}, {"signature_name": "no-such", "instances": [1]}
    for name, body, check in (
        ("no body", b"", says("JSON Parse error: The document is empty")),
        ("no JSON", b"hello", says("JSON Parse error: Invalid value. at offset: 0")),
        ("cut JSON", b'{"instances": [', part("JSON Parse error: ")),
        ("a list", [1], part("Is not object")),
        ("neither key", {}, says("Missing 'inputs' or 'instances' key")),
        ("both keys", both, part("expecting only one of 'inputs' or 'instances' keys to exist ")),
        ("instances no list", {"instances": 1}, part("Expecting 'instances' to be an list/array")),
        ("no instances", {"instances": []}, part("No values in 'instances' array")),
        ("unknown signature", unknown, says('Serving signature name: "no-such" not found in signature def')),
        ("signature no text", {**unknown, "signature_name": 1}, part("'signature_name' key must be a string value.")),
        ("a hundred levels", b'{"instances": ' + b"[" * 100 + b"]" * 100 + b"}", part("")),
    ):
        yield Row(f"predict of {name}", "POST", path, body, (400,), check)


def _of_answers(base: str, instance: Any) -> Iterator[Row]:
    path, skip = f"{base}:predict", _NO_SAMPLE if instance is None else ""

    def counted(key: str, count: int) -> Any:
        return holds(f"{key} has {count} rows", lambda value: set(value) == {key} and len(value[key]) == count)

    one, two = {"instances": [instance]}, {"instances": [instance] * 2}
    zipped = gzip.compress(json.dumps(one).encode())
    trailing = json.dumps(one).encode() + b" and more"
    yield Row("row form", "POST", path, one, check=counted("predictions", 1), skip=skip)
    yield Row("row form of two", "POST", path, two, check=counted("predictions", 2), skip=skip)
    columns = {key: [value] for key, value in instance.items()} if _is_named(instance) else [instance]
    yield Row(
        "column form",
        "POST",
        path,
        {"inputs": columns},
        check=holds("it has outputs", lambda v: set(v) == {"outputs"}),
        skip=skip,
    )
    named = {"signature_name": "serving_default", **one}
    yield Row("signature by name", "POST", path, named, check=counted("predictions", 1), skip=skip)
    yield Row(
        "gzip", "POST", path, zipped, check=counted("predictions", 1), headers={"Content-Encoding": "gzip"}, skip=skip
    )
    yield Row("text after the object", "POST", path, trailing, check=counted("predictions", 1), skip=skip)
    unknown = {"instances": [{"no-such-input": 1}]}
    yield Row("unknown input", "POST", path, unknown, (400,), says("", whole=False), skip=skip)
    for verb, kind in (("classify", "classification"), ("regress", "regression")):
        text = f"Expected {kind} signature method_name to be tensorflow/serving/{verb}"
        yield Row(
            f"{verb} without examples", "POST", f"{base}:{verb}", {}, (400,), _either("'examples' is expected", text)
        )


def _either(*texts: str) -> Any:
    def check(answer: Answer) -> str:
        wrong = [says(text, whole=False)(answer) for text in texts]
        return "" if not all(wrong) else " and ".join(wrong)

    return check


def _is_named(instance: Any) -> bool:
    return isinstance(instance, dict) and set(instance) != {"b64"}


def _made_up(server: Server, base: str) -> Any:
    """An instance that the model answers; None where none of those that its metadata suggests is."""
    found = server.ask("GET", f"{base}/metadata").value
    if not isinstance(found, dict) or "metadata" not in found:
        return None
    inputs = found["metadata"]["signature_def"]["signature_def"].get("serving_default", {}).get("inputs", {})
    for text in texts():
        value = {"b64": base64_of(text)} if isinstance(text, bytes) else text
        made = {name: _value(tensor, value) for name, tensor in inputs.items()}
        for instance in (made, next(iter(made.values()))) if len(made) == 1 else (made,):
            if server.ask("POST", f"{base}:predict", {"instances": [instance]}).status == 200:
                return instance
    return None


def _value(tensor: dict[str, Any], text: Any) -> Any:
    sizes = [int(dim["size"]) for dim in tensor["tensor_shape"].get("dim", [])][1:]
    return text if tensor["dtype"] == "DT_STRING" else zeros(sizes)
