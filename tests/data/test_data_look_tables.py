"""Tables of columns are told from tables of texts, and a job for them is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from thrifty.data.look import look
from thrifty.spec import parse_job

HOUSES = "age,near,price\n" + "".join(f"{n % 40},BAY {n % 3},{n * 7919 % 1000}\n" for n in range(200))
SAILORS = "name,sex,age,fare,class,survived\n" + "".join(
    f'"Braund, Mr. Owen Harris {n}",{"male" if n % 3 else "female"},{n % 60},{n * 1.5},{n % 3 + 1},{n % 2}\n'
    for n in range(200)
)
TABLES = [
    (HOUSES, {"target": "price", "header": True}, "regress", "its name holds 'price'"),
    # names of people are phrases, and there is much beside them
    (SAILORS, {"target": "class", "header": True}, "classify", "by its name"),
    (HOUSES.partition("\n")[2], {"target": 3, "header": False}, "regress", "the last column"),
    (
        "x,y\n" + "".join(f"{n},{n % 2}\n" for n in range(50)),
        {"target": "y", "header": True},
        "classify",
        "by its name",
    ),
]


@pytest.mark.parametrize(("text", "data", "task", "why"), TABLES, ids=[row[3] + row[2] for row in TABLES])
def test_a_table_of_columns(tmp_path: Path, text: str, data: dict[str, Any], task: str, why: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    found = look(path)
    assert found.job["data"] == {"kind": "table", "path": str(path), **data}
    assert found.job["task"] == task
    assert why in found.why["data.target"]
    assert "a.csv: a table, " in found.says
    assert parse_job(found.job).task == task


def test_names_of_columns_lie_beside(tmp_path: Path) -> None:
    write = {
        "census.data": "".join(f"{n % 60}, cook {n % 3}, {'rich' if n % 2 else 'poor'}\n" for n in range(90)),
        "census.names": "| of 1994: see below.\nrich, poor.\n\nage: continuous.\njob: cook 0, cook 1, cook 2.\n",
    }
    for name, text in write.items():
        (tmp_path / name).write_text(text)
    found = look(tmp_path)
    assert found.job["data"]["names"] == ["age", "job", "class"]
    assert found.job["data"]["target"] == "class"
    assert "header" not in found.job["data"]
    assert found.why["data.names"] == "no row names the columns, and 'census.names' does"
    (tmp_path / "census.names").write_text("age: continuous.\n")
    assert found.job["data"]["path"] == str(tmp_path)
    assert look(tmp_path).job["data"]["target"] == 3


TEXTS = [
    "review,stars\n" + "".join(f'"it was, all in all, a rather good film number {n}",{n % 5}\n' for n in range(60)),
    "a,b,c,d,e\n"
    + "".join(f"{n},{n % 3},{n % 5},{n % 7},so they sat and talked all night of {n}\n" for n in range(60)),
    "text,label\n" + "".join(f"good film {n},{n % 2}\n" for n in range(60)),
    "短评,分\n" + "".join(f"这本书写得非常好看推荐{n},{n % 2}\n" for n in range(60)),
]


@pytest.mark.parametrize("text", TEXTS, ids=["sentences", "beside columns", "phrases", "Chinese"])
def test_a_table_of_texts_stays_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert look(path).kind == "text"


@pytest.mark.parametrize("name", ["adult", "california_housing/housing.csv"])
def test_real_tables(name: str) -> None:
    path = Path(__file__).parents[2] / "../shared/data" / name
    if not path.exists():
        pytest.skip("the shared tables are not here")
    found = look(path)
    assert found.kind == "table"
    assert found.job["task"] == ("classify" if name == "adult" else "regress")
    assert found.job["data"]["target"] in {"class", "median_house_value"}
