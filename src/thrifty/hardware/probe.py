"""What is here: processor, instruction sets, caches, memory and GPUs, from the system alone, without torch."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from thrifty.hardware.cgroup import cpu_quota, memory_limit, read
from thrifty.spec.plain import Plain
from thrifty.spec.units import BYTES

# Instruction sets that decide how fast matrices multiply, x86 first, then Arm, as the kernel names them.
ISA = (
    "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_bf16", "amx_int8",
    "neon", "asimd", "asimdhp", "asimddp", "sve", "sve2", "bf16", "i8mm",
)  # fmt: skip

# Arm kernels give numbers for names: part numbers of implementer 0x41, from the cores' reference manuals.
ARM_PARTS = {
    "0xd0c": "Neoverse-N1", "0xd40": "Neoverse-V1", "0xd49": "Neoverse-N2", "0xd4f": "Neoverse-V2",
    "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76",
}  # fmt: skip

_SMI_QUERY = "name,memory.total,uuid,driver_version,power.limit"


class Gpu(Plain):
    """One NVIDIA GPU as its driver describes it; ``power_limit_watts`` is 0 where the driver does not say."""

    name: str
    memory_bytes: int
    uuid: str
    driver: str
    power_limit_watts: float


class Probe(Plain):
    """What the machine is, as far as this process may use it.

    Attributes:
        name: of the processor, as its maker calls it.
        identity: name, vendor, family and model; what the tables of datasheets and prices are searched with.
        architecture: such as ``x86_64`` or ``aarch64``.
        cores: logical processors this process may run on, no more than the cgroup quota rounded up.
        physical_cores: cores that those stand for; two hyper-threads share one.
        cores_source: where ``cores`` comes from.
        isa: those of `ISA` that the processor has.
        cache_bytes: by level, of those processors, each shared cache counted once.
        clock_hz: highest clock that the kernel reports; 0 where it does not.
        installed_bytes: memory of the machine.
        memory_bytes: the smaller of that and the cgroup limit.
        memory_source: which of the two it is.
        gpus: NVIDIA GPUs this process may see.
    """

    name: str
    identity: str
    architecture: str
    cores: int
    physical_cores: int
    cores_source: str
    isa: tuple[str, ...]
    cache_bytes: dict[str, int]
    clock_hz: float
    installed_bytes: int
    memory_bytes: int
    memory_source: str
    gpus: tuple[Gpu, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits, equal for equal processors and cores whatever the machine is called."""
        facts = (self.identity, self.architecture, self.cores, self.physical_cores, self.isa, self.cache_bytes)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def probe(root: Path = Path("/")) -> Probe:
    """Look at the machine: on Linux from ``proc`` and ``sys`` under ``root``, on macOS by ``sysctl``.

    What cannot be found out is said in the ``source`` fields, never an error.
    """
    if not (root / "proc/cpuinfo").exists():
        gpus = visible_gpus() if root == Path("/") else ()
        return from_sysctl(_run(["sysctl", "-a"])).model_copy(update={"gpus": gpus})
    fields = _cpuinfo(root)
    allowed = _allowed(root)
    memory, memory_source = _memory(root)
    cores, cores_source = _cores(root, len(allowed))
    name, identity = _names(fields, root)
    return Probe(
        name=name,
        identity=identity,
        architecture="aarch64" if "CPU implementer" in fields else "x86_64" if "vendor_id" in fields else _machine(),
        cores=cores,
        physical_cores=min(cores, _physical(root, allowed)),
        cores_source=cores_source,
        isa=_isa(fields),
        cache_bytes=_caches(root, allowed),
        clock_hz=_clock_hz(root, fields),
        installed_bytes=_installed(root),
        memory_bytes=memory,
        memory_source=memory_source,
        gpus=visible_gpus() if root == Path("/") else (),
    )


def instruction_sets(root: Path = Path("/")) -> tuple[str, ...]:
    """Return those of `ISA` that the processor has, and look at nothing else; none where there is no ``proc``."""
    return _isa(_cpuinfo(root)) if (root / "proc/cpuinfo").exists() else probe(root).isa


def _cpuinfo(root: Path) -> dict[str, str]:
    """Read the fields of the first processor; those of the others are alike, but for the clock: the highest."""
    fields: dict[str, str] = {}
    clock = 0.0
    for line in read(root / "proc/cpuinfo").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        fields.setdefault(key, value)
        if key == "cpu MHz":
            clock = max(clock, float(value))
    return {**fields, "cpu MHz": str(clock)}


def _names(fields: dict[str, str], root: Path) -> tuple[str, str]:
    if "CPU implementer" in fields:
        core = ARM_PARTS.get(fields.get("CPU part", ""), f"part {fields.get('CPU part', 'unknown')}")
        maker = "Arm" if fields["CPU implementer"] == "0x41" else f"implementer {fields['CPU implementer']}"
        board = read(root / "proc/device-tree/model").strip("\0")
        name = fields.get("model name") or (f"{board} ({maker} {core})" if board else f"{maker} {core}")
        return name, name
    name = fields.get("model name") or platform.processor() or "unknown processor"
    kind = f"{fields.get('vendor_id', '')} family {fields.get('cpu family', '')} model {fields.get('model', '')}"
    return name, f"{name}; {kind}"


def _isa(fields: dict[str, str]) -> tuple[str, ...]:
    has = set((fields.get("flags") or fields.get("Features") or "").split())
    return tuple(name for name in ISA if name in has)


def _allowed(root: Path) -> tuple[int, ...]:
    """Read the processors this process may be scheduled on (sched_getaffinity, by way of proc)."""
    found = re.search(r"^Cpus_allowed_list:\s*(\S+)", read(root / "proc/self/status"), re.MULTILINE)
    if found:
        return tuple(parse_list(found[1]))
    count = len(re.findall(r"^processor\s*:", read(root / "proc/cpuinfo"), re.MULTILINE))
    return tuple(range(max(count, 1)))


def parse_list(text: str) -> list[int]:
    """Spell out a kernel list of processors.

    >>> parse_list("0-2,8")
    [0, 1, 2, 8]
    """
    numbers: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _cores(root: Path, allowed: int) -> tuple[int, str]:
    quota = cpu_quota(root)
    if quota is None or quota[0] >= allowed:
        return allowed, "scheduler affinity"
    # Rounded up: with 1.5 processors two threads do more than one, though throttled.
    return max(1, math.ceil(quota[0])), f"{quota[1]} of {quota[0]:g} processors, rounded up"


def _physical(root: Path, allowed: tuple[int, ...]) -> int:
    topology = root / "sys/devices/system/cpu"
    siblings = (read(topology / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in allowed)
    return len(set(siblings))


def _caches(root: Path, allowed: tuple[int, ...]) -> dict[str, int]:
    seen: dict[tuple[str, str], int] = {}
    for cpu in allowed:
        for index in sorted((root / f"sys/devices/system/cpu/cpu{cpu}/cache").glob("index[0-9]*")):
            kind, level = read(index / "type"), read(index / "level")
            if kind == "Instruction" or not level:
                continue
            name = f"L{level}d" if kind == "Data" else f"L{level}"
            seen[name, read(index / "shared_cpu_list") or str(cpu)] = _size(read(index / "size"))
    levels: dict[str, int] = {}
    for (name, _), size in sorted(seen.items()):
        levels[name] = levels.get(name, 0) + size
    return levels


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KMG]?)", text)
    return int(found[1]) * {"": 1, "K": BYTES["KiB"], "M": BYTES["MiB"], "G": BYTES["GiB"]}[found[2]] if found else 0


def _clock_hz(root: Path, fields: dict[str, str]) -> float:
    highest = read(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    return float(highest) * 1e3 if highest.isdigit() else float(fields["cpu MHz"]) * 1e6


def _installed(root: Path) -> int:
    found = re.search(r"^MemTotal:\s*(\d+) kB", read(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _memory(root: Path) -> tuple[int, str]:
    installed, limit = _installed(root), memory_limit(root)
    if limit is not None and (limit[0] < installed or not installed):
        return limit
    return installed, "installed memory" if installed else "not known: no MemTotal in /proc/meminfo"


def from_sysctl(text: str) -> Probe:
    """Build a probe from what ``sysctl -a`` prints on macOS; what it lacks comes from Python's own view."""
    found = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)

    def number(key: str) -> int:
        return int(found[key]) if found.get(key, "").isdigit() else 0

    name = found.get("machdep.cpu.brand_string") or platform.processor() or "unknown processor"
    words = found.get("machdep.cpu.features", "").lower() + " " + found.get("machdep.cpu.leaf7_features", "").lower()
    arm = {"asimd": "hw.optional.arm.AdvSIMD", "bf16": "hw.optional.arm.FEAT_BF16", "i8mm": "hw.optional.arm.FEAT_I8MM"}
    has = set(words.replace("avx1.0", "avx").split()) | {isa for isa, key in arm.items() if number(key) == 1}
    cores = number("hw.logicalcpu") or os.cpu_count() or 1
    caches = {
        "L1d": number("hw.l1dcachesize") * cores, "L2": number("hw.l2cachesize"), "L3": number("hw.l3cachesize"),
    }  # fmt: skip
    memory = number("hw.memsize")
    return Probe(
        name=name,
        identity=name,
        architecture=_machine(),
        cores=cores,
        physical_cores=number("hw.physicalcpu") or cores,
        cores_source="sysctl hw.logicalcpu" if number("hw.logicalcpu") else "os.cpu_count",
        isa=tuple(isa for isa in ISA if isa in has),
        cache_bytes={level: size for level, size in caches.items() if size},
        clock_hz=float(number("hw.cpufrequency_max")),
        installed_bytes=memory,
        memory_bytes=memory,
        memory_source="sysctl hw.memsize" if memory else "not known: no hw.memsize from sysctl",
    )


def visible_gpus() -> tuple[Gpu, ...]:
    """Ask ``nvidia-smi`` for the GPUs, of those the ones that CUDA_VISIBLE_DEVICES leaves; none without a driver."""
    if shutil.which("nvidia-smi") is None:
        return ()
    text = _run(["nvidia-smi", f"--query-gpu={_SMI_QUERY}", "--format=csv,noheader,nounits"])
    return keep_visible(parse_smi(text), os.environ.get("CUDA_VISIBLE_DEVICES"))


def parse_smi(text: str) -> tuple[Gpu, ...]:
    """Read the lines of nvidia-smi's csv, without units; a line that is not one is passed over.

    >>> parse_smi("NVIDIA L4, 23034, GPU-5a, 550.54, [N/A]")[0].power_limit_watts
    0.0
    """
    gpus = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) == len(_SMI_QUERY.split(",")) and row[1].strip().isdigit():
            name, memory, uuid, driver, limit = (cell.strip() for cell in row)
            watts = float(limit) if re.fullmatch(r"\d+(\.\d+)?", limit) else 0.0
            size = int(memory) * BYTES["MiB"]
            gpus.append(Gpu(name=name, memory_bytes=size, uuid=uuid, driver=driver, power_limit_watts=watts))
    return tuple(gpus)


def keep_visible(gpus: tuple[Gpu, ...], visible: str | None) -> tuple[Gpu, ...]:
    """Keep the GPUs that CUDA would: named by number or by the beginning of their uuid, up to the first invalid."""
    if visible is None:
        return gpus
    kept = []
    for word in (part.strip() for part in visible.split(",")):
        named = [
            gpu
            for number, gpu in enumerate(gpus)
            if word == str(number) or (word.startswith("GPU-") and gpu.uuid.startswith(word))
        ]
        if not named:
            break
        kept.append(named[0])
    return tuple(kept)


def _machine() -> str:
    return platform.machine() or "unknown"


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 or command[0] == "sysctl" else ""
