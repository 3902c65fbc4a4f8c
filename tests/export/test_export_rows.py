"""A bundle that learned from a table: rows in, labels or numbers out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_bundles import export_onnx, write_table_bundle

from thrifty.errors import BundleError, RequestError
from thrifty.export.bundle import Bundle, load_bundle
from thrifty.spec import BundleInfo

ROW = {"age": 39, "job": "cook", "member": True, "since": "2020-05-01"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def labels(folder: Path) -> Bundle:
    write_table_bundle(folder / "labels", labels=("poor", "rich"))
    return load_bundle(folder / "labels")


@pytest.fixture(scope="module")
def amounts(folder: Path) -> Bundle:
    write_table_bundle(folder / "amounts", labels=())
    return load_bundle(folder / "amounts")


def test_a_row_is_labelled_whichever_way_it_is_said(labels: Bundle) -> None:
    answer = labels.predict(ROW)
    assert set(answer["probabilities"]) == {"poor", "rich"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    same = [json.dumps(ROW), {**ROW, "age": "39"}, {**ROW, "member": "TRUE"}, {**ROW, "age": 39.0, "job": " cook "}]
    assert all(labels.predict(each) == answer for each in same)
    assert labels.predict({**ROW, "age": 80}) != answer


def test_an_amount_is_told_in_its_own_unit(amounts: Bundle) -> None:
    table = amounts.info.data.table
    assert table is not None
    x = torch.from_numpy(amounts.form.encoded([amounts.form.row(ROW)]))  # type: ignore[attr-defined]
    with torch.inference_mode():
        told = float(amounts.model(x)) * table.deviation + table.mean
    assert amounts.predict(ROW)["value"] == pytest.approx(told, rel=1e-5)


def test_cells_that_are_left_out_are_empty(labels: Bundle) -> None:
    bare = labels.predict({})
    assert bare == labels.predict({"age": None, "job": "?", "since": "NA", "member": ""})
    # a value that training did not have is taken as not known
    assert labels.predict({"job": "astronaut"})["label"] in {"poor", "rich"}


REFUSED = [
    ('{"age": 39', "is not JSON. It is one row as JSON"),
    ("[1, 2]", "a row is an object of cells by their columns, not a list"),
    ({"agee": 39}, "there is no column 'agee'. Did you mean 'age'? There are: age, job, member, since."),
    ({"age": "old"}, "column 'age' holds numbers, and 'old' is none"),
    ({"age": "1e999"}, "column 'age' holds numbers, and '1e999' is none"),
    ({"age": [39]}, "a cell is a text, a number, true, false or null; 'age' is a list"),
    ({"since": "May"}, "column 'since' holds dates like %Y-%m-%d, and 'May' is none"),
    (39, "takes one row as JSON"),
    (b"{}", "takes one row as JSON"),
]


@pytest.mark.parametrize(("raw", "says"), REFUSED, ids=[row[1][:40] for row in REFUSED])
def test_what_is_no_row_is_refused(labels: Bundle, raw: Any, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        labels.predict(raw)
    assert says in str(caught.value)


DAMAGED = [
    ({"deviation": 0.0}, "the mean 0.0 and deviation 0.0"),
    ({"columns": []}, "does not say what the columns of its table are"),
    ({"edges": [2.0, 1.0]}, "edges or values of column 'age' out of order"),
    ({"values": ["cook", "cook"]}, "edges or values of column 'job' out of order"),
    ({"values": ["cook"]}, "rows of shape (7,), and its columns give others"),
]


@pytest.mark.parametrize(("change", "says"), DAMAGED, ids=[row[1][:30] for row in DAMAGED])
def test_a_damaged_description_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    write_table_bundle(tmp_path / "b", labels=("poor", "rich"))
    path = tmp_path / "b" / "bundle.json"
    info = json.loads(path.read_text())
    table = info["data"]["table"]
    for key, value in change.items():
        (table["columns"][{"edges": 0, "values": 1}[key]] if key in {"edges", "values"} else table)[key] = value
    BundleInfo.model_validate(info)
    path.write_text(json.dumps(info))
    with pytest.raises(BundleError) as caught:
        load_bundle(tmp_path / "b")
    assert says in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["labels", "amounts"])
def test_onnx_answers_alike(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    bundle: Bundle = request.getfixturevalue(kind)
    report = export_onnx(bundle, tmp_path / "onnx")
    assert report["max_difference"] < 1e-5
    assert report["inputs"][0]["name"] == "rows"
    assert {each["name"] for each in report["outputs"]} == (
        {"probabilities", "logits"} if kind == "labels" else {"value"}
    )
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    x = bundle.form.encoded([bundle.form.row(ROW)])  # type: ignore[attr-defined]
    found = dict(zip([each.name for each in session.get_outputs()], session.run(None, {"rows": x}), strict=True))
    answer = bundle.predict(ROW)
    if kind == "amounts":
        assert float(found["value"][0]) == pytest.approx(answer["value"], rel=1e-5)
    else:
        assert np.allclose(found["probabilities"][0], list(answer["probabilities"].values()), atol=1e-5)
