"""Datasheet figures of processors by name: peaks, memory bandwidth and watts, each with its source or derivation.

Units of ``catalogue.csv``: precisions in FLOP per cycle and core; cores, bandwidth, memory and watts of a socket.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib import resources

from thrifty.hardware.probe import Probe
from thrifty.spec.device import Quantity
from thrifty.spec.plain import Plain

PRECISIONS = ("fp32", "bf16", "fp16")

# A socket's idle power as a share of its full power. SPECpower_ssj2008 results of such servers lie at a quarter to a
# third; no maker publishes it.
CPU_IDLE_SHARE = 0.3
# FLOP in a cycle of an average core of an Apple M: four 128-bit multiply-add pipes in a large core, two in a small one,
# as many of each (reverse-engineered by others, recalled). Its matrix units do more; Apple publishes nothing of them.
APPLE_FLOPS_PER_CYCLE = 24
# A core of the listed servers has 4 to 7 W of its socket's design power, one of the desktops 11 to 16 W.
DEFAULT_BUSY_WATTS_A_CORE, DEFAULT_IDLE_WATTS_A_CORE = 10.0, 3.0


class Row(Plain):
    """One processor of the catalogue, by the socket; 0 or empty where the datasheet is silent.

    Attributes:
        key, aliases: what it is asked for by.
        pattern: found in the `Probe.identity` of such a processor.
        identity: what such a processor says of itself, to look its price up.
        per_precision: FLOP in a cycle of one core.
        logical: logical processors of its cores, as rented.
        memory_gib: of the usual machine with it.
        calibration, node: as for `Sheet`.
    """

    key: str
    aliases: tuple[str, ...]
    pattern: str
    identity: str
    name: str
    per_precision: dict[str, float]
    clock_ghz: float
    cores: int
    logical: int
    isa: tuple[str, ...]
    gigabytes_per_second: float
    memory_gib: float
    idle_watts: float
    busy_watts: float
    calibration: str
    node: str
    source: str

    def peaks(self) -> dict[str, Quantity]:
        """FLOP/s of the whole socket by precision; of one without published peaks, of its vector units alone."""
        if self.per_precision:
            return {
                name: _peak(self.cores, self.clock_ghz * 1e9, each, self.source)
                for name, each in self.per_precision.items()
            }
        why = (
            f"declared: the vector units alone, four pipes of 128 bits a large core and two a small one; {self.source}"
        )
        return {"fp32": _peak(self.cores, self.clock_ghz * 1e9, APPLE_FLOPS_PER_CYCLE, why)}

    def watts(self, cores: int = 0) -> tuple[Quantity, Quantity]:
        """Idle and busy watts of some of its cores, or of all."""
        share = min(1.0, (cores or self.cores) / self.cores)
        ours = f"derived: {cores} of the {self.cores} cores of {self.name}; " if cores else "datasheet: "
        said = f"{ours}{self.source}; the processor alone"
        busy = Quantity(value=self.busy_watts * share, source=said)
        if self.idle_watts:
            return Quantity(value=self.idle_watts * share, source=said), busy
        idle = f"declared: {CPU_IDLE_SHARE:.0%} of the busy watts; {said}"
        return Quantity(value=busy.value * CPU_IDLE_SHARE, source=idle), busy


class Datasheet(Plain):
    """Declared figures of one device, for the cores there are. A figure nobody gives is missing, not guessed.

    Attributes:
        name: what the catalogue calls it; empty when it is not listed.
        flops_per_second: by precision.
        bytes_per_second: keyed ``memory``.
        idle_watts, busy_watts: declared defaults, and they say so, where the maker gives none.
        calibration: as for `Device`; empty when it is not listed.
    """

    name: str
    flops_per_second: dict[str, Quantity]
    bytes_per_second: dict[str, Quantity]
    idle_watts: Quantity
    busy_watts: Quantity
    calibration: str = ""


@cache
def rows() -> tuple[Row, ...]:
    """Read the catalogue of processors that the package ships."""
    text = resources.files("thrifty.hardware").joinpath("catalogue.csv").read_text(encoding="utf-8")
    return tuple(
        Row(
            per_precision={name: float(line[name]) for name in PRECISIONS if line[name]},
            aliases=tuple(line["aliases"].split()),
            isa=tuple(line["isa"].split()),
            cores=int(line["cores"]),
            logical=int(line["logical"]),
            clock_ghz=float(line["clock_ghz"]),
            gigabytes_per_second=float(line["gigabytes_per_second"]),
            memory_gib=float(line["memory_gib"]),
            idle_watts=float(line["idle_watts"] or 0),
            busy_watts=float(line["busy_watts"] or 0),
            **{name: line[name] for name in ("key", "pattern", "identity", "name", "calibration", "node", "source")},
        )
        for line in csv.DictReader(text.splitlines())
    )


def find(identity: str) -> Row | None:
    """Return the first row whose pattern is found in a processor's name, vendor, family and model.

    >>> find("AMD EPYC; AuthenticAMD family 25 model 17").name
    'EPYC Genoa (as 9654)'
    """
    return next((row for row in rows() if re.search(row.pattern, identity)), None)


def cpu_datasheet(here: Probe) -> Datasheet:
    """Declared figures of the probed CPU, for the physical cores this process may use.

    Formulas: peak = cores x clock x FLOP per cycle and core; bandwidth and watts = those of the socket x our cores /
    its cores. For a CPU that is not listed, FLOP per cycle come from its instruction sets (`flops_per_cycle`), the
    clock from the kernel, and watts are a declared default.
    """
    row = find(here.identity)
    if row is None:
        return _unlisted(here)
    share = min(1.0, here.physical_cores / row.cores)
    derived = f"derived: {here.physical_cores} of the {row.cores} cores of {row.name}; {row.source}"
    peaks = {
        name: _peak(here.physical_cores, row.clock_ghz * 1e9, per_cycle, row.source)
        for name, per_cycle in row.per_precision.items()
    }
    bandwidth = Quantity(
        value=row.gigabytes_per_second * 1e9 * share,
        source=f"{derived}; a fair share of the socket, more is there while the other cores rest",
    )
    idle, busy = row.watts(here.physical_cores) if row.busy_watts else _default_watts(here.physical_cores)
    return Datasheet(
        name=row.name,
        flops_per_second=peaks,
        bytes_per_second={"memory": bandwidth},
        idle_watts=idle,
        busy_watts=busy,
        calibration=row.calibration,
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
    idle, busy = _default_watts(here.physical_cores)
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


def _default_watts(cores: int) -> tuple[Quantity, Quantity]:
    busy, idle = DEFAULT_BUSY_WATTS_A_CORE, DEFAULT_IDLE_WATTS_A_CORE
    said = f"declared default: {busy:.0f} W a core busy, {idle:.0f} W idle"
    return Quantity(value=idle * cores, source=said), Quantity(value=busy * cores, source=said)
