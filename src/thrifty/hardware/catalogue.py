"""Datasheet figures of processors by name: peaks, memory bandwidth and watts, each with its source or derivation.

Units of ``catalogue.csv``: a CPU's precisions in FLOP per cycle and core, ``cores`` and bandwidth and watts per socket;
a GPU's precisions in TFLOP/s (dense), bandwidth and watts per device.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib import resources

from thrifty.hardware.probe import Gpu, Probe
from thrifty.spec.device import Quantity
from thrifty.spec.plain import Plain

PRECISIONS = ("fp32", "bf16", "fp16")

# A socket's idle power as a share of its full power. SPECpower_ssj2008 results of such servers lie at a quarter to a
# third; no maker publishes it.
CPU_IDLE_SHARE = 0.3
# Likewise for GPU boards, from what nvidia-smi shows of boards at rest: a tenth to a fifth.
GPU_IDLE_SHARE = 0.15
# A core of the listed servers has 4 to 7 W of its socket's design power, one of the desktops 11 to 16 W.
DEFAULT_BUSY_WATTS_A_CORE, DEFAULT_IDLE_WATTS_A_CORE = 10.0, 3.0
# Between a small board (70 W) and a large one (700 W), nearer the commonest.
DEFAULT_GPU_BUSY_WATTS = 300.0


class Row(Plain):
    """One line of the catalogue; 0 where the datasheet is silent."""

    pattern: str
    kind: str
    name: str
    per_precision: dict[str, float]
    clock_ghz: float
    cores: int
    gigabytes_per_second: float
    idle_watts: float
    busy_watts: float
    source: str


class Datasheet(Plain):
    """Declared figures of one device, for the cores there are. A figure nobody gives is missing, not guessed.

    Attributes:
        name: what the catalogue calls it; empty when it is not listed.
        flops_per_second: by precision.
        bytes_per_second: keyed ``memory``.
        idle_watts, busy_watts: declared defaults, and they say so, where the maker gives none.
    """

    name: str
    flops_per_second: dict[str, Quantity]
    bytes_per_second: dict[str, Quantity]
    idle_watts: Quantity
    busy_watts: Quantity


@cache
def rows() -> tuple[Row, ...]:
    """Read the catalogue that the package ships."""
    text = resources.files("thrifty.hardware").joinpath("catalogue.csv").read_text(encoding="utf-8")
    return tuple(
        Row(
            pattern=line["pattern"],
            kind=line["kind"],
            name=line["name"],
            per_precision={name: float(line[name]) for name in PRECISIONS if line[name]},
            clock_ghz=float(line["clock_ghz"] or 0),
            cores=int(line["cores"] or 0),
            gigabytes_per_second=float(line["gigabytes_per_second"] or 0),
            idle_watts=float(line["idle_watts"] or 0),
            busy_watts=float(line["busy_watts"] or 0),
            source=line["source"],
        )
        for line in csv.DictReader(text.splitlines())
    )


def find(kind: str, name: str) -> Row | None:
    """Return the first row whose pattern is found in a name (of a CPU: name, vendor, family and model).

    >>> find("cuda", "NVIDIA H100 80GB HBM3").name
    'H100 SXM'
    >>> find("cpu", "AMD EPYC; AuthenticAMD family 25 model 17").name
    'EPYC Genoa (as 9654)'
    """
    return next((row for row in rows() if row.kind == kind and re.search(row.pattern, name)), None)


def cpu_datasheet(here: Probe) -> Datasheet:
    """Declared figures of the probed CPU, for the physical cores this process may use.

    Formulas: peak = cores x clock x FLOP per cycle and core; bandwidth and watts = those of the socket x our cores /
    its cores. For a CPU that is not listed, FLOP per cycle come from its instruction sets (`flops_per_cycle`), the
    clock from the kernel, and watts are a declared default.
    """
    row = find("cpu", here.identity)
    if row is None:
        return _unlisted(here)
    share = min(1.0, here.physical_cores / row.cores)
    ours = f"{here.physical_cores} of the {row.cores} cores of {row.name}"
    derived = f"derived: {ours}; {row.source}"
    peaks = {
        name: _peak(here.physical_cores, row.clock_ghz * 1e9, per_cycle, row.source)
        for name, per_cycle in row.per_precision.items()
    }
    bandwidth = Quantity(
        value=row.gigabytes_per_second * 1e9 * share,
        source=f"{derived}; a fair share of the socket, more is there while the other cores rest",
    )
    if not row.busy_watts:
        idle, busy = _default_watts(here)
    else:
        said = f"{derived}; the processor alone"
        busy = Quantity(value=row.busy_watts * share, source=said)
        if row.idle_watts:
            idle = Quantity(value=row.idle_watts * share, source=said)
        else:
            value = busy.value * CPU_IDLE_SHARE
            idle = Quantity(value=value, source=f"declared: {CPU_IDLE_SHARE:.0%} of the busy watts; {said}")
    return Datasheet(
        name=row.name,
        flops_per_second=peaks,
        bytes_per_second={"memory": bandwidth},
        idle_watts=idle,
        busy_watts=busy,
    )


def gpu_datasheet(gpu: Gpu) -> Datasheet:
    """Declared figures of a GPU; its busy watts are the power limit that its driver reports, when it does."""
    row = find("cuda", gpu.name)
    peaks, memory = {}, {}
    watts, said = DEFAULT_GPU_BUSY_WATTS, f"declared default: {DEFAULT_GPU_BUSY_WATTS:.0f} W a GPU that is not listed"
    if row is not None:
        peaks = {name: Quantity(value=rate * 1e12, source=row.source) for name, rate in row.per_precision.items()}
        memory = {"memory": Quantity(value=row.gigabytes_per_second * 1e9, source=row.source)}
        watts, said = row.busy_watts, row.source
    if gpu.power_limit_watts:
        watts, said = gpu.power_limit_watts, "power limit by nvidia-smi"
    return Datasheet(
        name=row.name if row else "",
        flops_per_second=peaks,
        bytes_per_second=memory,
        idle_watts=Quantity(
            value=watts * GPU_IDLE_SHARE, source=f"declared: {GPU_IDLE_SHARE:.0%} of the busy watts; {said}"
        ),
        busy_watts=Quantity(value=watts, source=said),
    )


def flops_per_cycle(isa: tuple[str, ...]) -> dict[str, int]:
    """Return what a core with these instruction sets does in a cycle, by precision.

    Formula: 2 units x lanes x 2 (a multiply-add). Lanes of fp32: 16 with AVX-512, 8 with AVX2 and FMA or with SVE, 4
    with NEON. In bf16 twice that with AVX512_BF16, four times with Arm's BFMMLA, and 1024 with AMX (a tile product of
    16 x 16 x 32 in 16 cycles). Doubt: some cores have one 512-bit unit, or two of 256 bits working together: half.

    >>> flops_per_cycle(("avx2", "fma"))
    {'fp32': 32}
    """
    has = set(isa)
    if "avx512f" in has:
        lanes = 16
    elif {"avx2", "fma"} <= has or "sve" in has:
        lanes = 8
    elif has & {"asimd", "neon"}:
        lanes = 4
    else:
        return {}
    rates = {"fp32": 2 * lanes * 2}
    if "amx_bf16" in has:
        rates["bf16"] = 1024
    elif "avx512_bf16" in has:
        rates["bf16"] = 2 * rates["fp32"]
    elif "bf16" in has:
        rates["bf16"] = 4 * rates["fp32"]
    return rates


def _unlisted(here: Probe) -> Datasheet:
    idle, busy = _default_watts(here)
    peaks = {}
    if here.clock_hz:
        why = "not listed; FLOP per cycle by its instruction sets, clock by the kernel"
        peaks = {
            name: _peak(here.physical_cores, here.clock_hz, per_cycle, why)
            for name, per_cycle in flops_per_cycle(here.isa).items()
        }
    return Datasheet(name="", flops_per_second=peaks, bytes_per_second={}, idle_watts=idle, busy_watts=busy)


def _peak(cores: int, clock_hz: float, per_cycle: float, source: str) -> Quantity:
    said = f"derived: {cores} cores x {clock_hz / 1e9:.2f} GHz x {per_cycle:.0f} FLOP a cycle; {source}"
    return Quantity(value=cores * clock_hz * per_cycle, source=said)


def _default_watts(here: Probe) -> tuple[Quantity, Quantity]:
    busy, idle = DEFAULT_BUSY_WATTS_A_CORE, DEFAULT_IDLE_WATTS_A_CORE
    said = f"declared default: {busy:.0f} W a core busy, {idle:.0f} W idle"
    cores = here.physical_cores
    return Quantity(value=idle * cores, source=said), Quantity(value=busy * cores, source=said)
