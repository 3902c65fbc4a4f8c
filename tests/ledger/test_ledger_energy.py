"""The meter on real work of this process and on made-up counters: nothing is missed, nothing counted twice."""

from __future__ import annotations

import mmap
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.ledger import energy, highwater
from thrifty.ledger.counters import Nvml, Rapl, best_counter
from thrifty.ledger.energy import Meter
from thrifty.ledger.highwater import HighWater
from thrifty.spec.device import Device, Quantity

MIB = 1 << 20
NOWHERE = Path("/nonexistent")


def a_device(kind: Literal["cpu", "cuda"] = "cpu", *, cores: int = 2, usd: float = 3.6) -> Device:
    return Device(
        name="NVIDIA L4" if kind == "cuda" else "a processor",
        kind=kind,
        cores=cores,
        isa=(),
        cache_bytes={},
        memory_bytes=1 << 33,
        memory_source="installed memory",
        flops_per_second={"fp32": Quantity(value=1e9, source="measured")},
        bytes_per_second=Quantity(value=1e10, source="measured"),
        datasheet_flops_per_second={},
        datasheet_bytes_per_second={},
        idle_watts=Quantity(value=10.0, source="datasheet of it"),
        busy_watts=Quantity(value=50.0, source="datasheet of it"),
        usd_per_hour=Quantity(value=usd, source="x.large, 2026-11"),
        measured_on="2026-11-23",
    )


@pytest.fixture
def meter() -> Meter:
    return Meter(a_device(), powercap=NOWHERE)


def use(mebibytes: int) -> None:
    """Touch so much memory and give it back; mapped anew, as an allocator may have that much left from before."""
    with mmap.mmap(-1, mebibytes * MIB) as block:
        for page in range(0, mebibytes * MIB, mmap.PAGESIZE):
            block[page] = 1


def spin(seconds: float) -> None:
    ends = time.process_time() + seconds
    while time.process_time() < ends:
        pass


def test_wall_and_processor_time(meter: Meter) -> None:
    with meter.stage() as stage:
        spin(0.1)
        time.sleep(0.1)
    spent = stage.spent()
    assert spent.wall_s >= 0.2
    assert 0.1 <= spent.cpu_s < spent.wall_s


def test_processor_time_of_a_child_counts(meter: Meter) -> None:
    code = "import time\nwhile time.process_time() < 0.3: pass"
    with meter.stage() as stage:
        subprocess.run([sys.executable, "-c", code], check=True)
    assert stage.spent().cpu_s >= 0.3


def test_a_peak_that_was_freed_before_the_end_is_seen(meter: Meter) -> None:
    with meter.stage() as stage:
        use(200)
    assert 195 * MIB <= stage.spent().peak_rss_bytes < 230 * MIB


def test_a_stage_does_not_inherit_the_peak_before_it(meter: Meter) -> None:
    with meter.stage():
        use(200)
    with meter.stage() as stage:
        use(64)
    assert 60 * MIB <= stage.spent().peak_rss_bytes < 100 * MIB


def test_an_outer_stage_keeps_its_peak_through_inner_ones(meter: Meter) -> None:
    with meter.stage() as outer:
        use(120)
        with meter.stage() as small:
            use(10)
        with Meter(a_device(), powercap=NOWHERE).stage() as large:
            use(200)
        assert outer.spent().peak_rss_bytes >= 195 * MIB
    assert small.spent().peak_rss_bytes < 60 * MIB
    assert large.spent().peak_rss_bytes >= 195 * MIB
    assert 195 * MIB <= outer.spent().peak_rss_bytes < 260 * MIB


def test_an_outer_peak_before_the_inner_stage_is_not_lost(meter: Meter) -> None:
    with meter.stage() as outer:
        use(200)
        with meter.stage():
            pass
    assert outer.spent().peak_rss_bytes >= 195 * MIB


@pytest.mark.slow
def test_stages_of_many_threads_at_once(meter: Meter) -> None:
    peaks: list[int] = []

    def work() -> None:
        for _ in range(5):
            with meter.stage() as stage:
                use(40)
            peaks.append(stage.spent().peak_rss_bytes)

    threads = [threading.Thread(target=work) for _ in range(4)]
    with meter.stage() as whole:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(peaks) == 20
    assert whole.spent().peak_rss_bytes >= max(peaks) - 8 * MIB >= 30 * MIB


@given(st.lists(st.sampled_from(["open", "close", "rise", "fall"]), max_size=40))
def test_every_stage_gets_the_highest_since_it_opened(steps: list[str]) -> None:
    """Against a plain model: a value, its mark that all share, and each stage's own history."""
    state = {"now": 100, "mark": 100}

    def to(value: int) -> None:
        state["now"] = value
        state["mark"] = max(state["mark"], value)
        for history in histories.values():
            history.append(value)

    mark = HighWater(lambda: state["now"], lambda: state["mark"], lambda: state.update(mark=state["now"]))
    histories: dict[object, list[int]] = {}
    for number, step in enumerate(steps):
        if step == "open":
            key, now = mark.begin()
            histories[key] = [now]
        elif step == "close" and histories:
            key = next(iter(histories))
            assert mark.end(key) == max(histories.pop(key))
        else:
            to(state["now"] + (number if step == "rise" else -number))
        for key, history in histories.items():
            assert mark.peak(key) == max(history)


def test_memory_is_sampled_where_the_mark_cannot_be_reset(tmp_path: Path) -> None:
    """A /proc without clear_refs: its status goes up for a moment and down again."""
    status = tmp_path / "status"
    status.write_text("VmRSS:\t  1000 kB\n")
    watch = highwater.resident(tmp_path)
    assert isinstance(watch, highwater._Sampled)
    key, start = watch.begin()
    assert start == 1000 * 1024
    status.write_text("VmRSS:\t  5000 kB\n")
    time.sleep(10 * highwater.SAMPLE_SECONDS)
    status.write_text("VmRSS:\t  2000 kB\n")
    assert watch.end(key) == 5000 * 1024
    again, start = watch.begin()
    assert watch.end(again) == start == 2000 * 1024, "a later stage does not inherit it"


def test_without_proc_the_mark_of_getrusage_serves() -> None:
    watch = highwater.resident(NOWHERE)
    key, start = watch.begin()
    assert watch.end(key) >= start > MIB


def test_written_bytes(meter: Meter, tmp_path: Path) -> None:
    if not Path("/proc/self/io").exists():
        pytest.skip("needs Linux's /proc/self/io")
    before = energy._written_bytes()
    (tmp_path / "probe").write_bytes(b"x" * MIB)
    if energy._written_bytes() == before:
        pytest.skip("the folder for temporary files is not on storage: memory disks write nothing")
    with meter.stage() as stage:
        (tmp_path / "file").write_bytes(b"x" * 4 * MIB)
    assert 4 * MIB <= stage.spent().written_bytes < 6 * MIB


def test_asked_while_it_runs_and_frozen_after(meter: Meter) -> None:
    with meter.stage() as stage:
        spin(0.02)
        first = stage.spent()
        spin(0.02)
        second = stage.spent()
        assert first.wall_s < second.wall_s
        assert first.cpu_s < second.cpu_s
    done = stage.spent()
    use(50)
    spin(0.02)
    assert stage.spent() == done


def test_a_stage_that_fails_is_billed_too(meter: Meter) -> None:
    with pytest.raises(RuntimeError), meter.stage() as stage:
        spin(0.02)
        raise RuntimeError
    done = stage.spent()
    assert done.cpu_s >= 0.02
    assert stage.spent() == done


def test_declared_watts_money_and_share_of_peak(meter: Meter) -> None:
    with meter.stage() as stage:
        spin(0.1)
    spent = stage.spent(flops=2e7)
    share = spent.cpu_s / (spent.wall_s * 2)
    assert spent.joules == pytest.approx((10 + 40 * min(share, 1)) * spent.wall_s)
    assert "declared 10 W idle to 50 W busy" in spent.joules_method
    assert "by the processor time used of 2 cores" in spent.joules_method
    assert "datasheet of it" in spent.joules_method
    assert spent.usd == pytest.approx(spent.wall_s * 0.001)
    assert spent.usd_method == "3.6 USD an hour: x.large, 2026-11"
    assert spent.flops == 2e7
    assert spent.peak_share == pytest.approx(2e7 / spent.wall_s / 1e9)
    assert stage.spent(flops=2e7, precision="fp8").peak_share == 0, "no rate was measured at it"


def test_a_gpu_without_a_counter_is_taken_as_busy() -> None:
    with Meter(a_device("cuda"), powercap=NOWHERE).stage() as stage:
        time.sleep(0.05)
    spent = stage.spent()
    assert spent.joules == pytest.approx(50 * spent.wall_s)
    assert "busy throughout" in spent.joules_method


def powercap(root: Path, *, packages: dict[str, int], size: int = 1_000_000) -> Callable[[str, int], None]:
    """Write a powercap tree; returns a function that sets a counter."""

    def put(zone: str, value: int) -> None:
        # renamed into place: the kernel's file is never half written either
        fresh = root / zone / "fresh"
        fresh.write_text(f"{value}\n")
        fresh.replace(root / zone / "energy_uj")

    zones = {"intel-rapl:0:0": ("core", 7), "intel-rapl:9": ("psys", 7), "intel-rapl-mmio:0": ("package-0", 7)}
    zones |= {zone: (f"package-{number}", value) for number, (zone, value) in enumerate(packages.items())}
    for zone, (name, value) in zones.items():
        (root / zone).mkdir(parents=True)
        (root / zone / "name").write_text(name + "\n")
        (root / zone / "max_energy_range_uj").write_text(f"{size}\n")
        put(zone, value)
    return put


def test_rapl_sums_packages_and_wraps_around(tmp_path: Path) -> None:
    put = powercap(tmp_path, packages={"intel-rapl:0": 900_000, "intel-rapl:1": 100})
    counter = Rapl(tmp_path)
    assert counter.joules() == 0
    put("intel-rapl:0", 950_000)
    put("intel-rapl:9", 999_999)
    put("intel-rapl-mmio:0", 999_999)
    assert counter.joules() == pytest.approx(0.05)
    put("intel-rapl:0", 50_000)
    put("intel-rapl:1", 200_100)
    assert counter.joules() == pytest.approx(0.05 + 0.1 + 0.2)
    assert "2 processor package(s)" in counter.method


@settings(max_examples=25)
@given(st.lists(st.integers(0, 999_999), min_size=1, max_size=20))
def test_rapl_never_falls_and_misses_nothing(tmp_path_factory: pytest.TempPathFactory, used: list[int]) -> None:
    root = tmp_path_factory.mktemp("powercap")
    put = powercap(root, packages={"intel-rapl:0": 0})
    counter, total, before = Rapl(root), 0, 0.0
    for each in used:
        total += each
        put("intel-rapl:0", total % 1_000_000)
        assert counter.joules() >= before
        before = counter.joules()
    assert before == pytest.approx(total / 1e6)


def test_the_meter_reads_rapl(tmp_path: Path) -> None:
    put = powercap(tmp_path, packages={"intel-rapl:0": 990_000})
    meter = Meter(a_device(), powercap=tmp_path)
    with meter.stage() as stage:
        put("intel-rapl:0", 240_000)
    spent = stage.spent()
    assert spent.joules == pytest.approx(0.25)
    assert spent.joules_method.startswith("RAPL counters of 1 processor package(s)")
    put("intel-rapl:0", 500_000)
    assert stage.spent() == spent


def test_the_meter_looks_often_enough_not_to_miss_a_wrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_RAPL_SECONDS", 0.01)
    put = powercap(tmp_path, packages={"intel-rapl:0": 0})
    with Meter(a_device(), powercap=tmp_path).stage() as stage:
        for value in (900_000, 800_000, 700_000):
            put("intel-rapl:0", value)
            time.sleep(0.2)
    assert stage.spent().joules == pytest.approx(2.7)


def test_a_counter_that_goes_away_leaves_the_declared_watts(tmp_path: Path) -> None:
    powercap(tmp_path, packages={"intel-rapl:0": 0})
    meter = Meter(a_device(), powercap=tmp_path)
    with meter.stage() as before:
        pass
    counted = before.spent()
    with meter.stage() as stage:
        (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
        spin(0.02)
    assert stage.spent().joules_method.startswith("declared")
    assert stage.spent().joules > 0
    assert before.spent() == counted


@pytest.mark.parametrize("text", ["", "what", None])
def test_a_counter_that_cannot_be_read_is_passed_over(tmp_path: Path, text: str | None) -> None:
    powercap(tmp_path, packages={"intel-rapl:0": 0})
    file = tmp_path / "intel-rapl:0" / "energy_uj"
    file.unlink()
    if text is not None:
        file.write_text(text)
    assert best_counter(a_device(), tmp_path) is None


def nvml(monkeypatch: pytest.MonkeyPatch, names: list[str | bytes]) -> dict[int, int]:
    """Put a made-up pynvml in the place of the binding, for want of a GPU; returns the counters in mJ."""
    counters = dict.fromkeys(range(len(names)), 5_000)
    module = types.ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    def count() -> int:
        if not names:
            raise NVMLError("Driver Not Loaded")
        return len(names)

    module.__dict__.update(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=count,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: names[handle],
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: counters[handle],
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return counters


def test_nvml_counts_the_board_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = nvml(monkeypatch, ["Tesla T4", b"NVIDIA L4"])
    with Meter(a_device("cuda")).stage() as stage:
        counters[0] += 900_000
        counters[1] += 2_500
    assert stage.spent().joules == pytest.approx(2.5)
    assert stage.spent().joules_method.startswith("NVML")
    nvml(monkeypatch, [])
    with pytest.raises(OSError, match="Driver Not Loaded"):
        Nvml("NVIDIA L4")
    assert best_counter(a_device("cuda")) is None


def test_nvml_counts_the_boards_that_work_together(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = nvml(monkeypatch, ["Tesla T4", "NVIDIA L4", "NVIDIA L4", "NVIDIA L4"])
    with Meter(a_device("cuda"), boards=2).stage() as stage:
        for board in range(4):
            counters[board] += 1_000 * (board + 1)
    assert stage.spent().joules == pytest.approx(5.0)
    assert stage.spent().joules_method == "NVML energy counter of 2 GPUs, the host not included"
    assert best_counter(a_device("cuda"), boards=4) is None, "one of four is not there"


@pytest.mark.slow
def test_the_meter_loads_no_torch() -> None:
    code = (
        "import sys; from thrifty.ledger.energy import Meter; from thrifty.spec import Device\n"
        f"with Meter(Device.model_validate_json({a_device().model_dump_json()!r})).stage() as stage: pass\n"
        "stage.spent(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_stage_can_count_its_peak_from_an_earlier_moment() -> None:
    meter = Meter(a_device())
    bare = highwater.resident_bytes()
    # mapped for itself: a block of the heap may lie where earlier tests have touched the pages
    with mmap.mmap(-1, 50 * MIB) as held:
        held.write(b"1" * (50 * MIB))
        with meter.stage() as own, meter.stage(peak_above=bare) as above:
            held[0] = 1
    assert own.spent().peak_rss_bytes < 20 * MIB
    assert above.spent().peak_rss_bytes >= 48 * MIB


def test_time_energy_and_money_stand_still_while_resting(meter: Meter) -> None:
    with meter.stage() as whole, meter.stage() as stage:
        time.sleep(0.05)
        meter.rest()
        before = stage.spent()
        time.sleep(0.3)
        assert stage.spent().wall_s == before.wall_s and stage.spent().usd == before.usd
        meter.rest()  # twice is once
        meter.go_on()
        time.sleep(0.05)
        meter.go_on()  # and without a rest nothing
    for each in (whole, stage):
        assert 0.1 <= each.spent().wall_s < 0.25
    assert stage.spent().joules >= before.joules
