"""The catalogue: names find their rows, and what is derived follows from the row by the formula it states."""

from __future__ import annotations

import csv
import re
from importlib import resources

import pytest

from thrifty.hardware import catalogue
from thrifty.hardware.probe import Gpu, Probe


def a_probe(identity: str, *, cores: int = 2, isa: tuple[str, ...] = (), clock_hz: float = 0.0) -> Probe:
    return Probe(
        name=identity.partition(";")[0],
        identity=identity,
        architecture="x86_64",
        cores=cores,
        physical_cores=cores,
        cores_source="",
        isa=isa,
        cache_bytes={},
        clock_hz=clock_hz,
        installed_bytes=1 << 33,
        memory_bytes=1 << 33,
        memory_source="",
    )


def a_gpu(name: str, watts: float = 0.0) -> Gpu:
    return Gpu(name=name, memory_bytes=1 << 34, uuid="GPU-0", driver="1", power_limit_watts=watts)


@pytest.mark.parametrize(
    ("kind", "name", "listed"),
    [
        ("cpu", "Intel(R) Xeon(R) Platinum 8488C; GenuineIntel family 6 model 143", "Sapphire"),
        ("cpu", "Intel(R) Xeon(R) Processor; GenuineIntel family 6 model 143", "Sapphire"),
        ("cpu", "Intel(R) Xeon(R) Processor @ 2.60GHz; GenuineIntel family 6 model 106", "Ice Lake"),
        ("cpu", "Intel(R) Xeon(R) CPU @ 2.80GHz; GenuineIntel family 6 model 85", "Cascade"),
        ("cpu", "AMD EPYC 9R14; AuthenticAMD family 25 model 17", "Genoa"),
        ("cpu", "AMD EPYC; AuthenticAMD family 25 model 17", "Genoa"),
        ("cpu", "AMD EPYC; AuthenticAMD family 25 model 1", "Milan"),
        ("cpu", "AMD EPYC 7R13 Processor; AuthenticAMD family 25 model 1", "Milan"),
        ("cpu", "Arm Neoverse-V1", "Graviton3"),
        ("cpu", "Apple M1", "Apple M1"),
        ("cpu", "Apple M1 Max", None),
        ("cpu", "Intel(R) Core(TM) i7-10700K CPU @ 3.80GHz; GenuineIntel family 6 model 165", "i7-10700K"),
        ("cuda", "Tesla V100-SXM2-16GB", "V100 SXM2"),
        ("cuda", "Tesla T4", "T4"),
        ("cuda", "NVIDIA A10G", "A10G"),
        ("cuda", "NVIDIA L4", "L4"),
        ("cuda", "NVIDIA L40S", None),
        ("cuda", "NVIDIA A100-SXM4-40GB", "A100 SXM 40 GB"),
        ("cuda", "NVIDIA A100 80GB PCIe", "A100 PCIe 80 GB"),
        ("cuda", "NVIDIA H100 PCIe", "H100 PCIe"),
        ("cuda", "NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("cuda", "NVIDIA H200", "H200 SXM"),
        ("cuda", "NVIDIA H200 NVL", None),
        ("cuda", "NVIDIA GeForce RTX 4090", "GeForce RTX 4090"),
        ("cuda", "NVIDIA GeForce RTX 4090 D", None),
    ],
)
def test_names_find_their_row(kind: str, name: str, listed: str | None) -> None:
    row = catalogue.find(kind, name)
    assert (row is None) == (listed is None)
    assert row is None or (listed or "") in row.name


def test_every_row_is_whole() -> None:
    lines = resources.files("thrifty.hardware").joinpath("catalogue.csv").read_text(encoding="utf-8").splitlines()
    assert len(list(csv.DictReader(lines))) == len(catalogue.rows()) == len({row.pattern for row in catalogue.rows()})
    for row in catalogue.rows():
        re.compile(row.pattern)
        assert row.kind in {"cpu", "cuda"}
        assert row.source
        assert row.gigabytes_per_second > 0
        assert row.kind == "cuda" or (row.cores > 0 and row.clock_ghz > 0)
        assert row.kind == "cpu" or {"fp32", "fp16"} <= set(row.per_precision)
        assert row.idle_watts <= row.busy_watts


def test_a_share_of_a_listed_socket_is_derived_and_says_so() -> None:
    sheet = catalogue.cpu_datasheet(a_probe("AMD EPYC; AuthenticAMD family 25 model 17", cores=2))
    assert sheet.flops_per_second["fp32"].value == pytest.approx(2 * 3.7e9 * 32)
    assert sheet.flops_per_second["bf16"].value == pytest.approx(2 * 3.7e9 * 64)
    assert sheet.bytes_per_second["memory"].value == pytest.approx(460.8e9 * 2 / 96)
    assert sheet.busy_watts.value == pytest.approx(360 * 2 / 96)
    assert 0 < sheet.idle_watts.value < sheet.busy_watts.value
    for quantity in (*sheet.flops_per_second.values(), *sheet.bytes_per_second.values(), sheet.busy_watts):
        assert quantity.source.startswith("derived: ")
        assert "9654" in quantity.source
    assert sheet.idle_watts.source.startswith("declared: 30% of the busy watts")


def test_more_cores_than_a_socket_has_no_more_watts_than_a_socket() -> None:
    sheet = catalogue.cpu_datasheet(a_probe("AMD EPYC 9654; AuthenticAMD family 25 model 17", cores=500))
    assert sheet.busy_watts.value == 360
    assert sheet.bytes_per_second["memory"].value == pytest.approx(460.8e9)


def test_a_listed_processor_without_watts_takes_the_declared_default() -> None:
    sheet = catalogue.cpu_datasheet(a_probe("Arm Neoverse-V1", cores=4))
    assert sheet.busy_watts.source == "declared default: 10 W a core busy, 3 W idle"
    assert (sheet.busy_watts.value, sheet.idle_watts.value) == (40, 12)
    assert "Graviton" in sheet.bytes_per_second["memory"].source


def test_an_unlisted_processor_is_taken_by_its_instruction_sets() -> None:
    sheet = catalogue.cpu_datasheet(a_probe("Foo 9", isa=("avx2", "fma"), clock_hz=3e9))
    assert sheet.flops_per_second["fp32"].value == pytest.approx(2 * 3e9 * 32)
    assert "not listed" in sheet.flops_per_second["fp32"].source
    assert (sheet.name, sheet.bytes_per_second) == ("", {})
    assert sheet.busy_watts.value == 20
    assert catalogue.cpu_datasheet(a_probe("Foo 9", isa=("avx2", "fma"))).flops_per_second == {}, "no clock, no peak"


@pytest.mark.parametrize(
    ("isa", "rates"),
    [
        (("avx2", "fma", "avx512f"), {"fp32": 64}),
        (("avx512f", "avx512_bf16"), {"fp32": 64, "bf16": 128}),
        (("avx512f", "avx512_bf16", "amx_bf16"), {"fp32": 64, "bf16": 1024}),
        (("asimd",), {"fp32": 16}),
        (("asimd", "sve", "bf16"), {"fp32": 32, "bf16": 128}),
        ((), {}),
    ],
)
def test_flops_a_cycle(isa: tuple[str, ...], rates: dict[str, int]) -> None:
    assert catalogue.flops_per_cycle(isa) == rates


def test_a_gpu() -> None:
    sheet = catalogue.gpu_datasheet(a_gpu("NVIDIA H200"))
    assert sheet.flops_per_second["bf16"].value == pytest.approx(989e12)
    assert sheet.bytes_per_second["memory"].value == pytest.approx(4.8e12)
    assert (sheet.busy_watts.value, sheet.busy_watts.source[:11]) == (700, "NVIDIA H200")
    limited = catalogue.gpu_datasheet(a_gpu("NVIDIA H200", watts=500.0))
    assert (limited.busy_watts.value, limited.busy_watts.source) == (500, "power limit by nvidia-smi")
    unknown = catalogue.gpu_datasheet(a_gpu("NVIDIA Z9"))
    assert (unknown.name, unknown.flops_per_second) == ("", {})
    assert unknown.busy_watts.source.startswith("declared default")
