"""SavedModels by the real TensorFlow: loaded without this package, at sizes never tried; what cannot be is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_bundles import pixels, write_language_bundle
from needs import needs_tensorflow
from torch import Tensor, nn

from thrifty.errors import BundleError, JobError, MissingExtraError
from thrifty.export import other_python
from thrifty.export.bundle import Bundle, load_bundle
from thrifty.export.check import sha256
from thrifty.export.other_python import VARIABLE, TensorFlow, python_with_tensorflow, tensorflow
from thrifty.export.parity import RELATIVE
from thrifty.export.targets import TARGETS
from thrifty.export.targets.savedmodel import ask_saved_model, write_saved_model
from thrifty.export.targets.served import Source
from thrifty.models.generate import generate

# What a user's program does, with nothing of this package.
_USE = """
import json, sys, numpy, tensorflow as tf
sys.modules["thrifty"] = None
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
sizes = {name: each.shape.as_list() for name, each in served.structured_input_signature[1].items()}
found = served(pixels=tf.constant(numpy.load(sys.argv[2])))
numpy.savez(sys.argv[3], **{name: each.numpy() for name, each in found.items()})
print(json.dumps(sizes))
"""


@needs_tensorflow
@pytest.mark.slow
def test_images_go_in_as_bytes_wherever_tensorflow_is(tmp_path: Path, image_bundle: Bundle) -> None:
    report = TARGETS["savedmodel"](Source(image_bundle), tmp_path / "there")
    assert json.loads((tmp_path / "there/parity.json").read_text()) == report
    assert report["max_difference"] <= RELATIVE
    assert len(report["differences"]) == 3
    hashes = {name: sha256(tmp_path / "there" / name) for name in report["files"]}
    assert hashes == report["files"]
    assert hashes.keys() > {"saved_model.pb", "variables/variables.index"}
    images = np.stack([pixels(each) for each in range(5)])
    np.save(tmp_path / "x.npy", images)
    told = subprocess.run(
        [python_with_tensorflow(), "-c", _USE, tmp_path / "there", tmp_path / "x.npy", tmp_path / "y.npz"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert json.loads(told.stdout) == {"pixels": [None, 16, 16, 3]}
    found = np.load(tmp_path / "y.npz")
    assert set(found) == {"probabilities", "logits"}
    assert np.allclose(found["probabilities"], image_bundle.form.probabilities(images), atol=1e-5)
    # once more, in the place of the first
    assert TARGETS["savedmodel"](Source(image_bundle), tmp_path / "there")["files"].keys() == report["files"].keys()
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


@needs_tensorflow
@pytest.mark.slow
def test_a_decoder_of_tensorflow_keeps_keys_and_values(tmp_path: Path) -> None:
    write_language_bundle(tmp_path / "bundle", family="llama")
    source = Source(load_bundle(tmp_path / "bundle"))
    model: Any = source.bundle.model
    report = TARGETS["savedmodel"](source, tmp_path / "there")
    assert report["decoder"]["file"] == "decoder/saved_model.pb"
    assert report["decoder"]["max_difference"] <= RELATIVE
    keys = values = np.zeros((1, 1, 2, 0, 8), np.float32)
    new, text = [5, 7, 11], []
    for _ in range(6):
        found = ask_saved_model(tmp_path / "there/decoder", {"tokens": np.array([new]), "keys": keys, "values": values})
        keys, values = found["keys_read"], found["values_read"]
        new = [int(found["logits"][0, -1].argmax())]
        text += new
    assert text == generate(model, [5, 7, 11], max_tokens=6, temperature=0)


class Spectrum(nn.Module):
    def forward(self, waves: Tensor) -> dict[str, Tensor]:
        return {"power": torch.fft.rfft(waves).abs().erfinv()}


@needs_tensorflow
@pytest.mark.slow
def test_operators_without_a_form_are_named(tmp_path: Path) -> None:
    program = torch.export.export(Spectrum(), (torch.zeros(2, 8),))
    with pytest.raises(BundleError, match=r"no form of aten\._fft_r2c\.default, aten\.erfinv\.default in TensorFlow"):
        write_saved_model(program, tmp_path, inputs=["waves"], outputs=["power"])
    assert list(tmp_path.iterdir()) == []


@needs_tensorflow
@pytest.mark.slow
def test_a_process_that_was_killed_is_started_again() -> None:
    first = tensorflow()
    with pytest.raises(BundleError, match=r"refuses it: .*no such folder"):
        first.ask("answer", folder="no such folder", inputs={})
    assert tensorflow() is first
    os.kill(first._process.pid, signal.SIGKILL)
    with pytest.raises(BundleError, match="ended: exit code -9"):
        first.ask("answer", folder="", inputs={})
    again = tensorflow()
    assert again is not first
    with pytest.raises(BundleError, match="refuses it"):
        again.ask("answer", folder="no such folder", inputs={})


def test_a_program_that_is_no_python_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(JobError, match=f"{VARIABLE} names .*none', which is no program"):
        python_with_tensorflow()
    ended = TensorFlow("/bin/false")
    with pytest.raises(BundleError, match="'/bin/false' ended: exit code 1"):
        ended.ask("answer")
    ended.close()


def test_a_python_without_tensorflow_says_what_it_lacks(tmp_path: Path) -> None:
    # no packages but Python's own
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    process = TensorFlow(str(bare))
    with pytest.raises(BundleError, match="ended: ModuleNotFoundError: No module named 'tensorflow'"):
        process.ask("answer")
    process.close()


def test_without_tensorflow_two_ways_to_get_it_are_told(
    image_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(other_python.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=rf"thrifty\[savedmodel\]'; or .*install tensorflow .*; export {VARIABLE}="
    ):
        TARGETS["savedmodel"](Source(image_bundle), tmp_path / "there")
    assert list(tmp_path.iterdir()) == []
