"""The ledger leaves as CSV and as Parquet that others read, by the verb and from the command line."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from thrifty import api
from thrifty.cli import app
from thrifty.errors import JobError
from thrifty.hardware import catalogue_clusters
from thrifty.spec import Spent


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ledger has two runs."""
    place = tmp_path_factory.mktemp("runs")
    device = catalogue_clusters()[0].device
    with closing(api.open_ledger(place)) as ledger:
        for number in (1, 2):
            folder = place / f"digits-{number}"
            run = ledger.begin(name="digits", key=f"k{number}", folder=folder, job="{}", device=device, code="c", pid=1)
            ledger.stage(run, 1, "train", Spent(wall_s=number * 2.5, joules=9.0))
            ledger.finish(run, status="done", metrics={"accuracy": 0.5 + number / 10}, reason='all "6" steps, done')
    return place


@pytest.mark.parametrize("to", ["csv", "parquet"])
def test_what_was_exported_is_read_back(runs: Path, to: str) -> None:
    path, count = api.export_ledger(to=to, runs=runs)
    assert (path, count) == (runs / f"ledger.{to}", 2)
    frame = pl.read_csv(path) if to == "csv" else pl.read_parquet(path)
    assert frame["total_time_s"].to_list() == [2.5, 5.0], "the oldest first"
    assert frame["test_accuracy"].to_list() == [0.6, 0.7]
    assert frame["reason"][0] == 'all "6" steps, done'


def test_parquet_is_read_by_others(runs: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is in the extra 'parquet'")
    path, _ = api.export_ledger(to="parquet", out=runs / "deep" / "mine.parquet", runs=runs)
    table = parquet.read_table(path)
    assert table.num_rows == 2 and str(table.schema.field("started").type).startswith("timestamp")


def test_another_format_is_told() -> None:
    with pytest.raises(JobError, match=r"unknown format of tables 'parket'\. Did you mean 'parquet'\?"):
        api.export_ledger(to="parket")


def test_on_the_command_line(runs: Path) -> None:
    done = CliRunner().invoke(app, ["export-ledger", "--to", "csv", "--runs", str(runs), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"path": str(runs / "ledger.csv"), "runs": 2}
