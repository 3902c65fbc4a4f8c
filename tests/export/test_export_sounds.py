"""Bundles that hear: sound files in, labels or transcripts out, whatever their batch, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_bundles import LABELS, export_onnx, sound, write_sound_bundle, write_wave_bundle

from thrifty.errors import BundleError, DataError, RequestError
from thrifty.export.bundle import Bundle, load_bundle
from thrifty.export.check import INFO

TONES = [sound(0.2, pitch=300), sound(1.1, pitch=500), sound(0.05), sound(0.6, rate=22_050)]


@pytest.fixture(scope="module")
def ear(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("ear") / "bundle"
    write_sound_bundle(folder)
    return load_bundle(folder)


@pytest.fixture(scope="module")
def scribe(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("scribe") / "bundle"
    write_sound_bundle(folder, task="transcribe", name="scribe")
    return load_bundle(folder)


def test_a_sound_file_is_answered_as_the_model_answers_its_frames(ear: Bundle) -> None:
    answer = ear.predict(TONES[1])
    frames = ear.form.row(TONES[1])
    assert frames.shape == (111, 12)
    with torch.inference_mode():
        direct = torch.softmax(ear.model(torch.from_numpy(frames)[None]), 1)[0]
    assert tuple(answer["probabilities"]) == LABELS
    assert np.allclose(list(answer["probabilities"].values()), direct, atol=1e-5)


def test_an_answer_does_not_depend_on_its_batch(ear: Bundle, scribe: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thrifty.export.forms.sounds.ROWS_AT_ONCE", 3)
    rows = [ear.form.row(each) for each in TONES]
    together = [each["probabilities"] for each in ear.form.answers(rows)]
    alone = [ear.form.answers([row])[0]["probabilities"] for row in rows]
    assert np.allclose(together, alone, atol=1e-5)
    rows = [scribe.form.row(each) for each in TONES]
    assert scribe.form.answers(rows) == [scribe.form.answers([row])[0] for row in rows]


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_waves_are_answered_whatever_their_batch(norm: str, tmp_path: Path) -> None:
    write_wave_bundle(tmp_path / "ear", norm=norm)
    ear = load_bundle(tmp_path / "ear")
    rows = [ear.form.row(each) for each in (*TONES, sound(0.001))]
    assert [row.shape for row in rows] == [(10, 320), (55, 320), (3, 320), (30, 320), (1, 320)]
    together = [each["probabilities"] for each in ear.form.answers(rows)]
    assert np.allclose(together, [ear.form.answers([row])[0]["probabilities"] for row in rows], atol=1e-5)
    assert np.isfinite(together).all()


def test_transcripts_are_spelled_with_the_bundles_symbols(scribe: Bundle) -> None:
    for options in ({}, {"beam": 4}):
        said = scribe.predict(TONES[1], **options)
        assert list(said) == ["transcript"]
        assert set(said["transcript"].split()) <= {"one", "two"}


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (b"", {}, "empty"),
    (b"no sound", {}, "not a sound"),
    (sound(2.0), {"max_seconds": 1.0}, "too long: 2.0 s is over 1 s"),
    (sound(0.5)[:-100], {}, "truncated"),
    ("a text", {}, "takes the bytes of one sound file, not str"),
    (TONES[0], {"beam": 3}, "not the option 'beam'"),
]


@pytest.mark.parametrize(("raw", "options", "says"), REFUSED)
def test_what_is_no_sound_is_refused(ear: Bundle, raw: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises((DataError, RequestError)) as caught:
        ear.predict(raw, **options)
    assert says in str(caught.value)


def test_a_beam_out_of_range_is_refused(scribe: Bundle) -> None:
    with pytest.raises(RequestError, match="beam 0 is out of range"):
        scribe.predict(TONES[0], beam=0)


DAMAGE = {
    "no sound": ({"sound": None}, "does not say how recordings become frames"),
    "another width": ({"shape": [64, 13]}, "has recordings of shape"),
    "another depth": ({"shape": [64]}, "has recordings of shape"),
    "few scales": ({"std": [1.0]}, "means and 1 stds"),
    "no scale": ({"std": [0.0] * 12}, "has the means"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_bundle_that_cannot_be_meant_is_refused(name: str, tmp_path: Path) -> None:
    write_sound_bundle(tmp_path / "b")
    changes, says = DAMAGE[name]
    path = tmp_path / "b" / INFO
    info = json.loads(path.read_text())
    info["data"] |= changes
    path.write_text(json.dumps(info))
    with pytest.raises(BundleError, match=says):
        load_bundle(tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize("waves", [False, True], ids=["bands", "waves"])
@pytest.mark.parametrize("task", ["classify", "transcribe"])
def test_the_onnx_form_answers_as_torch_at_any_length(task: str, waves: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    (write_wave_bundle if waves else write_sound_bundle)(tmp_path / "b", task=task)
    report = export_onnx(load_bundle(tmp_path / "b"), tmp_path / "onnx")
    assert report["max_difference"] <= 1e-4
    assert report["inputs"][0]["name"] == "frames"
    assert len(report["differences"]) == 9
