"""Tables the whole way: `thrifty init` writes the job, `run` makes the bundle, `predict` takes a row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from test_cli import thrifty, thrifty_from_the_start


@pytest.mark.slow
def test_the_whole_way(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rooms, near = draw.integers(1, 9, 400), draw.choice(["bay", "hills", "inland"], 400)
    price = 100_000 * rooms + 300_000 * (near == "bay") + draw.normal(0, 20_000, 400)
    rows = [f"{a},{b},{c:.0f}" for a, b, c in zip(rooms, near, price, strict=True)]
    (tmp_path / "houses.csv").write_text("rooms,near,price\n" + "\n".join([*rows, "3,bay", "4,bay,much"]) + "\n")

    seen = thrifty("init", "houses.csv", cwd=tmp_path)
    assert seen.returncode == 0, seen.stderr
    assert "houses.csv: a table, " in seen.stdout
    path = tmp_path / "job.yaml"
    job = yaml.safe_load(path.read_text())
    assert (job["task"], job["model"], job["data"]["target"]) == ("regress", "table-mlp-small", "price")
    path.write_text(yaml.safe_dump({**job, "train": {"epochs": 12}}))

    done = thrifty_from_the_start("run", "job.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    foreseen = json.loads((tmp_path / "runs" / "houses" / "plan.json").read_text())["cost"]["peak_bytes"]
    trained = next(stage for stage in outcome["bill"]["stages"] if stage["stage"] == "train")
    # rows were read by the same process: what read them is still there
    assert foreseen["low"] <= trained["spent"]["peak_rss_bytes"] <= foreseen["high"], foreseen
    tested = outcome["result"]["test"]
    # of noise alone 20,000; there are 24 different rows, of which a split holds few
    assert tested["rmse"] < 40_000

    run = tmp_path / "runs" / "houses"
    assert {json.loads(line)["reason"] for line in (run / "rejects.jsonl").read_text().splitlines()} == {
        "ragged row: 2 cells, 3 are usual",
        "target is no number: much",
    }
    cheap, dear = (
        json.loads(thrifty("predict", "runs/houses", json.dumps(row), "--json", cwd=tmp_path).stdout)["value"]
        for row in ({"rooms": 2, "near": "inland"}, {"rooms": 8, "near": "bay"})
    )
    assert cheap < 400_000 < 900_000 < dear
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "held-out test rows" in page and "price, a number" in page
