"""The catalogue of accelerators: drivers' names find their sheet, and a GPU that is here has its figures."""

from __future__ import annotations

import pytest

from thrifty.hardware.accelerators import by_driver, gpu_datasheet, nodes, sheets
from thrifty.hardware.probe import Gpu


def a_gpu(name: str, watts: float = 0.0) -> Gpu:
    return Gpu(name=name, memory_bytes=1 << 34, uuid="GPU-0", driver="1", power_limit_watts=watts)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Tesla V100-SXM2-16GB", "v100-16g"),
        ("Tesla V100-SXM2-32GB", "v100-32g"),
        ("Tesla V100-PCIE-16GB", "v100-pcie"),
        ("Tesla T4", "t4"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40", None),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A100-SXM4-40GB", "a100-40g"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80g"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA GB300", "gb300"),
        ("AMD Instinct MI300X", "mi300x"),
        ("", None),
    ],
)
def test_drivers_names_find_their_sheet(name: str, key: str | None) -> None:
    found = by_driver(name)
    assert (found.key if found else None) == key


def test_every_accelerator_is_found_by_its_own_drivers_name() -> None:
    for key, sheet in sheets().items():
        if sheet.text("kind") != "cpu":
            found = by_driver(sheet.text("driver"))
            assert found is not None
            assert found.key == key


def test_a_gpu_that_is_here() -> None:
    sheet = gpu_datasheet(a_gpu("NVIDIA H200"))
    assert sheet.flops_per_second["bf16"].value == pytest.approx(989.4e12)
    assert sheet.bytes_per_second["memory"].value == pytest.approx(4.8e12)
    assert (sheet.busy_watts.value, sheet.calibration) == (700, sheets()["h200"].text("calibration"))
    limited = gpu_datasheet(a_gpu("NVIDIA H200", watts=500.0))
    assert (limited.busy_watts.value, limited.busy_watts.source) == (500, "power limit by nvidia-smi")
    assert limited.idle_watts == sheet.idle_watts


def test_a_gpu_that_is_not_listed() -> None:
    unknown = gpu_datasheet(a_gpu("NVIDIA Z9"))
    assert (unknown.name, unknown.flops_per_second, unknown.calibration) == ("", {}, "")
    assert unknown.busy_watts.source.startswith("declared default")
    limited = gpu_datasheet(a_gpu("NVIDIA Z9", watts=60.0))
    assert limited.idle_watts.value == pytest.approx(9)
    assert limited.idle_watts.source.startswith("declared: 15% of the busy watts")


def test_nodes_are_used_and_sourced() -> None:
    for key, node in nodes().items():
        assert all(each.source for each in node.numbers.values()), key
        assert node.value("node.devices") >= 1
