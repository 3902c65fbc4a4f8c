"""LiteRT files: by TensorFlow's converter with sizes open, by litert-torch with a signature for each of some shapes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bundles import pixels, write_image_bundle, write_language_bundle, write_table_bundle
from needs import needs_litert_torch, needs_tensorflow

from thrifty.errors import MissingExtraError
from thrifty.export import other_python
from thrifty.export.bundle import Bundle, load_bundle
from thrifty.export.interpreted import read_lite
from thrifty.export.other_python import VARIABLE, python_with_tensorflow
from thrifty.export.parity import RELATIVE
from thrifty.export.targets import TARGETS
from thrifty.export.targets import litert as exporting
from thrifty.export.targets.served import Source
from thrifty.models.generate import generate

# What a user's program does, with nothing of this package: a number of rows that the export did not try.
_USE = """
import sys, numpy
from ai_edge_litert.interpreter import Interpreter
sys.modules["thrifty"] = None
served = Interpreter(sys.argv[1]).get_signature_runner("serving_default")
numpy.save(sys.argv[3], served(pixels=numpy.load(sys.argv[2]))["probabilities"])
"""


@needs_tensorflow
@pytest.mark.slow
def test_images_go_in_as_bytes_in_any_number(tmp_path: Path) -> None:
    write_image_bundle(tmp_path / "bundle", named="mlp-small")
    bundle = load_bundle(tmp_path / "bundle")
    report = TARGETS["litert"](Source(bundle), tmp_path / "there")
    assert report["sizes"] == "open" and report["max_difference"] <= RELATIVE
    assert report["route"] == exporting.TARGET.routes[0].says
    images = np.stack([pixels(each) for each in range(5)])
    np.save(tmp_path / "x.npy", images)
    paths = [tmp_path / "there/model.tflite", tmp_path / "x.npy", tmp_path / "y.npy"]
    subprocess.run([python_with_tensorflow(), "-c", _USE, *paths], check=True)
    assert np.allclose(np.load(tmp_path / "y.npy"), bundle.form.probabilities(images), atol=1e-5)


@needs_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "shape"), [("gpt", (1, 1, 2, 0, 16)), ("llama", (1, 1, 2, 0, 8))], ids=["gpt", "llama"]
)
def test_a_decoder_keeps_keys_and_values(family: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    write_language_bundle(tmp_path / "bundle", family=family)
    source = Source(load_bundle(tmp_path / "bundle"))
    model: Any = source.bundle.model
    report = TARGETS["litert"](source, tmp_path / "there")
    assert report["decoder"]["file"] == "decoder.tflite", report["decoder"]
    assert report["decoder"]["max_difference"] <= RELATIVE
    answer = exporting._answering(tmp_path / "there/decoder.tflite")
    keys = values = np.zeros(shape, np.float32)
    new, text = [5, 7, 11], []
    for _ in range(6):
        found = answer({"tokens": np.array([new]), "keys": keys, "values": values})
        keys, values = found["keys_read"], found["values_read"]
        new = [int(found["logits"][0, -1].argmax())]
        text += new
    assert text == generate(model, [5, 7, 11], max_tokens=6, temperature=0)


@needs_litert_torch
@pytest.mark.slow
def test_without_tensorflow_shapes_are_fixed_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks() -> str:
        raise MissingExtraError("exporting for TensorFlow", package="tensorflow", extra="savedmodel")

    monkeypatch.setattr(other_python, "python_with_tensorflow", lacks)
    write_table_bundle(tmp_path / "bundle", labels=())
    source = Source(load_bundle(tmp_path / "bundle"))
    report = TARGETS["litert"](source, tmp_path / "there")
    assert json.loads((tmp_path / "there/parity.json").read_text()) == report
    first, second = exporting.TARGET.routes
    assert report["route"] == second.says
    assert report["fell_back"] == {first.says: "exporting for TensorFlow needs the package 'tensorflow'"}
    width = source.x.shape[1]
    assert report["sizes"] == "fixed"
    assert report["signatures"] == {f"serving_{rows}x{width}": [rows, width] for rows in (1, 3, 8)}
    computed = read_lite(tmp_path / "there/model.tflite")
    with pytest.raises(ValueError, match=f"no signature 'serving_2x{width}'; there are serving_1x"):
        computed({"rows": np.zeros((2, width), np.float32)})


def test_without_an_interpreter_two_ways_to_get_it_are_told(
    image_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"'ai-edge-litert'.*thrifty\[litert\]'; or .*export {VARIABLE}="):
        TARGETS["litert"](Source(image_bundle), tmp_path / "there")
    assert list(tmp_path.iterdir()) == []
