"""Texts over both protocols: the answers are the bundle's own, and bad requests are told."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from made_bundles import LABELS

from thrifty.export.bundle import Bundle

TEXTS = ["the cat", "the dog sat on the mat", "", "cat " * 40]
TF, CLASSIFY, OIP = "/v1/models/critic:predict", "/v1/models/critic:classify", "/v2/models/critic/infer"


def tensor(data: Any, **changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "shape": [len(data)], "datatype": "BYTES", "data": data, **changes}]}


def expected(critic: Bundle) -> list[dict[str, Any]]:
    return [critic.predict(text) for text in TEXTS]


def check(found: list[dict[str, Any]], critic: Bundle) -> None:
    for each, wanted in zip(found, expected(critic), strict=True):
        assert each["label"] == wanted["label"]
        assert each["probabilities"] == pytest.approx(list(wanted["probabilities"].values()), abs=1e-5)


@pytest.mark.parametrize("form", ["texts", "named", "base64", "columns"])
def test_tensorflow_serving_predicts_texts(client: httpx.Client, critic: Bundle, form: str) -> None:
    encoded = [{"b64": base64.b64encode(text.encode()).decode()} for text in TEXTS]
    body: dict[str, Any] = {
        "texts": {"instances": TEXTS},
        "named": {"instances": [{"text": text} for text in TEXTS]},
        "base64": {"instances": encoded},
        "columns": {"inputs": {"text": TEXTS}},
    }[form]
    answer = client.post(TF, json=body).json()
    if form == "columns":
        outputs = answer["outputs"]
        rows = zip(outputs["label"], outputs["probabilities"], strict=True)
        check([{"label": label, "probabilities": row} for label, row in rows], critic)
    else:
        check(answer["predictions"], critic)


def test_tensorflow_serving_classifies_texts(client: httpx.Client, critic: Bundle) -> None:
    results = client.post(CLASSIFY, json={"examples": [{"text": text} for text in TEXTS]}).json()["results"]
    for pairs, wanted in zip(results, expected(critic), strict=True):
        assert dict(map(tuple, pairs)) == pytest.approx(wanted["probabilities"], abs=1e-5)


def test_open_inference_takes_texts(client: httpx.Client, critic: Bundle) -> None:
    outputs = {each["name"]: each for each in client.post(OIP, json=tensor(TEXTS)).json()["outputs"]}
    assert outputs["probabilities"]["shape"] == [len(TEXTS), len(LABELS)]
    flat = outputs["probabilities"]["data"]
    rows = [flat[start : start + len(LABELS)] for start in range(0, len(flat), len(LABELS))]
    found = zip(outputs["label"]["data"], rows, strict=True)
    check([{"label": label, "probabilities": row} for label, row in found], critic)


def test_metadata_says_text(client: httpx.Client) -> None:
    described = client.get("/v1/models/critic/metadata").json()
    signature = described["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert list(signature["inputs"]) == ["text"]
    assert sorted(signature["outputs"]) == ["label", "probabilities"]
    v2 = client.get("/v2/models/critic").json()
    assert v2["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert v2["outputs"][0]["parameters"] == {"labels": list(LABELS)}


REFUSED = [
    (TF, {"instances": [5]}, "string"),
    (TF, {"instances": [{"image": "a"}]}, "does not have named input: image"),
    (TF, {"instances": [{"text": "a", "max_tokens": 3}]}, "does not have named input: max_tokens"),
    (TF, {"instances": ["a" * 70_000]}, "A text has over 65536 bytes"),
    (CLASSIFY, {"examples": [{"text": 5}]}, 'An example must be {"text": "..."}'),
    (CLASSIFY, {"examples": [{"image": {"b64": ""}}]}, 'An example must be {"text": "..."}'),
    (OIP, tensor([5]), "of BYTES must hold strings alone"),
    (OIP, tensor(["a"], name="prompt"), "unexpected inference input 'prompt'"),
    (OIP, tensor(["a", "b"], shape=[3]), "has 2 values; its shape says 3"),
]


@pytest.mark.parametrize(("path", "body", "says"), REFUSED)
def test_bad_requests_are_told(client: httpx.Client, path: str, body: dict[str, Any], says: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert says in answer.json()["error"]
