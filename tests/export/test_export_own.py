"""A bundle that another engine computes goes to that engine's format as it is; where it cannot go is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bundles import (
    onnx_session,
    pixels,
    write_image_bundle,
    write_language_bundle,
    write_table_bundle,
    write_text_bundle,
)

from thrifty import api
from thrifty.compress.moves.quantise import nncf
from thrifty.errors import BundleError, DataError, JobError
from thrifty.export.bundle import Bundle, load_bundle, rewrite_bundle, torch_model
from thrifty.export.engines import ENGINES
from thrifty.export.engines.openvino import core
from thrifty.export.examples import example
from thrifty.export.parity import RELATIVE, RELATIVE_ROUNDED

pytestmark = pytest.mark.slow

WRITE: dict[str, Callable[[Path], Any]] = {
    "image": write_image_bundle,
    "language": write_language_bundle,
    "table": lambda folder: write_table_bundle(folder, labels=()),
    "text": write_text_bundle,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder like a run's for each kind of model: its bundle, and the mark that it is a run."""
    folder = tmp_path_factory.mktemp("runs")
    for name, write in WRITE.items():
        write(folder / name / "bundle")
        (folder / name / "key").write_text("")
    return {name: folder / name for name in WRITE}


def made(run: Path, engine: str, precision: str, form: Any = None) -> Bundle:
    place = run / f"{engine}-{precision}"
    rewrite_bundle(place, load_bundle(run / "bundle"), form, engine=engine, precision=precision)
    return load_bundle(place)


@pytest.mark.parametrize(
    ("kind", "engine", "precision"),
    [
        ("image", "openvino", "fp32"),
        ("image", "openvino", "bf16"),
        ("image", "onnx", "fp32"),
        ("language", "openvino", "bf16"),
        ("table", "openvino", "fp32"),
        ("table", "onnx", "fp32"),
        ("text", "openvino", "fp32"),
        ("text", "onnx", "fp32"),
    ],
)
def test_its_own_graph_is_written(runs: dict[str, Path], kind: str, engine: str, precision: str) -> None:
    bundle = made(runs[kind], engine, precision)
    report = api.export(bundle.folder, to=engine)[engine]
    assert Path(report["path"]).parent == runs[kind] / "export" / bundle.folder.name / engine
    assert (report["compared_with"], report["precision"]) == (engine, precision)
    assert report["max_difference"] <= (RELATIVE if precision == "fp32" else RELATIVE_ROUNDED)
    assert len(report["differences"]) == (9 if kind in {"language", "text"} else 3)


def test_ranges_are_kept(runs: dict[str, Path], tmp_path: Path) -> None:
    """int8 by either engine: the file holds weights of eight bits, and takes pixels."""
    source = load_bundle(runs["image"] / "bundle")
    model, data = torch_model(source), source.info.data
    rows = [example(data, 1).numpy() for _ in range(8)]
    form = nncf().quantize(ENGINES["openvino"].convert(model, data), nncf().Dataset(rows), subset_size=8)
    bundle = made(runs["image"], "openvino", "int8", form)
    report = api.export(bundle.folder, to="openvino")["openvino"]
    asked = np.stack([pixels(each) for each in range(4)])
    compiled = core().compile_model(report["path"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.allclose(compiled({"pixels": asked})["probabilities"], bundle.form.probabilities(asked), atol=0.02)
    assert report["bytes"] < 0.6 * (source.folder / "model.safetensors").stat().st_size

    plain, small = tmp_path / "plain.onnx", tmp_path / "small.onnx"
    table = load_bundle(runs["table"] / "bundle")
    plain.write_bytes(ENGINES["onnx"].convert(torch_model(table), table.info.data).SerializeToString())
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(plain, small)
    bundle = made(runs["table"], "onnx", "int8", onnx.load(small))
    report = api.export(bundle.folder, to="onnx")["onnx"]
    session = onnx_session(report["path"])
    rows_NF = bundle.form.encoded([bundle.form.row({"age": 40, "job": "cook"})])
    value = session.run(["value"], {"rows": rows_NF})[0]
    assert value == pytest.approx([bundle.predict({"age": 40, "job": "cook"})["value"]], rel=1e-3)


def test_bf16_of_torch_is_written_in_fp32(runs: dict[str, Path]) -> None:
    bundle = made(runs["language"], "torch", "bf16")
    report = api.export(bundle.folder, to="onnx,hf")
    assert report["onnx"]["max_difference"] <= RELATIVE
    assert (report["onnx"]["compared_with"], report["onnx"]["precision"]) == ("torch", "fp32")
    assert report["hf"]["max_difference"] <= report["hf"]["tolerance"]
    again = made(runs["language"], "torch", "bf16")
    info, apart = rewrite_bundle(runs["language"] / "again", again, engine="openvino", precision="fp32")
    assert info.precision == "fp32" and apart is not None and apart <= RELATIVE_ROUNDED


def test_what_has_no_way_there_is_told_with_the_command_that_has(runs: dict[str, Path]) -> None:
    run = runs["text"]
    bundle = made(run, "openvino", "fp32")
    with pytest.raises(JobError, match=f"goes to openvino, not to onnx.*thrifty export {run} --to onnx,hf"):
        api.export(bundle.folder, to="openvino,onnx,hf")
    assert api.formats(bundle.folder) == ("openvino",)
    with pytest.raises(JobError, match=f"holds no torch model.*thrifty export {run} --to bundle --engine onnx"):
        api.export_bundle(bundle.folder, engine="onnx")
    with pytest.raises(JobError, match=f"what is compressed is a run.*thrifty compress {run}"):
        api.compress(bundle.folder)
    path = Path(api.export(bundle.folder, to="openvino")["openvino"]["path"]).parent
    with pytest.raises(DataError, match=f"files for other runtimes.*thrifty export {run} --to bundle"):
        api.predict(path, "a text")


def test_of_several_the_one_that_fails_keeps_the_others_from_nothing(runs: dict[str, Path]) -> None:
    done = []
    with pytest.raises(
        BundleError, match="not written: hf: model 'bert-pico' has no form in Hugging Face's transformers"
    ):
        api.export(runs["text"], to="hf,torch", done=lambda name, report: done.append(name))
    assert done == ["torch"]
    assert (runs["text"] / "export/torch/model.pt2").exists()
