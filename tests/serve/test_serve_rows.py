"""Rows of tables over both protocols: cells by their names, labels or numbers, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from made_bundles import write_table_bundle
from real_server import running

from thrifty.export.bundle import Bundle, load_bundle

ROWS: list[dict[str, Any]] = [
    {"age": 39, "job": "cook", "member": True, "since": "2020-05-01"},
    {"age": None, "job": "astronaut"},
    {},
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder: Path = tmp_path_factory.mktemp("rows")
    write_table_bundle(folder / "rich", labels=("poor", "rich"), name="rich")
    write_table_bundle(folder / "pay", labels=(), name="pay")
    return {name: load_bundle(folder / name) for name in ("rich", "pay")}


@pytest.fixture(scope="module")
def rows_client(bundles: dict[str, Bundle]) -> Iterator[httpx.Client]:
    with running(list(bundles.values())) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


CELLS = {name: [row.get(name) for row in ROWS] for name in ("age", "job", "member", "since")}


@pytest.mark.parametrize("form", ["cells", "named", "texts", "columns", "by column"])
def test_tensorflow_serving_predicts_rows(rows_client: httpx.Client, bundles: dict[str, Bundle], form: str) -> None:
    texts = [json.dumps(row) for row in ROWS]
    body: dict[str, Any] = {
        "cells": {"instances": ROWS},
        "named": {"instances": [{"row": row} for row in ROWS]},
        "texts": {"instances": texts},
        "columns": {"inputs": {"row": ROWS}},
        "by column": {"inputs": CELLS},
    }[form]
    answer = rows_client.post("/v1/models/pay:predict", json=body).json()
    found = answer["outputs" if "inputs" in body else "predictions"]
    assert found == pytest.approx([bundles["pay"].predict(row)["value"] for row in ROWS], rel=1e-5)
    labelled = rows_client.post("/v1/models/rich:predict", json={"instances": ROWS}).json()["predictions"]
    assert [row["label"] for row in labelled] == [bundles["rich"].predict(row)["label"] for row in ROWS]


def test_tensorflow_serving_classifies_and_regresses(rows_client: httpx.Client, bundles: dict[str, Bundle]) -> None:
    told = rows_client.post("/v1/models/pay:regress", json={"examples": ROWS}).json()["results"]
    assert told == pytest.approx([bundles["pay"].predict(row)["value"] for row in ROWS], rel=1e-5)
    named = rows_client.post("/v1/models/rich:classify", json={"examples": ROWS}).json()["results"]
    wanted = bundles["rich"].predict(ROWS[0])["probabilities"]
    assert dict(map(tuple, named[0])) == pytest.approx(wanted, abs=1e-5)
    refused = rows_client.post("/v1/models/rich:regress", json={"examples": ROWS})
    assert refused.status_code == 400 and "Expected regression signature" in refused.json()["error"]


def test_open_inference_protocol_takes_rows_as_json(rows_client: httpx.Client, bundles: dict[str, Bundle]) -> None:
    known = rows_client.get("/v2/models/pay").json()
    kinds = {each["name"]: each["datatype"] for each in known["inputs"]}
    assert kinds == {"row": "BYTES", "age": "FP64", "job": "BYTES", "member": "BYTES", "since": "BYTES"}
    assert known["outputs"] == [{"name": "value", "datatype": "FP32", "shape": [-1]}]
    data = [json.dumps(row) for row in ROWS]
    asked = {"inputs": [{"name": "row", "shape": [len(data)], "datatype": "BYTES", "data": data}]}
    found = rows_client.post("/v2/models/pay/infer", json=asked).json()["outputs"][0]["data"]
    assert found == pytest.approx([bundles["pay"].predict(row)["value"] for row in ROWS], rel=1e-5)


def test_open_inference_protocol_takes_a_tensor_for_each_column(
    rows_client: httpx.Client, bundles: dict[str, Bundle]
) -> None:
    columns = [
        {"name": "age", "datatype": "FP64", "shape": [3], "data": CELLS["age"]},
        {"name": "job", "datatype": "BYTES", "shape": [3], "data": [each or "" for each in CELLS["job"]]},
        {"name": "member", "datatype": "BYTES", "shape": [3], "data": ["true", "", ""]},
        {"name": "since", "datatype": "BYTES", "shape": [3], "data": [each or "" for each in CELLS["since"]]},
    ]
    found = rows_client.post("/v2/models/pay/infer", json={"inputs": columns}).json()["outputs"][0]["data"]
    assert found == pytest.approx([bundles["pay"].predict(row)["value"] for row in ROWS], rel=1e-5)
    uneven = {"inputs": [columns[0], {**columns[1], "shape": [1], "data": ["cook"]}]}
    told = rows_client.post("/v2/models/pay/infer", json=uneven).json()["error"]
    assert told == "input 'job' batch size does not match other inputs for 'pay'"
    wrong = {"inputs": [{**columns[0], "data": [1, 2, "3"]}]}
    told = rows_client.post("/v2/models/pay/infer", json=wrong).json()["error"]
    assert told == "input 'age' of FP64 must hold numbers alone, or null"


REFUSED = [
    ({"instances": [{"agee": 1}]}, "there is no column 'agee'"),
    ({"instances": [{"age": "old"}]}, "column 'age' holds numbers, and 'old' is none"),
    ({"instances": ["{"]}, "is not JSON"),
    ({"instances": [3]}, "instances is a plain list, but expecting list of objects as multiple input tensors"),
    ({"inputs": [3]}, "inputs is a plain list, but expecting list of objects as multiple input tensors"),
    ({"inputs": {"age": [1, 2], "job": ["cook"]}}, "Input 'job' has 1 values, 'age' has 2"),
    ({"inputs": {"agee": [1]}}, "there is no column 'agee'"),
    ({"inputs": {"age": 1}}, "must be a list"),
    ({"inputs": {"age": []}}, "No values in 'inputs' array"),
    ({"signature_name": "row", "instances": [ROWS[0]]}, "does not have named input: age"),
    ({"instances": [{"age": {"deep": 1}}]}, "'age' is an object"),
]


@pytest.mark.parametrize(("body", "says"), REFUSED, ids=[str(row[0]) for row in REFUSED])
def test_what_is_no_row_is_refused(rows_client: httpx.Client, body: dict[str, Any], says: str) -> None:
    answer = rows_client.post("/v1/models/rich:predict", json=body)
    assert answer.status_code == 400
    assert says in answer.json()["error"]
