"""A model of several labels behind both protocols: probabilities, and the labels of each text as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from made_bundles import LABELS, write_text_bundle
from real_server import running

from thrifty.export.bundle import load_bundle

TEXTS = ["the cat sat", "a dog on the mat"]


@pytest.mark.slow
def test_texts_are_labelled_by_both_protocols(tmp_path: Path) -> None:
    write_text_bundle(tmp_path / "bundle", name="tagger", task="tag")
    bundle = load_bundle(tmp_path / "bundle")
    expected = [bundle.predict(text) for text in TEXTS]
    with running([bundle]) as url:
        rows = httpx.post(f"{url}/v1/models/tagger:predict", json={"instances": TEXTS}).json()["predictions"]
        examples = {"examples": [{"text": text} for text in TEXTS]}
        classified = httpx.post(f"{url}/v1/models/tagger:classify", json=examples).json()["results"]
        asked = {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": TEXTS}]}
        outputs = httpx.post(f"{url}/v2/models/tagger/infer", json=asked).json()["outputs"]
        about = httpx.get(f"{url}/v2/models/tagger").json()["outputs"]
    values = [list(each["probabilities"].values()) for each in expected]
    told = {each["name"]: each["data"] for each in outputs}
    for number, wanted in enumerate(values):
        assert rows[number]["probabilities"] == pytest.approx(wanted, abs=1e-5)
        assert dict(classified[number]) == pytest.approx(dict(zip(LABELS, wanted, strict=True)), abs=1e-5)
        assert told["probabilities"][3 * number : 3 * number + 3] == pytest.approx(wanted, abs=1e-5)
    for labels in ([row["labels"] for row in rows], told["labels"]):
        assert list(map(json.loads, labels)) == [each["labels"] for each in expected]
    assert about[0]["parameters"] == {"labels": list(LABELS)}
