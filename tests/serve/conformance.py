"""What both protocols answer, row by row; can be asked of any server: python tests/serve/conformance.py URL.

The server has an image classifier ``pets`` (16 x 16, colour, 3 labels) with versions 1 and 2, and a language model
``poet`` version 1. Sources: TensorFlow Serving's http_rest_api_util.cc and json_tensor.cc; the Open Inference
Protocol's specification, and Triton where that leaves the text open.
"""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import dataclass
from typing import Any

import httpx

IMAGE = base64.b64encode(
    # a 1 x 1 red PNG
    base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC")
).decode()
PIXELS = [[[7, 8, 9]] * 16] * 16


class Like:
    """Equal to what its function accepts."""

    def __init__(self, says: str, accepts: Any) -> None:
        self.says, self.accepts = says, accepts

    def __eq__(self, other: object) -> bool:
        return bool(self.accepts(other))

    def __repr__(self) -> str:
        return f"<{self.says}>"


def _is_distribution(value: Any) -> bool:
    return len(value) == 3 and all(isinstance(each, float) for each in value) and abs(sum(value) - 1) < 1e-5


ANY_TEXT = Like("any text", lambda value: isinstance(value, str))
DISTRIBUTION = Like("3 probabilities", _is_distribution)
FLAT_TWO = Like("2 x 3 probabilities", lambda v: _is_distribution(v[:3]) and _is_distribution(v[3:]))
LABEL = Like("a label", lambda value: value in ("cat", "dog", "owl"))
LABELLED = Like(
    "[label, score] for each label",
    lambda v: [label for label, _ in v] == ["cat", "dog", "owl"] and _is_distribution([score for _, score in v]),
)


def starts(text: str) -> Like:
    return Like(f"{text}...", lambda value: isinstance(value, str) and value.startswith(text))


def contains(text: str) -> Like:
    return Like(f"...{text}...", lambda value: isinstance(value, str) and text in value)


@dataclass(frozen=True)
class Row:
    """A request and its answer; ``body`` is sent as JSON unless it is bytes."""

    name: str
    method: str
    path: str
    body: Any
    status: int
    answer: Any


def get(path: str, status: int, answer: Any) -> Row:
    return Row(f"GET {path}", "GET", path, None, status, answer)


def wrong(method: str, path: str, status: int, text: Any, body: Any = None) -> Row:
    shown = body.decode(errors="replace") if isinstance(body, bytes) else json.dumps(body)
    return Row(f"{method} {path} {shown[:60]}", method, path, body, status, {"error": text})


PREDICT = "/v1/models/pets:predict"
POET = "/v1/models/poet:predict"
INFER = "/v2/models/pets/infer"
SAY = "/v2/models/poet/infer"
PREDICTION = {"label": LABEL, "probabilities": DISTRIBUTION}


def _bad_instance(text: Any, *instances: Any) -> Row:
    return wrong("POST", PREDICT, 400, text, {"instances": list(instances)})


def _status(version: str) -> dict[str, Any]:
    return {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


def _dims(*sizes: int) -> dict[str, Any]:
    return {"dim": [{"size": str(size), "name": ""} for size in sizes], "unknown_rank": False}


def _signatures(outputs: dict[str, Any], **inputs: dict[str, Any]) -> dict[str, Any]:
    rest = {"outputs": outputs, "method_name": "tensorflow/serving/predict", "defaults": {}}
    return {"signature_def": {"signature_def": {name: {"inputs": each, **rest} for name, each in inputs.items()}}}


TFSERVING = [
    get("/v1/models/pets", 200, {"model_version_status": [_status("2"), _status("1")]}),
    get("/v1/models/pets/versions/1", 200, {"model_version_status": [_status("1")]}),
    get("/V1/MODELS/pets", 200, {"model_version_status": [_status("2"), _status("1")]}),
    get("/v1/models/%70ets/versions/2", 200, {"model_version_status": [_status("2")]}),
    get(
        "/v1/models/poet/metadata",
        200,
        {
            "model_spec": {"name": "poet", "signature_name": "", "version": "1"},
            "metadata": _signatures(
                {"completion": {"dtype": "DT_STRING", "tensor_shape": _dims(-1), "name": "completion:0"}},
                serving_default={"prompt": {"dtype": "DT_STRING", "tensor_shape": _dims(-1), "name": "prompt:0"}},
            ),
        },
    ),
    get(
        "/v1/models/pets/versions/1/metadata",
        200,
        {
            "model_spec": {"name": "pets", "signature_name": "", "version": "1"},
            "metadata": _signatures(
                {
                    "label": {"dtype": "DT_STRING", "tensor_shape": _dims(-1), "name": "label:0"},
                    "probabilities": {"dtype": "DT_FLOAT", "tensor_shape": _dims(-1, 3), "name": "probabilities:0"},
                },
                serving_default={"image": {"dtype": "DT_STRING", "tensor_shape": _dims(-1), "name": "image:0"}},
                pixels={
                    "pixels": {"dtype": "DT_UINT8", "tensor_shape": _dims(-1, 16, 16, 3), "name": "pixels:0"},
                },
            ),
        },
    ),
    wrong("GET", "/v1/models/nope", 404, "Could not find any versions of model nope"),
    wrong("GET", "/v1/models/pets/versions/7", 404, "Could not find version 7 of model pets"),
    wrong("GET", "/v1/models/nope/metadata", 404, "Servable not found for request: Latest(nope)"),
    wrong("GET", "/v1/foo", 400, "Malformed request: GET /v1/foo"),
    wrong("GET", PREDICT, 400, f"Malformed request: GET {PREDICT}"),
    wrong("POST", "/v1/models/pets", 400, "Malformed request: POST /v1/models/pets", {}),
    wrong("DELETE", "/v1/models/pets", 400, "Malformed request: DELETE /v1/models/pets"),
    wrong("POST", "/v1/models/pets:train", 400, "Malformed request: POST /v1/models/pets:train", {}),
    wrong("GET", "/v1/models/pets/labels/stable", 400, "Unrecognized servable version label: stable"),
    wrong("POST", "/v1/models/pets/labels/stable:predict", 400, "Unrecognized servable version label: stable", {}),
    wrong("POST", "/v1/models/nope:predict", 404, "Servable not found for request: Latest(nope)", {"instances": [1]}),
    wrong("POST", "/v1/models/pets/versions/7:predict", 404, "Servable not found for request: Specific(pets, 7)", {}),
    wrong(
        "POST",
        f"/v1/models/pets/versions/{10**20}:predict",
        400,
        f"Failed to convert version: {10**20} to numeric.",
        {},
    ),
    Row(
        "row form, files", "POST", PREDICT, {"instances": [{"b64": IMAGE}] * 2}, 200, {"predictions": [PREDICTION] * 2}
    ),
    Row("row form, pixels", "POST", PREDICT, {"instances": [PIXELS]}, 200, {"predictions": [PREDICTION]}),
    Row(
        "row form, mixed",
        "POST",
        PREDICT,
        {"signature_name": "serving_default", "instances": [PIXELS, {"b64": IMAGE}]},
        200,
        {"predictions": [PREDICTION] * 2},
    ),
    Row(
        "row form, named",
        "POST",
        "/v1/models/pets/versions/1:predict",
        {"instances": [{"image": {"b64": IMAGE}}, {"image": PIXELS}]},
        200,
        {"predictions": [PREDICTION] * 2},
    ),
    Row(
        "column form",
        "POST",
        PREDICT,
        {"inputs": {"image": [{"b64": IMAGE}]}},
        200,
        {"outputs": {"label": [LABEL], "probabilities": [DISTRIBUTION]}},
    ),
    Row(
        "column form, one input without its name",
        "POST",
        PREDICT,
        {"inputs": [PIXELS]},
        200,
        {"outputs": {"label": [LABEL], "probabilities": [DISTRIBUTION]}},
    ),
    Row(
        "classify",
        "POST",
        "/v1/models/pets:classify",
        {"examples": [{"image": {"b64": IMAGE}}]},
        200,
        {"results": [LABELLED]},
    ),
    Row(
        "prompts",
        "POST",
        POET,
        {"instances": [{"prompt": "the", "max_tokens": 2, "temperature": 0.5, "top_k": 5, "seed": 1}]},
        200,
        {"predictions": [ANY_TEXT]},
    ),
    Row("plain prompt", "POST", POET, {"instances": ["the"]}, 200, {"predictions": [ANY_TEXT]}),
    Row("prompts by column", "POST", POET, {"inputs": {"prompt": ["a", "b"]}}, 200, {"outputs": [ANY_TEXT] * 2}),
    wrong("POST", PREDICT, 400, "JSON Parse error: The document is empty", b""),
    wrong("POST", PREDICT, 400, "JSON Parse error: The document is empty. at offset: 1", b" "),
    wrong("POST", PREDICT, 400, "JSON Parse error: Invalid value. at offset: 0", b"hello"),
    wrong("POST", PREDICT, 400, "JSON Parse error: Missing a name for object member. at offset: 1", b"{"),
    wrong(
        "POST", PREDICT, 400, "JSON Parse error: Missing a colon after a name of object member. at offset: 5", b'{"a" 1'
    ),
    wrong(
        "POST", PREDICT, 400, "JSON Parse error: Missing a comma or } after an object member. at offset: 6", b'{"a":1'
    ),
    wrong(
        "POST", PREDICT, 400, "JSON Parse error: Missing a comma or ] after an array element. at offset: 8", b'{"a": [1'
    ),
    wrong(
        "POST",
        PREDICT,
        400,
        contains("nan Type: Number is not of expected type"),
        json.dumps({"instances": [[[[float("nan"), 2, 3]] * 16] * 16]}).encode(),
    ),
    Row("text after the object", "POST", POET, b'{"instances": ["the"]} and so on', 200, {"predictions": [ANY_TEXT]}),
    Row(
        "signature by name",
        "POST",
        PREDICT,
        {"signature_name": "pixels", "instances": [PIXELS]},
        200,
        {"predictions": [PREDICTION]},
    ),
    Row(
        "classify with a context",
        "POST",
        "/v1/models/pets:classify",
        {"context": {"image": {"b64": IMAGE}}, "examples": [{}]},
        200,
        {"results": [LABELLED]},
    ),
    wrong(
        "POST",
        PREDICT,
        400,
        contains("is not nested pixels"),
        {"signature_name": "pixels", "instances": [{"b64": IMAGE}]},
    ),
    wrong("POST", PREDICT, 400, starts("JSON Parse error: "), b"[" * 100_000),
    wrong("POST", PREDICT, 400, starts("JSON Parse error: "), b"\xff\xfe"),
    wrong("POST", PREDICT, 400, "JSON Value: [1] Is not object", [1]),
    wrong("POST", PREDICT, 400, "Missing 'inputs' or 'instances' key", {}),
    wrong(
        "POST",
        PREDICT,
        400,
        contains("expecting only one of 'inputs' or 'instances' keys to exist "),
        {"inputs": 1, "instances": 1},
    ),
    wrong("POST", PREDICT, 400, contains("Expecting 'instances' to be an list/array"), {"instances": 1}),
    wrong("POST", PREDICT, 400, contains("No values in 'instances' array"), {"instances": []}),
    wrong(
        "POST",
        PREDICT,
        400,
        'Serving signature name: "s" not found in signature def',
        {"signature_name": "s", "instances": [1]},
    ),
    wrong(
        "POST",
        PREDICT,
        400,
        contains("'signature_name' key must be a string value."),
        {"signature_name": 1, "instances": [1]},
    ),
    _bad_instance(contains("Unable to base64 decode"), {"b64": "§"}),
    _bad_instance(
        starts("Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "), {"b64": "AAAA"}
    ),
    _bad_instance(
        starts("Failed to process element: 1 key: image of 'instances' list. Error: INVALID_ARGUMENT: "),
        {"image": PIXELS},
        {"image": "text"},
    ),
    _bad_instance(contains("JSON object: does not have named input: picture"), {"picture": PIXELS}),
    _bad_instance(contains("keys must be equal to: image"), {}),
    _bad_instance("Expecting object but got list at item 1 of input list", {"image": PIXELS}, PIXELS),
    _bad_instance("Expecting value/list but got object at item 1 of input list", PIXELS, {"image": PIXELS}),
    _bad_instance(contains("Encountered list at unexpected size: 1 at level: 0 expected size: 16"), [[[1, 2, 3]]]),
    _bad_instance(
        contains("Encountered list at unexpected size: 2 at level: 2 expected size: 3"),
        [[[1, 2]] + [[1, 2, 3]] * 15] + [[[1, 2, 3]] * 16] * 15,
    ),
    _bad_instance(contains('JSON Value: "a" Type: String is not of expected type: uint8'), [[["a", 2, 3]] * 16] * 16),
    _bad_instance(contains("JSON Value: 256 Type: Number is not of expected type: uint8"), [[[256, 2, 3]] * 16] * 16),
    _bad_instance(contains("JSON Value: 0.5 Type: Number is not of expected type: uint8"), [[[0.5, 2, 3]] * 16] * 16),
    _bad_instance(contains("found at incorrect level: 2 in the JSON DOM. Expected at level: 3"), [1] * 16),
    wrong("POST", PREDICT, 400, "Missing named input: image in 'inputs' object.", {"inputs": {"x": 1}}),
    wrong("POST", PREDICT, 400, contains("must be a list"), {"inputs": {"b64": IMAGE}}),
    wrong("POST", "/v1/models/pets:classify", 400, contains("key 'examples' is expected and was not found"), {}),
    wrong("POST", "/v1/models/pets:classify", 400, contains("'examples' value is an empty array"), {"examples": []}),
    wrong(
        "POST",
        "/v1/models/pets:classify",
        400,
        "Example must be JSON object but got JSON Number",
        {"examples": [1]},
    ),
    wrong(
        "POST",
        "/v1/models/pets:regress",
        400,
        "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/predict",
        {"examples": [{}]},
    ),
    wrong("POST", POET, 400, contains("keys must be equal to: prompt"), {"instances": [{"seed": 1}]}),
    wrong("POST", POET, 400, contains("max_tokens must be"), {"instances": [{"prompt": "a", "max_tokens": 0}]}),
    wrong("POST", POET, 400, contains("max_tokens must be"), {"instances": [{"prompt": "a", "max_tokens": 10**9}]}),
    wrong("POST", POET, 400, contains("temperature must be"), {"instances": [{"prompt": "a", "temperature": -1}]}),
    wrong("POST", POET, 400, contains("seed must be"), {"instances": [{"prompt": "a", "seed": 2**70}]}),
    wrong("POST", POET, 400, contains("not of expected type: string"), {"instances": [1]}),
]


def _tensor(name: str, datatype: str, shape: Any, data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def _infer(*inputs: Any, **more: Any) -> dict[str, Any]:
    return {"inputs": list(inputs), **more}


def _answer(count: int, data: Any, labels: list[Any], **more: Any) -> dict[str, Any]:
    outputs = [
        {"name": "probabilities", "datatype": "FP32", "shape": [count, 3], "data": data},
        {"name": "label", "datatype": "BYTES", "shape": [count], "data": labels},
    ]
    return {"model_name": "pets", "model_version": "2", **more, "outputs": outputs}


_FILES = _tensor("image", "BYTES", [2], [IMAGE, IMAGE])
_FILE = _tensor("image", "BYTES", [1], [IMAGE])
_FLAT = [1, 2, 3] * 256

OIP = [
    get("/v2/health/live", 200, {"live": True}),
    get("/v2/health/ready", 200, {"ready": True}),
    get(
        "/v2",
        200,
        {"name": ANY_TEXT, "version": ANY_TEXT, "extensions": Like("names", lambda v: "binary_tensor_data" in v)},
    ),
    get("/v2/models/pets/ready", 200, {"name": "pets", "ready": True}),
    get("/v2/models/pets/versions/1/ready", 200, {"name": "pets", "ready": True}),
    get(
        "/v2/models/pets",
        200,
        {
            "name": "pets",
            "versions": ["1", "2"],
            "platform": ANY_TEXT,
            "inputs": [
                {"name": "image", "datatype": "BYTES", "shape": [-1]},
                {"name": "pixels", "datatype": "UINT8", "shape": [-1, 16, 16, 3]},
            ],
            "outputs": [
                {
                    "name": "probabilities",
                    "datatype": "FP32",
                    "shape": [-1, 3],
                    "parameters": {"labels": ["cat", "dog", "owl"]},
                },
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
            ],
        },
    ),
    get(
        "/v2/models/poet/versions/1",
        200,
        {
            "name": "poet",
            "versions": ["1"],
            "platform": ANY_TEXT,
            "inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "completion", "datatype": "BYTES", "shape": [-1]}],
        },
    ),
    Row("infer files", "POST", INFER, _infer(_FILES), 200, _answer(2, FLAT_TWO, [LABEL, LABEL])),
    Row("infer echoes id", "POST", INFER, _infer(_FILE, id="q-1"), 200, _answer(1, DISTRIBUTION, [LABEL], id="q-1")),
    Row(
        "infer flat pixels",
        "POST",
        INFER,
        _infer(_tensor("pixels", "UINT8", [2, 16, 16, 3], _FLAT * 2)),
        200,
        _answer(2, FLAT_TWO, [LABEL, LABEL]),
    ),
    Row(
        "infer nested pixels",
        "POST",
        INFER,
        _infer(_tensor("pixels", "UINT8", [1, 16, 16, 3], [PIXELS])),
        200,
        _answer(1, DISTRIBUTION, [LABEL]),
    ),
    Row(
        "infer one output of version 1",
        "POST",
        "/v2/models/pets/versions/1/infer",
        _infer(_FILE, outputs=[{"name": "label"}]),
        200,
        {
            "model_name": "pets",
            "model_version": "1",
            "outputs": [{"name": "label", "datatype": "BYTES", "shape": [1], "data": [LABEL]}],
        },
    ),
    Row(
        "infer prompts",
        "POST",
        SAY,
        _infer(_tensor("prompt", "BYTES", [2], ["the", "a"]), parameters={"max_tokens": 2, "seed": 3}),
        200,
        {
            "model_name": "poet",
            "model_version": "1",
            "outputs": [{"name": "completion", "datatype": "BYTES", "shape": [2], "data": [ANY_TEXT, ANY_TEXT]}],
        },
    ),
    wrong("GET", "/v2/nope", 404, "Not Found"),
    wrong("GET", "/nope", 404, "Not Found"),
    wrong("POST", "/v2/health/live", 405, "Method Not Allowed"),
    wrong("GET", INFER, 405, "Method Not Allowed"),
    wrong("GET", "/v2/models/nope", 404, "Request for unknown model: 'nope' is not found"),
    wrong("GET", "/v2/models/Pets", 404, "Request for unknown model: 'Pets' is not found"),
    wrong("GET", "/v2/models/pets/versions/7/ready", 404, "Request for unknown model: 'pets' version 7 is not found"),
    wrong("POST", "/v2/models/nope/infer", 404, "Request for unknown model: 'nope' is not found", {}),
    wrong("POST", "/v2/models/pets/versions/x/infer", 404, contains("version x is not found"), {}),
    wrong("POST", INFER, 400, "failed to parse the request JSON buffer: Missing a name for object member. at 1", b"{"),
    wrong("POST", INFER, 400, "failed to parse the request JSON buffer: Invalid value. at 0", b'{"inputs": NaN}'),
    wrong("POST", INFER, 400, contains("must be a JSON object"), []),
    wrong("POST", INFER, 400, contains("Unable to parse 'inputs'"), {}),
    wrong("POST", INFER, 400, contains("expected 1 inputs but got 2"), _infer(_FILE, _FILE)),
    wrong("POST", INFER, 400, "an input lacks its 'shape'", _infer({"name": "image"})),
    wrong("POST", INFER, 400, contains("unexpected inference input 'x'"), _infer(_tensor("x", "BYTES", [1], [""]))),
    wrong(
        "POST",
        INFER,
        400,
        "inference input 'pixels' data-type is 'FP32', but model 'pets' expects 'UINT8'",
        _infer(_tensor("pixels", "FP32", [1, 16, 16, 3], _FLAT)),
    ),
    wrong(
        "POST",
        INFER,
        400,
        "unexpected shape for input 'pixels' for model 'pets'. Expected [-1,16,16,3], got [1,8,8,3]",
        _infer(_tensor("pixels", "UINT8", [1, 8, 8, 3], [0] * 192)),
    ),
    wrong(
        "POST",
        INFER,
        400,
        "input 'pixels' has 768 values; its shape says 1536",
        _infer(_tensor("pixels", "UINT8", [2, 16, 16, 3], _FLAT)),
    ),
    wrong(
        "POST",
        INFER,
        400,
        contains("not of expected type: uint8"),
        _infer(_tensor("pixels", "UINT8", [1, 16, 16, 3], [-1] * 768)),
    ),
    wrong("POST", INFER, 400, contains("no rows"), _infer(_tensor("image", "BYTES", [0], []))),
    wrong("POST", INFER, 400, "image 0: Unable to base64 decode", _infer(_tensor("image", "BYTES", [1], ["§"]))),
    wrong("POST", INFER, 400, contains("must hold strings alone"), _infer(_tensor("image", "BYTES", [1], [1]))),
    wrong("POST", INFER, 400, "'id' must be a string", _infer(_FILE, id=1)),
    wrong("POST", INFER, 400, contains("unexpected inference output 'x'"), _infer(_FILE, outputs=[{"name": "x"}])),
    wrong(
        "POST",
        INFER,
        400,
        contains("'binary_data_output' must be"),
        _infer(_FILE, parameters={"binary_data_output": 1}),
    ),
    wrong(
        "POST", INFER, 400, contains("Shared memory"), _infer({**_FILE, "parameters": {"shared_memory_region": "r"}})
    ),
    Row(
        "infer classes",
        "POST",
        INFER,
        _infer(_FILE, outputs=[{"name": "probabilities", "parameters": {"classification": 2}}]),
        200,
        {
            "model_name": "pets",
            "model_version": "2",
            "outputs": [
                {
                    "name": "probabilities",
                    "datatype": "BYTES",
                    "shape": [1, 2],
                    "data": Like("2 classes", lambda v: [len(x.split(":")) for x in v] == [3, 3]),
                }
            ],
        },
    ),
    wrong(
        "POST",
        SAY,
        400,
        contains("temperature must be"),
        _infer(_tensor("prompt", "BYTES", [1], ["a"]), parameters={"temperature": "hot"}),
    ),
]

ROWS = [*TFSERVING, *OIP]


def ask(client: httpx.Client, row: Row) -> tuple[int, Any]:
    """Send a row; returns the status and the decoded body."""
    content = row.body if isinstance(row.body, bytes) else None if row.body is None else json.dumps(row.body).encode()
    reply = client.request(row.method, row.path, content=content)
    assert reply.headers["content-type"] == "application/json", reply.headers
    return reply.status_code, reply.json()


def main() -> int:
    failed = 0
    with httpx.Client(base_url=sys.argv[1], timeout=30) as client:
        for row in ROWS:
            found = ask(client, row)
            if found != (row.status, row.answer):
                failed += 1
                print(f"{row.name}\n  wanted {row.status} {row.answer}\n  found  {found[0]} {found[1]}")
    print(f"{len(ROWS) - failed} of {len(ROWS)} rows hold")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
