"""The probe on made-up /proc and /sys trees, on a made-up nvidia-smi, and on the machine that runs the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.hardware.cgroup import cpu_quota, memory_left, memory_limit
from thrifty.hardware.probe import from_sysctl, keep_visible, parse_list, parse_smi, probe

GIB = 1 << 30
XEON = """\
processor\t: {cpu}
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8488C
cpu MHz\t\t: 2400.000
flags\t\t: fpu avx avx2 fma avx512f avx512_vnni avx512_bf16 avx_vnni avx512_fp16 amx_bf16 amx_tile amx_int8
"""
DESKTOP = """\
processor\t: {cpu}
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 33
model name\t: AMD Ryzen 7 5800X 8-Core Processor
cpu MHz\t\t: 3{cpu}00.0
flags\t\t: fpu avx f16c avx2 fma bmi1
"""
GRAVITON = """\
processor\t: {cpu}
BogoMIPS\t: 2100.00
Features\t: fp asimd asimdhp asimddp sve i8mm bf16 crc32
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
"""


def machine(root: Path, cpuinfo: str, cores: int, *, memory_kib: int = 8 << 20, threads_a_core: int = 1) -> Path:
    """Write a tree of a machine; its cores have an L2 each and share one L3."""
    files = {
        "proc/cpuinfo": "\n".join(cpuinfo.format(cpu=cpu) for cpu in range(cores)),
        "proc/meminfo": f"MemTotal:       {memory_kib} kB\nMemFree:  1 kB\n",
        "proc/self/status": f"Name:\tpython\nCpus_allowed_list:\t0-{cores - 1}\n",
        "proc/self/cgroup": "0::/\n",
    }
    for cpu in range(cores):
        first = cpu // threads_a_core * threads_a_core
        mates = f"{first}-{first + threads_a_core - 1}" if threads_a_core > 1 else str(cpu)
        here = f"sys/devices/system/cpu/cpu{cpu}"
        files[f"{here}/topology/thread_siblings_list"] = mates
        for index, (level, kind, size, shared) in enumerate(
            [
                (1, "Data", "32K", mates),
                (1, "Instruction", "32K", mates),
                (2, "Unified", "2M", mates),
                (3, "Unified", "32768K", f"0-{cores - 1}"),
            ]
        ):
            for name, text in {"level": level, "type": kind, "size": size, "shared_cpu_list": shared}.items():
                files[f"{here}/cache/index{index}/{name}"] = str(text)
    return write(root, files)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_xeon_with_amx_and_two_threads_a_core(tmp_path: Path) -> None:
    found = probe(machine(tmp_path, XEON, 4, threads_a_core=2))
    assert found.name == "Intel(R) Xeon(R) Platinum 8488C"
    assert "GenuineIntel family 6 model 143" in found.identity
    assert (found.architecture, found.cores, found.physical_cores) == ("x86_64", 4, 2)
    assert {"avx512f", "avx512_vnni", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"} <= set(found.isa)
    assert found.cache_bytes == {"L1d": 2 * 32 << 10, "L2": 2 * 2 << 20, "L3": 32 << 20}
    assert (found.memory_bytes, found.memory_source) == (8 * GIB, "installed memory")
    assert found.gpus == ()


def test_a_desktop_without_avx512(tmp_path: Path) -> None:
    found = probe(machine(tmp_path, DESKTOP, 8))
    assert found.isa == ("avx", "avx2", "fma")
    assert found.clock_hz == pytest.approx(3.7e9), "the highest clock of the eight"
    write(tmp_path, {"sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "4850000\n"})
    assert probe(tmp_path).clock_hz == pytest.approx(4.85e9)


def test_a_graviton_is_named_by_its_part_number(tmp_path: Path) -> None:
    found = probe(machine(tmp_path, GRAVITON, 2))
    assert (found.name, found.architecture) == ("Arm Neoverse-V1", "aarch64")
    assert found.isa == ("asimd", "asimdhp", "asimddp", "sve", "bf16", "i8mm")


def test_affinity_narrows_cores_and_caches(tmp_path: Path) -> None:
    machine(tmp_path, DESKTOP, 8)
    write(tmp_path, {"proc/self/status": "Cpus_allowed_list:\t1,4-5\n"})
    found = probe(tmp_path)
    assert (found.cores, found.physical_cores, found.cores_source) == (3, 3, "scheduler affinity")
    assert found.cache_bytes == {"L1d": 3 * 32 << 10, "L2": 3 * 2 << 20, "L3": 32 << 20}


def test_a_cgroup_v1_limit(tmp_path: Path) -> None:
    machine(tmp_path, DESKTOP, 4)
    write(
        tmp_path,
        {
            "proc/self/cgroup": "9:memory:/jobs/one\n3:cpu,cpuacct:/jobs/one\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/jobs/memory.limit_in_bytes": f"{3 * GIB}\n",
            "sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu/jobs/one/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/jobs/one/cpu.cfs_period_us": "100000\n",
        },
    )
    found = probe(tmp_path)
    assert (found.memory_bytes, found.memory_source) == (3 * GIB, "cgroup v1 limit")
    assert found.installed_bytes == 8 * GIB
    assert found.cores == 4
    write(tmp_path, {"sys/fs/cgroup/cpu/jobs/one/cpu.cfs_quota_us": "250000\n"})
    assert probe(tmp_path).cores == 3


def test_a_nested_cgroup_v2_limit_counts_the_smallest_on_the_way_up(tmp_path: Path) -> None:
    machine(tmp_path, DESKTOP, 4)
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user/session/job\n",
            "sys/fs/cgroup/user/memory.max": f"{2 * GIB}\n",
            "sys/fs/cgroup/user/session/memory.max": "max\n",
            "sys/fs/cgroup/user/session/job/memory.max": f"{5 * GIB}\n",
        },
    )
    assert memory_limit(tmp_path) == (2 * GIB, "cgroup v2 limit")


@pytest.mark.parametrize(
    ("version", "limit", "used", "idle"),
    [
        ("0::/job", "memory.max", "memory.current", "inactive_file"),
        ("4:memory:/job", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_what_a_cgroup_leaves_is_of_the_tightest_and_idle_files_are_free(
    version: str, limit: str, used: str, idle: str, tmp_path: Path
) -> None:
    top = tmp_path / ("sys/fs/cgroup" if version.startswith("0") else "sys/fs/cgroup/memory")
    above = top.relative_to(tmp_path).as_posix()
    write(
        tmp_path,
        {
            "proc/self/cgroup": f"{version}\n",
            f"{above}/{limit}": f"{5 * GIB}\n",
            f"{above}/{used}": f"{4 * GIB}\n",
            f"{above}/memory.stat": f"cache 7\n{idle} {3 * GIB}\n",
            f"{above}/job/{limit}": f"{2 * GIB}\n",
            f"{above}/job/{used}": f"{GIB}\n",
        },
    )
    assert memory_left(tmp_path) == GIB
    write(tmp_path, {f"{above}/job/{used}": f"{3 * GIB}\n"})
    assert memory_left(tmp_path) == 0
    write(tmp_path, {f"{above}/job/{limit}": "max\n", f"{above}/{limit}": "max\n"})
    assert memory_left(tmp_path) is None


def test_a_limit_above_the_installed_memory_is_none(tmp_path: Path) -> None:
    machine(tmp_path, DESKTOP, 4)
    write(tmp_path, {"sys/fs/cgroup/memory.max": f"{64 * GIB}\n"})
    assert probe(tmp_path).memory_source == "installed memory"


def test_a_container_whose_mount_shows_a_part_of_the_hierarchy(tmp_path: Path) -> None:
    machine(tmp_path, DESKTOP, 4)
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc/inner\n",
            "proc/self/mountinfo": "31 23 0:28 /docker/abc /groups/memory rw - cgroup cgroup rw,memory\n",
            "groups/memory/memory.limit_in_bytes": f"{4 * GIB}\n",
            "groups/memory/inner/memory.limit_in_bytes": f"{1 * GIB}\n",
        },
    )
    assert memory_limit(tmp_path) == (GIB, "cgroup v1 limit")
    # Named from outside the container's own view, the group cannot be found: the top of the mount still counts.
    write(tmp_path, {"proc/self/cgroup": "4:memory:/../elsewhere\n"})
    assert memory_limit(tmp_path) == (4 * GIB, "cgroup v1 limit")


@pytest.mark.parametrize(
    ("text", "quota", "cores"),
    [("150000 100000", 1.5, 2), ("50000 100000", 0.5, 1), ("max 100000", None, 4), ("800000 100000", 8.0, 4)],
)
def test_a_cpu_quota(tmp_path: Path, text: str, quota: float | None, cores: int) -> None:
    machine(tmp_path, DESKTOP, 4)
    write(tmp_path, {"sys/fs/cgroup/cpu.max": text + "\n"})
    assert cpu_quota(tmp_path) == (None if quota is None else (quota, "cgroup v2 quota"))
    found = probe(tmp_path)
    assert found.cores == cores
    assert found.physical_cores <= cores
    if cores == 2:
        assert "1.5 processors" in found.cores_source


def test_an_almost_empty_tree_is_no_error(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": "processor : 0\n"})
    found = probe(tmp_path)
    assert found.cores == 1
    assert found.memory_bytes == 0
    assert "not known" in found.memory_source


def test_the_fingerprint_is_of_the_machine_and_not_of_the_moment(tmp_path: Path) -> None:
    one = probe(machine(tmp_path / "one", XEON, 4))
    again = probe(machine(tmp_path / "two", XEON.replace("2400.000", "1800.000"), 4, memory_kib=4 << 20))
    other = probe(machine(tmp_path / "three", XEON, 2))
    assert one.fingerprint == again.fingerprint
    assert other.fingerprint != one.fingerprint
    assert len(one.fingerprint) == 16


def test_macos_by_sysctl() -> None:
    text = "\n".join(
        [
            "machdep.cpu.brand_string: Apple M2",
            "hw.memsize: 17179869184",
            "hw.logicalcpu: 8",
            "hw.physicalcpu: 8",
            "hw.l1dcachesize: 65536",
            "hw.l2cachesize: 4194304",
            "hw.optional.arm.FEAT_BF16: 1",
            "hw.optional.arm.AdvSIMD: 1",
            "hw.optional.arm.FEAT_I8MM: 0",
        ]
    )
    found = from_sysctl(text)
    assert (found.name, found.cores, found.memory_bytes) == ("Apple M2", 8, 16 * GIB)
    assert found.isa == ("asimd", "bf16")
    assert found.cache_bytes == {"L1d": 8 * 65536, "L2": 4194304}
    assert (found.cores_source, found.memory_source) == ("sysctl hw.logicalcpu", "sysctl hw.memsize")
    nothing = from_sysctl("")
    assert nothing.cores >= 1
    assert "not known" in nothing.memory_source


SMI = """\
NVIDIA H100 80GB HBM3, 81559, GPU-11112222-aaaa, 550.54.15, 700.00
NVIDIA L4, 23034, GPU-33334444-bbbb, 550.54.15, [N/A]
"""


def test_nvidia_smi() -> None:
    big, small = parse_smi(SMI)
    assert (big.name, big.memory_bytes, big.power_limit_watts) == ("NVIDIA H100 80GB HBM3", 81559 << 20, 700.0)
    assert (small.driver, small.power_limit_watts) == ("550.54.15", 0.0)
    assert parse_smi("No devices were found\n") == ()
    assert parse_smi("NVIDIA-SMI has failed because it couldn't communicate, with the driver, a, b, c\n") == ()


def test_visible_gpus() -> None:
    gpus = parse_smi(SMI)
    assert keep_visible(gpus, None) == gpus
    assert keep_visible(gpus, "1,0") == gpus[::-1]
    assert keep_visible(gpus, "GPU-3333") == gpus[1:]
    assert keep_visible(gpus, "0,9,1") == gpus[:1], "CUDA stops at the first that does not exist"
    assert keep_visible(gpus, "") == keep_visible(gpus, "-1") == ()


def test_gpus_come_from_the_program_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{SMI}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.name for gpu in probe().gpus] == ["NVIDIA L4"]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert probe().gpus == ()


def test_this_machine() -> None:
    found = probe()
    assert 1 <= found.physical_cores <= found.cores <= (os.cpu_count() or 1)
    assert 0 < found.memory_bytes <= (found.installed_bytes or found.memory_bytes)
    assert found.fingerprint == probe().fingerprint


@given(st.lists(st.integers(0, 500), unique=True))
def test_lists_of_processors_read_back(numbers: list[int]) -> None:
    assert parse_list(",".join(map(str, numbers))) == numbers
