"""A bundle that classifies texts: raw text in, whatever its batch, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_bundles import LABELS, export_onnx, pixels, png, text_dataset, write_text_bundle

from thrifty.data.texts.word_pieces import pad
from thrifty.errors import BundleError, JobError, RequestError
from thrifty.export.bundle import Bundle, load_bundle
from thrifty.export.check import sha256

SAID = st.text(st.sampled_from("the cat sat on a mad dog ☃"), max_size=60)


def test_a_text_is_answered_as_the_model_answers_its_tokens(text_bundle: Bundle) -> None:
    answer = text_bundle.predict("The cat sat on the dog")
    tokens = torch.tensor([text_bundle.form.row("the cat sat on the dog")])
    with torch.inference_mode():
        direct = torch.softmax(text_bundle.model(tokens), 1)[0]
    assert tuple(answer["probabilities"]) == LABELS
    assert np.allclose(list(answer["probabilities"].values()), direct, atol=1e-6)
    assert answer["label"] == LABELS[int(direct.argmax())]


@settings(max_examples=20, deadline=None)
@given(texts=st.lists(SAID, min_size=1, max_size=6))
def test_an_answer_does_not_depend_on_its_batch(text_bundle: Bundle, texts: list[str]) -> None:
    rows = [text_bundle.form.row(text) for text in texts]
    together = text_bundle.form.probabilities(rows)
    assert together.dtype == np.float32
    alone = np.concatenate([text_bundle.form.probabilities([row]) for row in rows])
    assert np.allclose(alone, together, atol=1e-5)


def test_texts_are_classified_in_pieces_of_bounded_size(text_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [text_bundle.form.row("cat " * count) for count in (3, 9, 1, 0, 5, 2, 7)]
    whole = text_bundle.form.probabilities(rows)
    monkeypatch.setattr("thrifty.export.forms.texts.ROWS_AT_ONCE", 3)
    assert np.allclose(text_bundle.form.probabilities(rows), whole, atol=1e-5)
    assert text_bundle.form.probabilities([]).shape == (0, 3)


ODD = ["", "cat " * 900, "x" * 500, "ß 語 \n\t", "[PAD] [SEP]", "half \ud800 of a pair", "\0"]


@pytest.mark.parametrize("text", ODD)
def test_any_text_is_answered(text_bundle: Bundle, text: str) -> None:
    assert len(text_bundle.form.row(text)) <= 16
    assert sum(text_bundle.predict(text)["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_wrong_input_is_named(text_bundle: Bundle) -> None:
    with pytest.raises(RequestError, match="takes one text"):
        text_bundle.predict(png(pixels(1)))
    with pytest.raises(RequestError, match="takes one text, not the option 'max_tokens'"):
        text_bundle.predict("a cat", max_tokens=3)


def spoil(folder: Path, **changes: Any) -> None:
    """Change the description; a name with ``__`` reaches inside."""
    info = json.loads((folder / "bundle.json").read_text())
    for name, value in changes.items():
        *path, last = name.split("__")
        inner = info
        for part in path:
            inner = inner[part]
        inner[last] = value
    (folder / "bundle.json").write_text(json.dumps(info))


DAMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "no length": ({"data__shape": []}, "texts of shape"),
    "a vast length": ({"data__shape": [10**9]}, "texts of shape"),
    "a longer length than the model's": ({"data__shape": [32], "model__arguments__length": 1}, "of shape"),
    "one label": ({"data__labels": ["cat"]}, "not all different"),
    "labels too few": ({"data__labels": ["cat", "dog"]}, "values for 2 names"),
    "another kind": ({"data__kind": "language"}, "does not fit data of kind 'language'"),
    "another family": ({"model__family": "resnet"}, "is learned by: bert, "),
    "a small table": ({"model__arguments__vocabulary": 4}, "of shape"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_named(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "bundle"
    write_text_bundle(folder)
    changes, says = DAMAGES[damage]
    spoil(folder, **changes)
    with pytest.raises(BundleError, match=says):
        load_bundle(folder)


def test_a_tokenizer_without_marks_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_text_bundle(folder)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("[CLS]", "[XXX]"))
    spoil(folder, files={name: sha256(folder / name) for name in ("model.safetensors", "tokenizer.json")})
    with pytest.raises(BundleError, match=r"bundle is damaged: tokenizer .*tokenizer\.json"):
        load_bundle(folder)


def test_texts_come_with_their_tokenizer(tmp_path: Path, text_bundle: Bundle) -> None:
    from thrifty.export.bundle import write_bundle
    from thrifty.spec import Spent

    with pytest.raises(JobError, match="data of kind 'text' with tokenizer 'None'"):
        write_bundle(
            tmp_path / "b", name="b", version=1, task="classify", model=text_bundle.model, plan=text_bundle.info.model,
            data=text_dataset(80), tokenizer=None, metrics={}, isa=(), bill=Spent(),
        )  # fmt: skip


@pytest.mark.slow
def test_onnx_of_any_batch_and_length(tmp_path: Path, text_bundle: Bundle) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")

    report = export_onnx(text_bundle, tmp_path / "onnx")
    assert len(report["differences"]) == 9
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    for texts in (["the cat"], ["the dog sat", "mat", "cat " * 30], [""] * 5):
        rows = [text_bundle.form.row(text) for text in texts]
        (found,) = session.run(["probabilities"], {"tokens": pad(rows, most=16)})
        assert np.allclose(found, text_bundle.form.probabilities(rows), atol=1e-5)


def _of_pairs(folder: Path) -> Bundle:
    write_text_bundle(folder, family="bert_original", pairs=True)
    return load_bundle(folder)


def test_the_second_text_of_a_pair_is_the_second_segment(tmp_path: Path) -> None:
    bundle = _of_pairs(tmp_path / "pairs")
    pair, model = bundle.form.row("the cat\tthe dog"), bundle.model
    assert pair.count(3) == 2
    with torch.inference_mode():
        told = torch.softmax(model(torch.tensor([pair])), 1)[0].tolist()
        model.separator = None
        untold = torch.softmax(model(torch.tensor([pair])), 1)[0].tolist()
        model.separator = 3
    assert list(bundle.predict("the cat\tthe dog")["probabilities"].values()) == pytest.approx(told, abs=1e-6)
    assert np.abs(np.subtract(told, untold)).max() > 1e-3


@pytest.mark.slow
def test_pairs_are_exported(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    bundle = _of_pairs(tmp_path / "pairs")
    export_onnx(bundle, tmp_path / "onnx")
    session = runtime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    rows = [bundle.form.row(text) for text in ("the cat\tthe dog sat", "the mat")]
    found = session.run(["probabilities"], {"tokens": pad(rows, 16)})[0]
    np.testing.assert_allclose(found, bundle.form.probabilities(rows), atol=1e-5)
