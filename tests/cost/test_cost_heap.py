"""Dry runs: nothing is computed, nothing is left behind, and what cannot be run so is said."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thrifty import optim
from thrifty.cost import HeapPeak, allocating, heap, heap_peak, hearsay, trace_step
from thrifty.cost.touched import mallinfo
from thrifty.errors import JobError
from thrifty.hardware.pages import Keeping, keeping
from thrifty.models.recompute import recomputing

pytestmark = pytest.mark.skipif(mallinfo() is None, reason="this C library does not tell what its heap holds")
MIB = 1 << 20
SHAPES = {"x": ((64, 256), "float32")}


def stack() -> nn.Module:
    return nn.Sequential(*(nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256)) for _ in range(6)))


def summed(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Any]:
    return model(batch["x"]).float().pow(2).sum(), 1


def dry(build: Callable[[], nn.Module] = stack, shapes: Any = SHAPES, **more: Any) -> HeapPeak:
    settings: dict[str, Any] = {"precision": "fp32", "optimizer": optim.by_name("adamw"), **more}
    found = heap_peak(build, summed, shapes, **settings)
    assert found is not None
    return found


def live(build: Callable[[], nn.Module] = stack, shapes: Any = SHAPES) -> int:
    step = trace_step(build, summed, shapes, precision="fp32", optimizer=optim.by_name("adamw"))
    return step.parameter_bytes + step.optimizer_bytes + step.input_bytes + step.live_peak_bytes


@pytest.mark.slow
def test_the_heap_grows_by_what_lives_and_its_holes() -> None:
    large = {"x": ((4096, 256), "float32")}
    assert 0.95 * live(shapes=large) <= dry(shapes=large).step <= 1.6 * live(shapes=large)


@pytest.mark.slow
def test_no_page_is_touched_and_nothing_stays() -> None:
    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

    dry()
    before = resident()
    found = dry(shapes={"x": ((200_000, 256), "float32")})
    assert found.step > 4000 * MIB
    assert resident() < before + 100 * MIB


@pytest.mark.parametrize("what", ["all", "small"])
@pytest.mark.slow
def test_copies_keep_what_training_keeps(what: Keeping) -> None:
    def build() -> nn.Module:
        info = mallinfo()
        assert info is not None
        before = info().hblks
        blocks = [torch.empty(size * MIB, dtype=torch.uint8) for size in (64, 31)]
        assert info().hblks - before == {"all": 0, "small": 1}[what] and blocks
        return stack()

    dry(build, keeping=what)


@pytest.mark.slow
def test_random_numbers_are_left_as_they_were() -> None:
    before = torch.get_rng_state()
    dry()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_checkpointing_holds_less() -> None:
    large = {"x": ((16_384, 256), "float32")}
    again = dry(lambda: recomputing(stack(), "full"), large, keeping=keeping("cpu", "full"))
    assert again.step < 0.6 * dry(shapes=large, keeping=keeping("cpu", "none")).step


@pytest.mark.slow
def test_a_copy_that_hangs_is_left_behind(tmp_path: Path) -> None:
    def build() -> nn.Module:
        try:
            (tmp_path / "first").mkdir()
        except FileExistsError:
            return stack()
        time.sleep(600)
        raise AssertionError

    began = time.monotonic()
    assert dry(build=build).step > 6 * 2 * 4 * 256 * 1024
    assert time.monotonic() - began < 60


def test_a_copy_that_dies_is_told() -> None:
    def build() -> nn.Module:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    with pytest.raises(JobError, match="ended by signal 9"):
        dry(build=build)


@pytest.mark.slow
def test_a_validation_is_counted_apart() -> None:
    found = dry(evaluation_batch={"x": ((65_536, 256), "float32")})
    assert found.evaluation > found.step
    assert dry().evaluation == 0
    small = dry(shapes={"x": ((16_384, 256), "float32")}, evaluation_batch=SHAPES)
    assert small.step <= small.evaluation < 1.01 * small.step, "it fits into what the step left"


def test_what_looks_at_values_is_told() -> None:
    class Peeks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(256, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.inner(x)
            return y * 2 if y.sum().item() > 0 else y

    with pytest.raises(JobError, match=r"memory alone.*_local_scalar_dense") as caught:
        dry(Peeks)
    assert "probe" in caught.value.mend


@pytest.mark.slow
def test_a_model_that_looks_at_values_while_it_is_built_can_be_run() -> None:
    class Decaying(nn.Sequential):
        def __init__(self) -> None:
            rates = [rate.item() for rate in torch.linspace(0, 0.5, 3)]
            assert rates == pytest.approx([0, 0.25, 0.5])
            super().__init__(*(nn.Sequential(nn.Linear(256, 256), nn.Dropout(rate)) for rate in rates))

    assert dry(Decaying).step > 3 * 4 * 256 * 256 * 4


@pytest.mark.slow
def test_holes_that_earlier_work_left_count_for_what_will_fill_them() -> None:
    large = {"x": ((4096, 256), "float32")}
    first = dry(shapes=large).step
    blocks = [torch.ones(100_000 + 1000 * index) for index in range(400)]
    pins = [torch.ones(100) for _ in range(400)]
    del blocks
    assert dry(shapes=large).step > 0.8 * first
    assert len(pins) == 400


@pytest.mark.slow
def test_one_copy_asks_fake_tensors_for_all_and_those_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed, asked = allocating._needed, tmp_path / "asked"
    asked.touch()

    def noting(*arguments: Any) -> allocating.Answer:
        with asked.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return needed(*arguments)

    def askers() -> list[str]:
        lines = asked.read_text().splitlines()
        asked.write_text("")
        return lines

    monkeypatch.setattr(allocating, "_needed", noting)
    monkeypatch.setattr(hearsay, "PATIENCE_SECONDS", 60.0)
    with contextlib.closing(hearsay.Hearsay()) as told:
        apart, first = dry(), dry(told=told)
        said = askers()
        assert len(said) > 40 and len(set(said)) == 2, "one of each three"
        again = dry(told=told)
        assert askers() == []
        more = dry(told=told, others=[{"x": ((32, 256), "float32")}])
        assert len(set(askers())) == 1
    assert max(apart.step, first.step, again.step) < 1.2 * min(apart.step, first.step, again.step)
    assert more.step >= again.step


@pytest.mark.slow
def test_a_copy_that_works_slowly_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    used_s = iter(range(1, 1000))
    monkeypatch.setattr(heap, "_used_s", lambda process: next(used_s) / 1000)
    monkeypatch.setattr(heap, "DRY_RUN_SECONDS", 0.1)

    def slowly() -> HeapPeak:
        time.sleep(0.5)
        return HeapPeak(1, 2)

    assert heap._in_copies([slowly]) == [HeapPeak(1, 2)]
    assert next(used_s) > 2


@pytest.mark.slow
def test_a_copy_that_stands_still_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_used_s", lambda process: 0.0)
    monkeypatch.setattr(heap, "DRY_RUN_SECONDS", 0.1)
    with pytest.raises(JobError, match=r"on memory alone: after 0 s of its own it had not ended"):
        heap._in_copies([lambda: HeapPeak(int(time.sleep(60) or 0), 0)])
