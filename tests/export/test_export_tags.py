"""A bundle of texts with several labels: each with a probability by itself, those over a half said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_bundles import LABELS, export_onnx, onnx_session, write_text_bundle

from thrifty.errors import BundleError
from thrifty.export.bundle import Bundle, load_bundle
from thrifty.export.hugging_face import export_hugging_face

TEXTS = ("the cat sat", "on the mat and the dog", "", "a cat")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "tagger"
    write_text_bundle(folder, name="tagger", task="tag")
    return load_bundle(folder)


def test_labels_are_those_over_a_half(bundle: Bundle) -> None:
    rows = [bundle.form.row(text) for text in TEXTS]
    together = [bundle.form.described(answer) for answer in bundle.form.answers(rows)]
    for text, tokens, other in zip(TEXTS, rows, together, strict=True):
        answer = bundle.predict(text)
        with torch.no_grad():
            wanted = bundle.model(torch.tensor([tokens]))[0].sigmoid()
        assert list(answer["probabilities"].values()) == pytest.approx(wanted.tolist(), abs=1e-5)
        assert answer["labels"] == [label for label, each in zip(LABELS, wanted, strict=True) if each > 0.5]
        assert other["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)


def test_labels_of_a_bundle_are_checked(tmp_path: Path) -> None:
    write_text_bundle(tmp_path / "tagger", task="tag")
    path = tmp_path / "tagger" / "bundle.json"
    path.write_text(path.read_text().replace('"owl"', '"cat"'))
    with pytest.raises(BundleError, match="labels, not all different"):
        load_bundle(tmp_path / "tagger")


@pytest.mark.slow
def test_it_is_exported(bundle: Bundle, tmp_path: Path) -> None:
    assert export_onnx(bundle, tmp_path)["max_difference"] < 1e-4
    session = onnx_session(tmp_path / "model.onnx")
    tokens = torch.randint(1, bundle.info.data.vocabulary, (2, 7)).numpy()
    logits, probabilities = session.run(["logits", "probabilities"], {"tokens": tokens})
    assert probabilities == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)


@pytest.mark.slow
def test_its_form_of_hugging_face_says_that_labels_are_several(tmp_path: Path) -> None:
    write_text_bundle(tmp_path / "tagger", family="bert_original", task="tag")
    export_hugging_face(load_bundle(tmp_path / "tagger"), tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert list(config["label2id"]) == list(LABELS)
