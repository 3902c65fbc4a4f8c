"""Documents apart, with a given tokenizer: the whole way from rows to a bundle."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).parent / "data"))
from data_folders import novel

from test_cli import thrifty
from thrifty.data import Store
from thrifty.data.store import prepared_folder
from thrifty.export.bundle import load_bundle
from thrifty.spec.folders import cache_folder


@pytest.mark.slow
def test_the_whole_way(tmp_path: Path) -> None:
    rows = [novel(number, 20 + number % 30).strip() for number in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(rows, trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False))
    made.add_special_tokens(["<|endoftext|>"])
    made.save(str(tmp_path / "tokenizer.json"))
    data = {"kind": "language", "path": "rows.jsonl", "tokenizer": "tokenizer.json", "length": 96, "copies": "exact"}
    job = {
        "name": "rows",
        "data": {**data, "documents": "apart"},
        "model": "llama-nano",
        "train": {"steps": 4, "batch": 8},
    }
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump(job))
    done = thrifty("run", "rows.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "documents apart" in done.stderr
    run = tmp_path / "runs" / "rows"
    plan = json.loads((run / "plan.json").read_text())
    assert plan["batch"]["batching"] == "packed"
    assert {line["field"]: line["value"] for line in plan["why"]}["documents"] == "apart"

    # what the report says of held-out text is what each document, as far as a window has it, says alone
    bundle = load_bundle(run / "bundle")
    end = bundle.info.data.end
    assert end == made.token_to_id("<|endoftext|>")
    store = Store(prepared_folder(cache_folder()) / bundle.info.data.key)
    stream = torch.from_numpy(store.array("test", "tokens").astype(np.int64))
    cuts = sorted({*np.flatnonzero(stream[:-1] == end).tolist(), *range(0, len(stream) - 1, 96), len(stream) - 1})
    with torch.no_grad():
        losses = [
            F.cross_entropy(bundle.model(stream[None, a:b])[0], stream[a + 1 : b + 1], reduction="sum").item()
            for a, b in itertools.pairwise(cuts)
        ]
    told = json.loads(done.stdout)["result"]["test"]
    assert told["tokens"] == len(stream) - 1
    assert sum(losses) / (len(stream) - 1) == pytest.approx(
        told["loss"], rel=0.02 if plan["precision"] == "bf16" else 1e-4
    )
    assert thrifty("predict", "runs/rows", "the lamp", cwd=tmp_path).returncode == 0
