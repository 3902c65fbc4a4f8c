"""Engines compute a bundle as torch does, without its files or its imports; what they load is distrusted."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_bundles import LABELS, write_language_bundle, write_sound_bundle, write_table_bundle
from torch import nn

from thrifty.errors import BundleError, JobError
from thrifty.export.bundle import Bundle, load_bundle, rewrite_bundle, torch_model
from thrifty.export.check import sha256
from thrifty.export.engines import ENGINES, Computed, compute_of
from thrifty.export.engines.isa import missing, saturates, warn_of_weaker
from thrifty.export.examples import example

ROW = {"age": 40, "job": "cook"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("table") / "bundle"
    write_table_bundle(folder, labels=LABELS)
    return load_bundle(folder)


@pytest.fixture(scope="module")
def by_openvino(tmp_path_factory: pytest.TempPathFactory, text_bundle: Bundle) -> Path:
    folder = tmp_path_factory.mktemp("openvino") / "bundle"
    rewrite_bundle(folder, text_bundle, engine="openvino")
    return folder


@pytest.fixture(scope="module")
def by_onnx(tmp_path_factory: pytest.TempPathFactory, table: Bundle) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "bundle"
    rewrite_bundle(folder, table, engine="onnx")
    return folder


def _rehashed(folder: Path, **changes: Any) -> None:
    info = json.loads((folder / "bundle.json").read_text()) | changes
    info["files"] = {name: sha256(folder / name) for name in info["files"]}
    (folder / "bundle.json").write_text(json.dumps(info))


def test_a_torch_bundle_is_rewritten_as_it_is(tmp_path: Path, table: Bundle) -> None:
    rewrite_bundle(tmp_path / "b", table, metrics={"accuracy": 0.25}, version=3)
    again = load_bundle(tmp_path / "b")
    assert (again.info.version, again.info.metrics, again.info.engine) == (3, {"accuracy": 0.25}, "torch")
    assert again.predict(ROW) == table.predict(ROW)


def test_what_an_engine_loads_takes_tensors_and_arrays() -> None:
    double = Computed(lambda x: np.float32(2) * x)
    assert torch.equal(double(torch.ones(2, 3)), torch.full((2, 3), 2.0))
    assert compute_of(double)(np.ones(2, np.float32)).tolist() == [2.0, 2.0]
    assert compute_of(nn.Linear(3, 2).bfloat16().float())(np.zeros((4, 3), np.float32)).shape == (4, 2)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"engine": "openvin"}, "unknown engine 'openvin'. Did you mean 'openvino'"),
        ({"engine": "onnx", "precision": "bf61"}, "unknown precision of the engine 'onnx' 'bf61'"),
        ({"engine": "openvino", "precision": "int8"}, "int8 needs ranges"),
        ({"engine": "torch", "precision": "int8"}, "int8 is for language models"),
    ],
    ids=["engine", "precision", "int8", "int8 by torch"],
)
def test_what_cannot_be_written_is_named(tmp_path: Path, table: Bundle, wanted: dict[str, Any], says: str) -> None:
    with pytest.raises(JobError, match=says):
        rewrite_bundle(tmp_path / "b", table, **wanted)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("here", "judged", "warns"),
    [
        (("avx2", "fma"), ("avx2", "avx512_vnni"), True),
        (("avx2", "avx_vnni"), ("avx2", "avx512_vnni"), False),
        (("avx2",), ("avx2",), False),
        (("neon", "asimd"), ("avx512_vnni",), False),
    ],
    ids=["weaker", "other", "as judged", "arm"],
)
def test_int8_on_a_weaker_processor_is_told(
    table: Bundle, here: Sequence[str], judged: tuple[str, ...], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    info = table.info.model_copy(update={"engine": "openvino", "precision": "int8", "isa": judged})
    with caplog.at_level(logging.WARNING, logger="thrifty.export"):
        warn_of_weaker(info, here)
        warn_of_weaker(info.model_copy(update={"precision": "fp32"}), here)
    assert [("7 bits" in each.message) for each in caplog.records] == [True] * warns
    assert saturates(("avx2",)) and missing(("sve2", "avx2"), ("avx2",)) == ("sve2",)


@pytest.mark.slow
def test_openvino_answers_as_torch_and_loads_no_torch(by_openvino: Path, text_bundle: Bundle) -> None:
    bundle = load_bundle(by_openvino, threads=1)
    assert sorted(bundle.info.files) == ["model.bin", "model.xml", "tokenizer.json"]
    assert (bundle.info.engine, bundle.info.precision) == ("openvino", "fp32")
    for rows, length in ((1, 1), (2, 7), (5, 16)):  # sizes that writing it did not try
        x = example(text_bundle.info.data, rows, length)
        torch.testing.assert_close(bundle.model(x), text_bundle.model(x), rtol=1e-4, atol=1e-5)
    wanted = text_bundle.predict("the cat sat")
    program = (
        "import sys, json; from thrifty.export.bundle import load_bundle;"
        f"print(json.dumps(load_bundle({str(by_openvino)!r}).predict('the cat sat')), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    said, torch_loaded = done.stdout.rsplit(maxsplit=1)
    assert torch_loaded == "False"
    assert json.loads(said)["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-5)


@pytest.mark.slow
def test_a_bundle_of_another_engine_is_no_source(by_openvino: Path, tmp_path: Path) -> None:
    bundle = load_bundle(by_openvino)
    with pytest.raises(BundleError, match="computed by 'openvino' and holds no torch model"):
        torch_model(bundle)
    with pytest.raises(BundleError, match="holds no torch model"):
        rewrite_bundle(tmp_path / "b", bundle, engine="onnx")


@pytest.mark.slow
def test_bf16_is_near_and_half_as_large(by_openvino: Path, text_bundle: Bundle, tmp_path: Path) -> None:
    form = ENGINES["openvino"].convert(torch_model(text_bundle), text_bundle.info.data)
    rewrite_bundle(tmp_path / "b", text_bundle, form, engine="openvino", precision="bf16")
    bundle = load_bundle(tmp_path / "b")
    assert bundle.info.precision == "bf16"
    assert (tmp_path / "b/model.bin").stat().st_size < 0.6 * (by_openvino / "model.bin").stat().st_size
    x = example(text_bundle.info.data)
    torch.testing.assert_close(bundle.model(x), text_bundle.model(x), rtol=0.1, atol=0.05)


@pytest.mark.slow
def test_a_form_that_is_none_is_named(by_openvino: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(by_openvino, folder)
    (folder / "model.xml").write_text("<net/>")
    with pytest.raises(BundleError, match=r"model\.xml' is damaged: its sha256"):
        load_bundle(folder)
    _rehashed(folder)
    with pytest.raises(BundleError, match="OpenVINO cannot read"):
        load_bundle(folder)


@pytest.mark.slow
def test_onnx_runtime_answers_as_torch(by_onnx: Path, table: Bundle) -> None:
    bundle = load_bundle(by_onnx)
    assert sorted(bundle.info.files) == ["model.onnx"]
    assert bundle.predict(ROW)["probabilities"] == pytest.approx(table.predict(ROW)["probabilities"], abs=1e-5)
    assert len(bundle.form.answers([bundle.form.made_up()] * 7)) == 7


@pytest.mark.slow
@pytest.mark.parametrize("place", ["../secret", "/etc/passwd"], ids=["relative", "absolute"])
def test_onnx_weights_outside_of_the_bundle_are_refused(by_onnx: Path, tmp_path: Path, place: str) -> None:
    import onnx

    folder = tmp_path / "bundle"
    shutil.copytree(by_onnx, folder)
    model = onnx.load(folder / "model.onnx")
    large = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    (tmp_path / "secret").write_bytes(large.raw_data)
    large.ClearField("raw_data")
    large.data_location = onnx.TensorProto.EXTERNAL
    large.external_data.add(key="location", value=place)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    _rehashed(folder)
    with pytest.raises(BundleError, match="ONNX Runtime cannot read"):
        load_bundle(folder)


@pytest.mark.slow
def test_native_code_is_loaded_where_it_was_written(
    table: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundle"
    rewrite_bundle(folder, table, engine="aoti")
    assert load_bundle(folder).predict(ROW)["probabilities"] == pytest.approx(
        table.predict(ROW)["probabilities"], abs=1e-5
    )
    monkeypatch.setenv("THRIFTY_CACHE", str(tmp_path / "other user"))
    with pytest.raises(BundleError, match="native code that was not written here") as refused:
        load_bundle(folder)
    name, _, digest = str(refused.value).rpartition(" ")[2].rstrip(".").partition("=")
    monkeypatch.setenv(name, f"0, {digest}")
    assert load_bundle(folder).predict(ROW)["label"] == table.predict(ROW)["label"]
    _rehashed(folder, isa=["sve2"])
    with pytest.raises(BundleError, match="made for a processor with sve2"):
        load_bundle(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["table", "transcripts"])
def test_what_was_compiled_before_answers_as_it_did(kind: str, tmp_path: Path) -> None:
    if kind == "table":
        write_table_bundle(tmp_path / "torch", labels=())
    else:
        write_sound_bundle(tmp_path / "torch", task="transcribe")
    rewrite_bundle(tmp_path / "there", source := load_bundle(tmp_path / "torch"), engine="openvino")
    x = example(source.info.data, 3).numpy()
    # the first compiles, the others read what it kept
    first, *others = (compute_of(load_bundle(tmp_path / "there").model)(x) for _ in range(3))
    assert all(np.array_equal(each, first) for each in others)


@pytest.mark.slow
def test_a_language_model_writes_on_by_openvino(tmp_path: Path) -> None:
    write_language_bundle(tmp_path / "torch")
    source = load_bundle(tmp_path / "torch")
    rewrite_bundle(tmp_path / "openvino", source, engine="openvino")
    asked = {"max_tokens": 12, "temperature": 0.0}
    assert load_bundle(tmp_path / "openvino").predict("the cat", **asked) == source.predict("the cat", **asked)


def test_a_language_model_may_be_kept_in_bf16(tmp_path: Path) -> None:
    write_language_bundle(tmp_path / "a", scheme="xavier_normal")
    source = load_bundle(tmp_path / "a")
    rewrite_bundle(tmp_path / "b", source, engine="torch", precision="bf16")
    bundle = load_bundle(tmp_path / "b")
    assert {each.dtype for each in torch_model(bundle).parameters()} == {torch.bfloat16}
    assert {each.dtype for each in torch_model(source).parameters()} == {torch.float32}
    assert (tmp_path / "b/model.safetensors").stat().st_size < 0.6 * (tmp_path / "a/model.safetensors").stat().st_size
    assert bundle.predict("the cat", max_tokens=3, temperature=0)["completion"]


# What the libraries would leave in a home folder, and send, of a user who was never asked.
_REPORTS = """
import sys
from thrifty.export.engines.openvino import openvino
library = openvino()
library.convert_model
import thrifty.compress.moves.quantise as quantise
quantise.nncf()
print(sorted(name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module))
"""


@pytest.mark.slow
def test_openvino_and_nncf_report_to_nobody(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", _REPORTS], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert not (tmp_path / "intel").exists()
