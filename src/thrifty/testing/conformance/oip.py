"""The conformance table of the Open Inference Protocol v2 over REST; it leaves texts of errors to the server.

Source: the protocol's specification, and Triton's extensions where the server says that it has them.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from thrifty.testing.conformance.samples import base64_of, texts
from thrifty.testing.conformance.table import Answer, Row, Server, any_error, holds

_TYPES = {
    **{f"{sign}INT{bits}": bits // 8 for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "BOOL": 1, "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8, "BYTES": 0,
}  # fmt: skip
_WRONG = tuple(range(400, 500))
_NO_MODEL = "no model is named, and the server lists none: give --model"
_NO_SAMPLE = "no made-up input is answered: give --sample"
_HEAD = "Inference-Header-Content-Length"


def rows(server: Server, model: str | None, sample: Any) -> Iterator[Row]:
    """The rows for a server; what needs a model is made of what its metadata says.

    Args:
        server: to ask.
        model: of its models; looked for in the repository when None.
        sample: the ``inputs`` of a request that the model answers; made up when None.
    """
    yield Row("live", path="/v2/health/live")
    yield Row("ready", path="/v2/health/ready")
    said = holds("it has name, version and extensions", _is_server)
    yield Row("server metadata", path="/v2", check=said)
    found = server.ask("GET", "/v2").value
    extensions = found.get("extensions", []) if isinstance(found, dict) else []
    for name, path in (
        ("unknown model", "/v2/models/no-such-model"),
        ("unknown model's readiness", "/v2/models/no-such-model/ready"),
    ):
        yield Row(name, path=path, status=_WRONG, check=any_error)
    yield Row("infer of an unknown model", "POST", "/v2/models/no-such-model/infer", {"inputs": []}, _WRONG, any_error)
    yield Row("unknown path", path="/v2/no-such-path", status=(404,), check=any_error)
    model = model or _listed(server, extensions)
    if model is None:
        yield Row("a model's own rows", skip=_NO_MODEL)
        return
    yield from _of_model(server, f"/v2/models/{quote(model, safe='')}", model, extensions, sample)
    listed = "" if "model_repository" in extensions else "the server has no model_repository"
    index = holds("it lists names", lambda value: all(isinstance(each["name"], str) for each in value))
    yield Row("repository index", "POST", "/v2/repository/index", {}, check=index, skip=listed)


def _is_server(value: Any) -> bool:
    texts = isinstance(value["name"], str) and isinstance(value["version"], str)
    return texts and all(isinstance(each, str) for each in value["extensions"])


def _listed(server: Server, extensions: list[str]) -> str | None:
    if "model_repository" not in extensions:
        return None
    found = server.ask("POST", "/v2/repository/index", {"ready": True}).value
    return next((each["name"] for each in found if each.get("state") == "READY"), None) if found else None


def _of_model(server: Server, base: str, model: str, extensions: list[str], sample: Any) -> Iterator[Row]:
    yield Row("model metadata", path=base, check=holds("it has name, platform, inputs and outputs", _is_model))
    yield Row("model ready", path=f"{base}/ready")
    found = server.ask("GET", base).value
    if not isinstance(found, dict) or not _is_model(found):
        return
    for version in found.get("versions", [])[:1]:
        yield Row(
            "metadata of a version",
            path=f"{base}/versions/{version}",
            check=holds("its name", lambda v: v["name"] == model),
        )
    yield Row("unknown version", path=f"{base}/versions/999999", status=_WRONG, check=any_error)
    outputs = {each["name"]: each for each in found["outputs"]}
    inputs = sample if sample is not None else _made_up(server, base, found["inputs"])
    skip = _NO_SAMPLE if inputs is None else ""
    yield from _of_bodies(base)
    first = inputs[0] if inputs else {}
    right = holds("its outputs fit the metadata", lambda value: _fits(value, model, outputs))
    yield Row("infer", "POST", f"{base}/infer", {"inputs": inputs}, check=right, skip=skip)
    yield Row(
        "infer echoes its id",
        "POST",
        f"{base}/infer",
        {"id": "q-1", "inputs": inputs},
        check=holds("id is q-1", lambda v: v["id"] == "q-1"),
        skip=skip,
    )
    name = next(iter(outputs))
    one = {"inputs": inputs, "outputs": [{"name": name}]}
    yield Row(
        "infer of one output",
        "POST",
        f"{base}/infer",
        one,
        check=holds(f"{name} alone", lambda v: [o["name"] for o in v["outputs"]] == [name]),
        skip=skip,
    )
    for wrong, change in (
        ("an unknown input", {"name": "no-such-input"}),
        ("another type", {"datatype": "INT64" if first.get("datatype") != "INT64" else "FP32"}),
        ("an unknown type", {"datatype": "NO_SUCH"}),
        ("a shape of another rank", {"shape": [*first.get("shape", []), 2, 2]}),
        ("a shape that the values do not fill", {"shape": [3, *first.get("shape", [1])[1:]]}),
        ("a negative shape", {"shape": [-1, *first.get("shape", [1])[1:]]}),
        ("values that are no list", {"data": 1}),
    ):  # fmt: skip
        body = {"inputs": [{**first, **change}, *(inputs or [])[1:]]}
        yield Row(f"infer of {wrong}", "POST", f"{base}/infer", body, _WRONG, any_error, skip=skip)
    unknown = {"inputs": inputs, "outputs": [{"name": "no-such-output"}]}
    yield Row("infer of an unknown output", "POST", f"{base}/infer", unknown, _WRONG, any_error, skip=skip)
    yield from _of_binary(f"{base}/infer", inputs, outputs, extensions)


def _is_model(value: Any) -> bool:
    tensors = [*value["inputs"], *value["outputs"]]
    fit = all(each["datatype"] in _TYPES and isinstance(each["shape"], list) and each["name"] for each in tensors)
    return fit and isinstance(value["name"], str) and isinstance(value["platform"], str)


def _of_bodies(base: str) -> Iterator[Row]:
    for name, body in (
        ("no body", b""),
        ("no JSON", b"{"),
        ("a list", []),
        ("no inputs", {}),
        ("inputs no list", {"inputs": 1}),
        ("empty inputs", {"inputs": []}),
        ("NaN", b'{"inputs": NaN}'),
        ("a hundred levels", b'{"inputs": ' + b"[" * 100 + b"]" * 100 + b"}"),
    ):
        yield Row(f"infer of {name}", "POST", f"{base}/infer", body, _WRONG, any_error)


def _fits(value: Any, model: str, outputs: dict[str, Any]) -> bool:
    found = {each["name"]: each for each in value["outputs"]}
    return value["model_name"] == model and all(
        each["datatype"] == outputs[name]["datatype"]
        and len(each["shape"]) == len(outputs[name]["shape"])
        and (len(each["data"]) == math.prod(each["shape"]) or len(each["data"]) == each["shape"][0])
        for name, each in found.items()
    )


def _of_binary(path: str, inputs: Any, outputs: dict[str, Any], extensions: list[str]) -> Iterator[Row]:
    has = any("binary" in each for each in extensions)
    skip = _NO_SAMPLE if inputs is None else "" if has else "the server has no binary_tensor_data"
    request = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    yield Row("binary answer", "POST", path, request, check=lambda answer: _binary(answer, outputs), skip=skip)
    head = json.dumps({"inputs": [{**each, "parameters": {"binary_data_size": 4}} for each in inputs or []]}).encode()
    yield Row(
        "binary body cut short",
        "POST",
        path,
        head + b"12",
        _WRONG,
        any_error,
        headers={_HEAD: str(len(head))},
        skip=skip,
    )
    yield Row("binary head over the body", "POST", path, b"{}", _WRONG, any_error, headers={_HEAD: "99"}, skip=skip)


def _binary(answer: Answer, outputs: dict[str, Any]) -> str:
    head = int(answer.headers[_HEAD.lower()])
    at = head
    for each in json.loads(answer.body[:head])["outputs"]:
        size = each["parameters"]["binary_data_size"]
        width = _TYPES[outputs[each["name"]]["datatype"]]
        if width and size != math.prod(each["shape"]) * width:
            return f"{each['name']} has {size} bytes"
        if not width and not _are_texts(answer.body[at : at + size], math.prod(each["shape"])):
            return f"{each['name']} holds no texts after their lengths"
        at += size
    return "" if at == len(answer.body) else f"{len(answer.body) - at} bytes are left over"


def _are_texts(raw: bytes, count: int) -> bool:
    at = 0
    for _ in range(count):
        at += 4 + struct.unpack_from("<I", raw, at)[0]
    return at == len(raw)


def _made_up(server: Server, base: str, tensors: list[dict[str, Any]]) -> Any:
    """Inputs that the model answers: all of them, or the first where others stand for it; None where none are."""
    for text in texts():
        value = base64_of(text) if isinstance(text, bytes) else text
        made = [_tensor(each, value) for each in tensors]
        for inputs in (made, made[:1]) if len(made) > 1 else (made,):
            if server.ask("POST", f"{base}/infer", {"inputs": inputs}).status == 200:
                return inputs
    return None


def _tensor(tensor: dict[str, Any], text: str) -> dict[str, Any]:
    shape = [max(1, size) for size in tensor["shape"]]
    value = text if tensor["datatype"] == "BYTES" else tensor["datatype"] == "BOOL" and False
    return {
        "name": tensor["name"],
        "datatype": tensor["datatype"],
        "shape": shape,
        "data": [value or 0] * math.prod(shape),
    }
