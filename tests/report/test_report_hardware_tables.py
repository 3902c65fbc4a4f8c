"""The catalogue and a cluster in the terminal: all devices, each number with its source, 80 columns are enough."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from thrifty import hardware
from thrifty.report.hardware_tables import catalogue_table, cluster_table


def shown(table: RenderableType, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("width", [80, 120])
def test_the_catalogue_lists_every_device_uncut(width: int) -> None:
    said = shown(catalogue_table(), width)
    assert "…" not in said
    for row in hardware.catalogue_rows():
        assert f" {row['name']} " in said
    assert "NVIDIA GPUs" in said
    assert "989" in said
    assert max(len(line) for line in said.splitlines()) <= width


def test_rows_handed_in_are_taken() -> None:
    row = next(row for row in hardware.catalogue_rows() if row["name"] == "tpu-v4")
    said = shown(catalogue_table([row]), 80)
    assert "tpu-v4" in said
    assert "NVIDIA" not in said


def test_a_cluster_names_each_source_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THRIFTY_PRICES", raising=False)
    monkeypatch.delenv("THRIFTY_ENERGY", raising=False)
    said = shown(cluster_table(hardware.find_cluster("h100:8x2")), 100)
    assert said.startswith("h100:8x2 · 16 x H100 SXM in 2 nodes of 8")
    assert "450 GB/s" in said
    assert said.count("garden, H100") == 1
    assert "THRIFTY_ENERGY" in said
