"""A model of hidden words behind both protocols: texts with [MASK] in, the same texts filled out."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from made_bundles import write_text_bundle
from real_server import running

from thrifty.export.bundle import load_bundle

TEXTS = ["the [MASK] sat", "a [MASK] and a [MASK]"]


@pytest.mark.slow
def test_texts_are_filled_by_both_protocols(tmp_path: Path) -> None:
    write_text_bundle(tmp_path / "bundle", name="filler", task="mask")
    bundle = load_bundle(tmp_path / "bundle")
    expected = [bundle.predict(text) for text in TEXTS]
    with running([bundle]) as url:
        rows = httpx.post(f"{url}/v1/models/filler:predict", json={"instances": TEXTS}).json()["predictions"]
        asked = {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": TEXTS}]}
        outputs = httpx.post(f"{url}/v2/models/filler/infer", json=asked).json()["outputs"]
        refused = httpx.post(f"{url}/v1/models/filler:predict", json={"instances": ["nothing hidden"]})
    assert [row["filled"] for row in rows] == [each["filled"] for each in expected]
    told = {each["name"]: each["data"] for each in outputs}
    assert told["filled"] == [each["filled"] for each in expected]
    assert [[list(place) for place in json.loads(words)] for words in told["words"]] == [
        [list(place) for place in each["words"]] for each in expected
    ]
    assert refused.status_code == 400
    assert "hides no word" in refused.json()["error"]
