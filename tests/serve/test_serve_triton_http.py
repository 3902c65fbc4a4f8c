"""tritonclient over HTTP against a real server: binary tensors both ways, JSON, raw bodies, classes, metadata."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from made_bundles import LABELS, pixels, png

from thrifty.export.bundle import Bundle

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    from tritonclient.utils import InferenceServerException

INFER = "/v2/models/pets/versions/1/infer"


@pytest.fixture
def asking(url: str) -> Iterator[Any]:
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    yield client
    client.close()


def tensor(name: str, values: np.ndarray, datatype: str, *, binary: bool = True) -> Any:
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def expected(pets: Bundle, *seeds: int) -> np.ndarray:
    return np.asarray(pets.form.probabilities(np.stack([pixels(seed) for seed in seeds])))


@pytest.mark.parametrize("compressed", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "json out"])
def test_pixels_by_bytes(asking: Any, pets: Bundle, compressed: str | None, binary_out: bool) -> None:
    given = tensor("pixels", np.stack([pixels(1), pixels(2)]), "UINT8")
    wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary_out)]
    answer = asking.infer(
        "pets", [given], "1", outputs=wanted, request_id="r7", request_compression_algorithm=compressed
    )
    assert answer.get_response()["id"] == "r7"
    assert answer.as_numpy("label") is None
    assert np.allclose(answer.as_numpy("probabilities"), expected(pets, 1, 2), atol=1e-5)


def test_files_and_labels_by_bytes(asking: Any, pets: Bundle) -> None:
    files = np.array([png(pixels(3)), png(pixels(4))], dtype=np.object_)
    answer = asking.infer("pets", [tensor("image", files, "BYTES")], "1")
    assert np.allclose(answer.as_numpy("probabilities"), expected(pets, 3, 4), atol=1e-5)
    wanted = [LABELS[index].encode() for index in expected(pets, 3, 4).argmax(1)]
    assert answer.as_numpy("label").tolist() == wanted


def test_pixels_by_json(asking: Any, pets: Bundle) -> None:
    given = tensor("pixels", pixels(5)[None], "UINT8", binary=False)
    answer = asking.infer(
        "pets", [given], "1", outputs=[triton.InferRequestedOutput("probabilities", binary_data=False)]
    )
    assert np.allclose(answer.as_numpy("probabilities"), expected(pets, 5), atol=1e-5)


def test_classes(asking: Any, pets: Bundle) -> None:
    wanted = triton.InferRequestedOutput("probabilities", class_count=2)
    answer = asking.infer("pets", [tensor("pixels", pixels(6)[None], "UINT8")], "1", outputs=[wanted])
    said = [text.decode().split(":") for text in answer.as_numpy("probabilities")[0]]
    best = np.argsort(-expected(pets, 6)[0])[:2]
    assert [(int(index), label) for _, index, label in said] == [(int(index), LABELS[index]) for index in best]


def test_options_of_prompts(asking: Any, poet: Bundle) -> None:
    prompt = np.array([b"the cat"], dtype=np.object_)
    answer = asking.infer("poet", [tensor("prompt", prompt, "BYTES")], parameters={"max_tokens": 5, "seed": 2})
    wanted = poet.predict("the cat", max_tokens=5, seed=2)["completion"]
    assert answer.as_numpy("completion").tolist() == [wanted.encode()]


def test_health_and_metadata(asking: Any) -> None:
    assert asking.is_server_live() and asking.is_server_ready()
    assert asking.is_model_ready("pets", "2")
    assert "binary_tensor_data" in asking.get_server_metadata()["extensions"]
    assert asking.get_model_metadata("pets")["versions"] == ["1", "2"]
    (told,) = asking.get_inference_statistics("pets", "1")["model_stats"]
    assert (told["name"], told["version"]) == ("pets", "1")
    assert told["inference_count"] >= told["execution_count"] >= 1


def test_errors_are_told(asking: Any) -> None:
    with pytest.raises(InferenceServerException, match="unexpected inference output 'x'"):
        asking.infer("pets", [tensor("pixels", pixels(1)[None], "UINT8")], outputs=[triton.InferRequestedOutput("x")])
    with pytest.raises(InferenceServerException, match="'nope' is not found"):
        asking.get_model_metadata("nope")


def test_a_raw_body_is_one_file(client: httpx.Client, pets: Bundle) -> None:
    reply = client.post(INFER, content=png(pixels(8)), headers={"Inference-Header-Content-Length": "0"})
    assert reply.headers["content-type"] == "application/octet-stream"
    head = int(reply.headers["inference-header-content-length"])
    found = np.frombuffer(reply.content[head : head + 12], "<f4")
    assert np.allclose(found, expected(pets, 8)[0], atol=1e-5)


def _binary(head: bytes, tail: bytes, length: int | str | None = None) -> dict[str, Any]:
    told = str(len(head) if length is None else length)
    return {"content": head + tail, "headers": {"Inference-Header-Content-Length": told}}


def _image(size: Any, shape: str = "[1]") -> bytes:
    return (
        b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": %s, "parameters": {"binary_data_size": %s}}]}'
        % (shape.encode(), str(size).encode())
    )


WRONG = {
    "length over the body": (_binary(b"{}", b"", 99), "is no length within the body"),
    "length no number": (_binary(b"{}", b"", "-1"), "is no length within the body"),
    "size over the body": (_binary(_image(9), b"1234"), "'binary_data_size' of input 'image' is no length"),
    "size negative": (_binary(_image(-1), b""), "'binary_data_size' of input 'image' is no length"),
    "size a text": (_binary(_image('"4"'), b"1234"), "'binary_data_size' of input 'image' is no length"),
    "bytes left over": (_binary(_image(0), b"1234"), "expected 1 strings for inference input 'image', got 0"),
    "string cut short": (_binary(_image(6), struct.pack("<I", 9) + b"12"), "incomplete string data"),
    "length cut short": (_binary(_image(2), b"12"), "incomplete string data"),
    "too many strings": (_binary(_image(8), bytes(8)), "got over 1"),
    "no image": (_binary(_image(4), bytes(4)), "image 0: "),
    "pixels too few": (
        _binary(
            b'{"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 16, 16, 3],'
            b' "parameters": {"binary_data_size": 3}}]}',
            b"123",
        ),
        "unexpected total byte size 3 for input 'pixels', expecting 768",
    ),
    "raw no image": (_binary(b"", b"not an image"), "image 0: "),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_binary_bodies_are_told(client: httpx.Client, case: str) -> None:
    request, says = WRONG[case]
    reply = client.post(INFER, **request)
    assert reply.status_code == 400
    assert list(reply.json()) == ["error"]
    assert says in reply.json()["error"]


def test_bytes_of_no_input_are_told(client: httpx.Client) -> None:
    head = _image(4 + len(png(pixels(1))))
    body = struct.pack("<I", len(png(pixels(1)))) + png(pixels(1))
    reply = client.post(INFER, **_binary(head, body + b"more"))
    assert reply.json() == {"error": "unexpected additional input data: 4 bytes belong to no input"}
