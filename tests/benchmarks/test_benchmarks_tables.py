"""Rows of published tables: what is derived, what is assumed, and what is left out with its reason."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from benchmarks.tables import PUBLISHED, Row, read_tables

COLUMNS = [
    "model", "layers", "hidden", "heads", "seq_len", "vocab", "hardware", "n_devices", "dp", "tp", "pp", "cp", "ep",
    "vpp", "sharding", "precision", "activation_checkpointing", "micro_batch", "global_batch", "step_time_s",
    "tokens_per_s_per_device", "status",
]  # fmt: skip
PLAIN = {
    "model": "GPT", "layers": "24", "hidden": "1024", "heads": "16", "seq_len": "1024", "vocab": "51200",
    "hardware": "A100 80GB", "n_devices": "16", "tp": "2", "pp": "2", "precision": "fp16", "micro_batch": "2",
    "global_batch": "64", "step_time_s": "1.5", "activation_checkpointing": "full",
}  # fmt: skip


def read(folder: Path, **more: str) -> Row:
    with (folder / "mine.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerow({**PLAIN, **more})
    return read_tables(folder)["mine"][0]


def test_degrees_are_derived(tmp_path: Path) -> None:
    row = read(tmp_path)
    assert row.timed
    assert (row.layout.data, row.layout.accumulation, row.layout.checkpointing) == (4, 8, "full")
    assert row.step_seconds == 1.5
    assert row.tokens_per_second == pytest.approx(64 * 1024 / 1.5 / 16)


def test_time_from_tokens_a_second(tmp_path: Path) -> None:
    row = read(tmp_path, step_time_s="", tokens_per_s_per_device="4096")
    assert row.step_seconds == pytest.approx(1.0)


def test_public_models_are_filled_in(tmp_path: Path) -> None:
    row = read(tmp_path, model="LLAMA3_70B", layers="", hidden="", heads="", vocab="", tp="2", pp="2")
    assert row.shape is not None
    assert (row.shape.hidden, row.shape.kv_heads, row.shape.gated) == (8192, 8, True)
    assert any("LLAMA3_70B" in text for text in row.assumptions)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"layers": ""}, "layers and width"),
        ({"n_devices": "15"}, "no multiple"),
        ({"hardware": "abacus"}, "hardware 'abacus'"),
        ({"micro_batch": ""}, "micro-batch"),
        ({"step_time_s": ""}, "no time"),
        ({"precision": "NVFP4"}, "NVFP4"),
        ({"model": "GPT LoRA"}, "adapters"),
    ],
)
def test_what_is_left_out_says_why(tmp_path: Path, more: dict[str, str], why: str) -> None:
    row = read(tmp_path, **more)
    assert not row.timed
    assert any(why in reason for reason in row.missing)


def test_out_of_memory_is_described_but_not_timed(tmp_path: Path) -> None:
    row = read(tmp_path, status="OOM", step_time_s="")
    assert row.described
    assert not row.timed
    assert row.status == "oom"


def test_halves_depend_on_the_configuration_alone(tmp_path: Path) -> None:
    assert read(tmp_path).fitted == read(tmp_path, step_time_s="3.0").fitted


@pytest.mark.slow
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published tables are not beside the project")
def test_the_published_tables() -> None:
    tables = read_tables()
    timed = {name: sum(row.timed for row in rows) for name, rows in tables.items()}
    assert timed["vtrain_a100_singlenode_sample"] == 234
    assert timed["vtrain_a100_multinode"] == 63
    assert timed["llm_foundry"] == 125
    assert timed["bigscience_a100"] == 86
    for rows in tables.values():
        for row in rows:
            assert row.timed or row.missing or row.status == "oom", (row.table, row.line)
