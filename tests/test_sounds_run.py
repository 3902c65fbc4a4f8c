"""Recordings the whole way: `thrifty init` writes the job, `run` makes the bundle, `predict` takes a sound file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent / "data"))
from made_sounds import encoded, tone, write_folders, write_strings, write_voices

from test_cli import thrifty
from thrifty.export.bundle import load_bundle
from thrifty.export.hugging_face import export_hugging_face

LETTERS = {"<pad>": 0, "<unk>": 1, "|": 2, **{each: 3 + at for at, each in enumerate("DGHILMOW")}}


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
    # as Common Voice has them
    write_voices(tmp_path / "said", {"train": 160, "dev": 20, "test": 20, "other": 5})
    assert thrifty("init", "said", cwd=tmp_path).returncode == 0
    path = tmp_path / "job.yaml"
    job = yaml.safe_load(path.read_text())
    train = {"epochs": 12, "batch": 16, "learning_rate": 3e-3}
    pinned = {"precision": "fp32", "batching": "by_length", "checkpointing": "none", "compile": "none"}
    path.write_text(yaml.safe_dump({**job, "model": "speech-tiny", "train": train, "plan": pinned}))
    done = thrifty("run", "job.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    test = json.loads(done.stdout)["result"]["test"]
    assert {"wer", "cer", "loss", "whole"} <= test.keys()
    assert test["wer"] < 0.5


@pytest.mark.slow
def test_weights_over_raw_waves_the_whole_way(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, conv_dim=[8] * 7,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, vocab_size=len(LETTERS), mask_time_prob=0.0,
    )  # fmt: skip
    transformers.Wav2Vec2ForCTC(config).save_pretrained(tmp_path / "ear")
    (tmp_path / "ear" / "vocab.json").write_text(json.dumps(LETTERS))
    write_strings(tmp_path / "said", {"train": 16, "validation": 4, "test": 4})
    data = {"kind": "audio", "path": "said", "transcript": "transcript", "features": "wave"}
    pinned = {"precision": "fp32", "micro_batch": 8, "batching": "by_length", "checkpointing": "none"}
    job = {"name": "said", "data": {**data, "tokenizer": "ear/vocab.json"}, "model": "ours:ear"}
    job |= {"train": {"epochs": 1, "batch": 8}, "plan": {**pinned, "compile": "none"}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    done = thrifty("run", "job.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"wer", "cer"} <= json.loads(done.stdout)["result"]["test"].keys()
    bundle = load_bundle(tmp_path / "runs" / "said" / "bundle")
    assert bundle.info.data.labels == ("<unk>", " ", *"dghilmow")
    assert set(bundle.predict((tmp_path / "said" / "test0.flac").read_bytes())) == {"transcript"}
    export_hugging_face(bundle, tmp_path / "there")
    there = json.loads((tmp_path / "there" / "vocab.json").read_text())
    assert {token.lower(): number for token, number in LETTERS.items()} == there
