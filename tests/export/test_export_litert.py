"""LiteRT files: by TensorFlow's converter with sizes open, by litert-torch with a signature for each of some shapes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from made_bundles import pixels, write_image_bundle, write_table_bundle
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
