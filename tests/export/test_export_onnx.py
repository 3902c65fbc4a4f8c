"""The ONNX form answers as torch does at every size, or is not kept."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_bundles import DECODERS, export_onnx, onnx_session, pixels, write_image_bundle, write_language_bundle

from thrifty.errors import BundleError, MissingExtraError
from thrifty.export.bundle import Bundle, load_bundle
from thrifty.export.parity import RELATIVE
from thrifty.export.targets import onnx as exporting
from thrifty.export.targets.served import Served, Source


def test_served_is_the_bundle_in_one_graph(image_bundle: Bundle) -> None:
    images = np.stack([pixels(n) for n in range(4)])
    served = Served(image_bundle.model, image_bundle.info.data.mean, image_bundle.info.data.std).eval()
    with torch.inference_mode():
        answers = served(torch.from_numpy(images))
    assert np.allclose(answers["probabilities"].numpy(), image_bundle.form.probabilities(images), atol=1e-5)
    assert torch.allclose(answers["logits"].softmax(1), answers["probabilities"])


@pytest.mark.slow
def test_images_of_any_batch(tmp_path: Path, image_bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    report = export_onnx(image_bundle, tmp_path / "onnx")
    assert capfd.readouterr().out == ""
    assert sorted(path.name for path in (tmp_path / "onnx").iterdir()) == ["model.onnx", "parity.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]
    assert json.loads((tmp_path / "onnx" / "parity.json").read_text()) == report
    raw = (tmp_path / "onnx" / "model.onnx").read_bytes()
    assert (report["sha256"], report["bytes"]) == (hashlib.sha256(raw).hexdigest(), len(raw))
    assert list(report["differences"]) == [f"{n} x 16 x 16 x 3" for n in (1, 3, 8)]
    assert 0 <= report["max_difference"] <= report["tolerance"] == RELATIVE
    assert report["inputs"][0]["shape"] == ["batch", 16, 16, 3]
    session = onnx_session(raw)
    for rows in (1, 2, 5, 33):  # sizes that the export itself did not try
        images = np.stack([pixels(100 + n) for n in range(rows)])
        (found,) = session.run(["probabilities"], {"pixels": images})
        assert np.allclose(found, image_bundle.form.probabilities(images), atol=1e-5)


@pytest.mark.slow
def test_images_cut_into_patches_of_any_batch(tmp_path: Path) -> None:
    write_image_bundle(tmp_path / "bundle", named="vit-nano")
    bundle = load_bundle(tmp_path / "bundle")
    export_onnx(bundle, tmp_path / "onnx")
    session = onnx_session(tmp_path / "onnx" / "model.onnx")
    for rows in (1, 5):
        images = np.stack([pixels(100 + n) for n in range(rows)])
        (found,) = session.run(["probabilities"], {"pixels": images})
        assert np.allclose(found, bundle.form.probabilities(images), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", DECODERS)
def test_tokens_of_any_batch_and_length(tmp_path: Path, family: str) -> None:
    write_language_bundle(tmp_path / "bundle", family=family)
    language_bundle = load_bundle(tmp_path / "bundle")
    report = export_onnx(language_bundle, tmp_path / "onnx")
    assert len(report["differences"]) == 9
    session = onnx_session(tmp_path / "onnx" / "model.onnx")
    for rows, length in ((1, 1), (2, 2), (2, 31), (5, 32)):
        tokens = torch.randint(language_bundle.info.data.vocabulary, (rows, length))
        (found,) = session.run(["logits"], {"tokens": tokens.numpy()})
        with torch.inference_mode():
            assert np.allclose(found, language_bundle.model(tokens).numpy(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_a_form_that_answers_otherwise_is_not_kept(
    tmp_path: Path, image_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """The real comparison, of a form whose torch side is changed after the export."""
    save = exporting._save

    def save_then_change(source: Source, path: Path, *, opset: int | None) -> dict[str, Any]:
        facts = save(source, path, opset=opset)
        source.module.mean = source.module.mean + value
        return facts

    monkeypatch.setattr(exporting, "_save", save_then_change)
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_text("the former one")
    with pytest.raises(
        BundleError, match=r"torch\.export: it answers otherwise than torch: difference .*opset 18: it answers"
    ):
        export_onnx(image_bundle, tmp_path / "onnx")
    assert (tmp_path / "onnx" / "model.onnx").read_text() == "the former one"
    assert [path.name for path in tmp_path.rglob("*")] == ["onnx", "model.onnx"]


@pytest.mark.slow
def test_a_batch_that_was_frozen_is_found(
    tmp_path: Path, image_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *a, dynamic_shapes, **k: real(*a, **k))
    with pytest.raises(BundleError, match=r"the shape \[1, 16, 16, 3\] is not taken"):
        export_onnx(image_bundle, tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_exported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image_bundle(tmp_path / "b")
    bundle = load_bundle(tmp_path / "b")

    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(BundleError, match="cannot be exported to ONNX: no such operator"):
        export_onnx(bundle, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_missing_package_names_its_extra(
    tmp_path: Path, image_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'onnxruntime'.*thrifty\[onnx\]"):
        export_onnx(image_bundle, tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []
