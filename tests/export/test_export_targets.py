"""Every target answers as torch does, for every family that can go there; where one cannot, the reason is said."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_bundles import (
    onnx_session,
    pixels,
    write_image_bundle,
    write_language_bundle,
    write_ngram_bundle,
    write_sound_bundle,
    write_table_bundle,
    write_text_bundle,
    write_wave_bundle,
)
from needs import needs_tensorflow

from thrifty.errors import JobError
from thrifty.export.bundle import Bundle, load_bundle
from thrifty.export.engines.openvino import core
from thrifty.export.parity import RELATIVE, relative
from thrifty.export.targets import TARGETS
from thrifty.export.targets import openvino as exporting
from thrifty.export.targets.served import Source
from thrifty.models.generate import generate

FAMILIES: dict[str, Callable[[Path], Any]] = {
    "resnet": write_image_bundle,
    "vit": lambda folder: write_image_bundle(folder, named="vit-nano"),
    "bert": write_text_bundle,
    "llama": lambda folder: write_language_bundle(folder, family="llama"),
    "speech": lambda folder: write_sound_bundle(folder, task="transcribe"),
    "wav2vec2": write_wave_bundle,
    "tabular": lambda folder: write_table_bundle(folder, labels=()),
    "ngrams": write_ngram_bundle,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    folder = tmp_path_factory.mktemp("families")
    for name, write in FAMILIES.items():
        write(folder / name)
    return {name: Source(load_bundle(folder / name)) for name in FAMILIES}


CELLS = [pytest.param(family, target) for family in FAMILIES for target in ("torch", "openvino")]
# those that differ most; `benchmarks.export` has all
CELLS += [
    pytest.param(family, target, marks=needs_tensorflow)
    for family in ("resnet", "llama", "wav2vec2", "ngrams")
    for target in ("savedmodel", "litert")
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "target"), CELLS)
def test_every_family_goes_to_every_target(
    family: str, target: str, sources: dict[str, Source], tmp_path: Path
) -> None:
    source = sources[family]
    report = TARGETS[target](source, tmp_path / "there")
    assert json.loads((tmp_path / "there/parity.json").read_text()) == report
    assert report["max_difference"] <= RELATIVE
    # the tracer takes what it sees of one length for the rule
    assert list(report["fell_back"]) == ["torch.export"] * ((family, target) == ("speech", "torch"))
    assert len(report["differences"]) == (9 if family in {"bert", "llama", "speech", "wav2vec2", "ngrams"} else 3)
    assert (tmp_path / "there/tokenizer.json").exists() == (family in {"bert", "llama", "ngrams"})


@pytest.mark.slow
@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_a_decoder_keeps_keys_and_values(target: str, sources: dict[str, Source], tmp_path: Path) -> None:
    source = sources["llama"]
    model: Any = source.bundle.model
    report = TARGETS[target](source, tmp_path / "there")
    assert report["decoder"]["max_difference"] <= RELATIVE
    path = tmp_path / "there" / report["decoder"]["file"]
    keys = values = np.zeros((1, 1, 2, 0, 8), np.float32)
    new, text = [5, 7, 11], []
    if target == "onnx":
        session = onnx_session(path)
    else:
        compiled = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for _ in range(12):
        read = {"tokens": np.array([new]), "keys": keys, "values": values}
        if target == "onnx":
            logits, keys, values = session.run(["logits", "keys_read", "values_read"], read)
        else:
            found = compiled(read)
            logits, keys, values = (found[name] for name in ("logits", "keys_read", "values_read"))
        new = [int(logits[0, -1].argmax())]
        text += new
    assert text == generate(model, [5, 7, 11], max_tokens=12, temperature=0)
    assert keys.shape[3] == 3 + 11


@pytest.mark.slow
def test_a_program_is_loaded_without_this_package(sources: dict[str, Source], tmp_path: Path) -> None:
    source = sources["resnet"]
    report = TARGETS["torch"](source, tmp_path / "there")
    np.save(tmp_path / "x.npy", np.stack([pixels(each) for each in range(5)]))
    program = (
        "import sys, numpy, torch; sys.modules['thrifty'] = None;"
        f"m = torch.export.load({str(tmp_path / 'there' / report['file'])!r}).module();"
        f"y = m(torch.from_numpy(numpy.load({str(tmp_path / 'x.npy')!r})))['probabilities'];"
        f"numpy.save({str(tmp_path / 'y.npy')!r}, y.detach().numpy())"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
    wanted = source.bundle.form.probabilities(np.load(tmp_path / "x.npy"))
    assert np.allclose(np.load(tmp_path / "y.npy"), wanted, atol=1e-5)


@pytest.mark.slow
def test_openvino_takes_pixels_by_their_name(sources: dict[str, Source], tmp_path: Path) -> None:
    source = sources["resnet"]
    TARGETS["openvino"](source, tmp_path / "there")
    compiled = core().compile_model(tmp_path / "there/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = np.stack([pixels(each) for each in range(7)])
    found = compiled({"pixels": images})["probabilities"]
    assert np.allclose(found, source.bundle.form.probabilities(images), atol=1e-5)


@pytest.mark.slow
def test_a_route_that_fails_falls_back_and_says_so(
    sources: dict[str, Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    real = openvino.convert_model

    def refuse_programs(origin: Any) -> Any:
        if isinstance(origin, torch.export.ExportedProgram):
            raise RuntimeError("no such operator")
        return real(origin)

    monkeypatch.setattr(openvino, "convert_model", refuse_programs)
    report = TARGETS["openvino"](sources["tabular"], tmp_path / "there")
    first, second = exporting.TARGET.routes
    assert report["route"] == second.says
    assert report["fell_back"] == {first.says: "OpenVINO does not convert it: no such operator"}
    assert sorted(each.name for each in (tmp_path / "there").iterdir()) == ["model.bin", "model.xml", "parity.json"]


def test_a_family_without_a_form_is_named(text_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="'bert-pico' has no form in Hugging Face's transformers"):
        TARGETS["hf"](Source(text_bundle), tmp_path / "there")
    assert not list(tmp_path.iterdir())


def test_differences_are_told_in_the_unit_that_is_given() -> None:
    assert relative(np.array([3.0]), np.array([1.0]), unit=4.0) == 0.5
    assert relative(np.zeros(3), np.zeros(3)) == 0.0
    assert relative(np.zeros(3), np.zeros(2)) == float("inf")
    assert not relative(np.array([np.nan]), np.array([1.0])) <= 1
