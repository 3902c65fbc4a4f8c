"""Recordings the whole way: `thrifty init` writes the job, `run` makes the bundle, `predict` takes a sound file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent / "data"))
from made_sounds import encoded, tone, write_folders, write_strings

from test_cli import thrifty


@pytest.mark.slow
def test_labels_the_whole_way(tmp_path: Path) -> None:
    write_folders(tmp_path / "tones", 60)
    assert thrifty("init", "tones", cwd=tmp_path).returncode == 0
    path = tmp_path / "job.yaml"
    job = yaml.safe_load(path.read_text())
    assert (job["model"], job["data"]["kind"]) == ("speech-tiny", "audio")
    train = {"epochs": 6, "augment": {"stretch": 0.1, "warp": 0.02, "noise": 30, "blank_frames": 2}}
    path.write_text(yaml.safe_dump({**job, "train": train}))
    done = thrifty("run", "job.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["test"]["accuracy"] > 0.9
    (tmp_path / "new.wav").write_bytes(encoded(tone("low", 999, 0.4)))
    said = json.loads(thrifty("predict", "runs/tones", "new.wav", "--json", cwd=tmp_path).stdout)
    assert said["label"] == "low"


@pytest.mark.slow
def test_transcripts_the_whole_way(tmp_path: Path) -> None:
    write_strings(tmp_path / "said", {"train": 160, "validation": 20, "test": 20})
    assert thrifty("init", "said", cwd=tmp_path).returncode == 0
    path = tmp_path / "job.yaml"
    job = yaml.safe_load(path.read_text())
    path.write_text(
        yaml.safe_dump({**job, "model": "speech-tiny", "train": {"epochs": 12, "batch": 16, "learning_rate": 3e-3}})
    )
    done = thrifty("run", "job.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    test = json.loads(done.stdout)["result"]["test"]
    assert {"wer", "cer", "loss", "whole"} <= test.keys()
    assert test["wer"] < 0.5
