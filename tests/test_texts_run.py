"""Texts the whole way: `thrifty init` writes the job, `run` makes the bundle, `predict` takes a sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent / "data"))
from data_folders import reviews, write_tables

from test_cli import thrifty


@pytest.mark.slow
def test_the_whole_way(tmp_path: Path) -> None:
    parts = {"train.tsv": reviews(300), "dev.tsv": reviews(60, 1), "test.tsv": reviews(60, 2)}
    write_tables(tmp_path / "reviews", parts)
    seen = thrifty("init", "reviews", cwd=tmp_path)
    assert seen.returncode == 0, seen.stderr
    assert "reviews/: 300 + 60 + 60 texts, 2 labels" in seen.stdout
    path = tmp_path / "job.yaml"
    job = yaml.safe_load(path.read_text())
    assert (job["model"], job["data"]["pieces"]) == ("ngrams", "characters")
    # one with attention and few epochs: the test is of the way, not of the model
    data = {key: value for key, value in job["data"].items() if key != "pieces"}
    path.write_text(yaml.safe_dump({**job, "data": data, "model": "bert-tiny", "train": {"epochs": 8}}))

    done = thrifty("run", "job.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["result"]["validation"]["accuracy"] > 0.7
    assert outcome["result"]["test"]["samples"] == 60
    plan = json.loads((tmp_path / "runs" / "reviews" / "plan.json").read_text())
    assert plan["batch"]["batching"] in {"padded", "by_length", "packed"}

    said = json.loads(thrifty("predict", "runs/reviews", "the film was goodly music", "--json", cwd=tmp_path).stdout)
    assert said["label"] in {"bad", "good"}
    assert sum(said["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    page = (tmp_path / "runs" / "reviews" / "report.html").read_text(encoding="utf-8")
    assert "held-out test texts" in page and "rows seen" in page


@pytest.mark.slow
def test_hidden_words_first_then_labels(tmp_path: Path) -> None:
    parts = {"train.tsv": reviews(300), "dev.tsv": reviews(60, 1), "test.tsv": reviews(60, 2)}
    write_tables(tmp_path / "reviews", parts)
    job = {"name": "words", "data": {"kind": "text", "path": "reviews", "length": 32}, "train": {"epochs": 2}}
    job["plan"] = {"precision": "fp32", "batching": "padded", "checkpointing": "none", "compile": "none"}
    words = {**job, "task": "mask", "model": "bert-tiny"}
    (tmp_path / "words.yaml").write_text(yaml.safe_dump(words))
    done = thrifty("run", "words.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["result"]["test"]
    assert told["words"] > 60
    assert told["loss"] < 6
    said = thrifty("predict", "runs/words", "the film was [MASK] music", cwd=tmp_path).stdout
    assert said.startswith("the film was ") and "[MASK]" not in said

    (tmp_path / "labels.yaml").write_text(yaml.safe_dump({**job, "name": "labels", "model": "ours:runs/words"}))
    done = thrifty("run", "labels.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "weights of" in done.stderr and "new are fc.weight, fc.bias" in done.stderr
    assert json.loads(done.stdout)["result"]["test"]["samples"] == 60


@pytest.mark.slow
def test_several_labels_the_whole_way(tmp_path: Path) -> None:
    rows = [(text, f"{label}|film" if at % 3 else label) for at, (text, label) in enumerate(reviews(120))]
    (tmp_path / "reviews").mkdir()
    table = "".join(f"{text}\t{labels}\n" for text, labels in [("text", "tags"), *rows])
    (tmp_path / "reviews" / "all.tsv").write_text(table)
    seen = thrifty("init", "reviews", cwd=tmp_path)
    assert seen.returncode == 0, seen.stderr
    assert "120 texts, 3 labels, 1.7 a text" in seen.stdout
    path = tmp_path / "job.yaml"
    job = yaml.safe_load(path.read_text())
    assert (job["task"], job["data"]["label_separator"], job["model"]) == ("tag", "|", "ngrams")
    path.write_text(
        yaml.safe_dump({**job, "target": {"micro_f1": 0.7}, "train": {"epochs": 4}, "plan": {"precision": "fp32"}})
    )

    done = thrifty("run", "job.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["result"]
    assert result["validation"]["micro_f1"] > 0.6
    assert {"micro_f1", "macro_f1", "loss", "samples"} == set(result["test"])
    said = json.loads(thrifty("predict", "runs/reviews", "the film was goodly music", "--json", cwd=tmp_path).stdout)
    assert set(said["probabilities"]) == {"bad", "film", "good"}
    assert set(said["labels"]) == {label for label, each in said["probabilities"].items() if each > 0.5}
    page = (tmp_path / "runs" / "reviews" / "report.html").read_text(encoding="utf-8")
    assert "micro F1" in page and "held-out test texts" in page
