"""Checkpoints: written beside training, whole or not there, counted, checked, and put aside when they are damaged."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from thrifty.errors import BundleError, StorageError
from thrifty.spec import Plan
from thrifty.spec.events import CheckpointDamaged, Checkpointed, Event
from thrifty.train import Checkpoints, State
from thrifty.train.checkpoint import learning_key

PlanFactory = Callable[..., Plan]


def made(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    step(model, optimizer)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.randn(16, 8)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def fill(folder: Path, steps: int, *, best: tuple[int, ...] = (), **options: Any) -> list[dict[str, torch.Tensor]]:
    """Take steps with a checkpoint after each; the weights of each, from step 0 on."""
    model, optimizer = made()
    seen, state = [weights(model)], State()
    with Checkpoints(folder, key="k", **options) as checkpoints:
        for number in range(1, steps + 1):
            step(model, optimizer)
            state.step = number
            if number in best:
                state.best_step, state.best = number, {"loss": 1.0}
                checkpoints.save_best(state, model)
            checkpoints.save(state, model, optimizer)
            seen.append(weights(model))
    assert [type(event) for event in checkpoints.news()] == [Checkpointed] * steps
    return seen


def load(folder: Path, **options: Any) -> tuple[State | None, dict[str, torch.Tensor], list[Event]]:
    model, optimizer = made(seed=1)
    with Checkpoints(folder, key="k", **options) as checkpoints:
        state = checkpoints.load(model, optimizer)
        return state, weights(model), list(checkpoints.news())


@pytest.mark.parametrize("beside", [True, False])
def test_what_was_saved_comes_back_and_not_what_came_after(beside: bool, tmp_path: Path) -> None:
    model, optimizer = made()
    state = State(step=1, best_step=1, best={"loss": 0.5}, schedule={"factor": 0.5}, guard={"losses": [1.0, 2.0]})
    with Checkpoints(tmp_path, key="k", beside=beside) as checkpoints:
        checkpoints.save_best(state, model)
        checkpoints.save(state, model, optimizer)
        expected = weights(model), torch.random.get_rng_state()
        for value in model.state_dict().values():
            value.zero_()
        state.step = 99
        torch.rand(3)
    other, its_optimizer = made(seed=1)
    with Checkpoints(tmp_path, key="k") as checkpoints:
        found = checkpoints.load(other, its_optimizer)
        assert found == State(step=1, best_step=1, best={"loss": 0.5}, schedule=state.schedule, guard=state.guard)
        assert same(expected[0], weights(other))
        assert torch.equal(expected[1], torch.random.get_rng_state())
        assert its_optimizer.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()
        checkpoints.load_best(found, other)
        assert same(expected[0], weights(other))


def test_a_copy_that_memory_does_not_hold_is_not_made_and_the_state_written_at_once(tmp_path: Path) -> None:
    model, optimizer = made()
    step(model, optimizer)
    asked: list[int] = []

    def holds(size: int) -> bool:
        asked.append(size)
        return len(asked) > 2

    weights_bytes = sum(value.nbytes for value in model.state_dict().values())
    with Checkpoints(tmp_path, key="k", holds=holds) as checkpoints:
        checkpoints.save_best(State(step=1, best_step=1), model)
        assert (tmp_path / "best-1.safetensors").is_file()
        checkpoints.save(State(step=1, best_step=1), model, optimizer)
        assert checkpoints.last_step == 1, "without waiting"
        (written,) = checkpoints.news()
        assert isinstance(written, Checkpointed) and written.held_seconds == written.seconds
        checkpoints.save(State(step=2, best_step=1), model, optimizer)
        checkpoints.wait()
        (beside,) = checkpoints.news()
        assert isinstance(beside, Checkpointed) and beside.step == 2
    assert asked[0] == weights_bytes < asked[1] == asked[2]


@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.slow
def test_the_last_ones_are_kept_with_the_best_they_name(keep: int, beside: bool, tmp_path: Path) -> None:
    fill(tmp_path, 6, best=(1, 5), keep=keep, beside=beside)
    last = range(7 - keep, 7)
    assert {path.name for path in tmp_path.glob("step-*.pt")} == {f"step-{number}.pt" for number in last}
    named = {5} | ({1} if 4 in last else set())
    assert {path.name for path in tmp_path.glob("best-*")} == {f"best-{number}.safetensors" for number in named}
    assert {path.suffix for path in tmp_path.iterdir()} == {".pt", ".sha256", ".safetensors"}


def test_best_weights_wait_for_the_checkpoint_that_names_them(tmp_path: Path) -> None:
    model, optimizer = made()
    with Checkpoints(tmp_path, key="k") as checkpoints:
        state = State(step=1, best_step=1)
        checkpoints.save_best(state, model)
        expected = weights(model)
        step(model, optimizer)
        assert not list(tmp_path.iterdir())
        checkpoints.load_best(state, model)
        assert same(expected, weights(model))
        state.step = 2
        checkpoints.save(state, model, optimizer)
    assert same(load_file(tmp_path / "best-1.safetensors"), expected)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_sums_are_as_sha256sum_reads_them(tmp_path: Path) -> None:
    fill(tmp_path, 2, best=(1,))
    sums = sorted(path.name for path in tmp_path.glob("*.sha256"))
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", *sums], cwd=tmp_path, check=True)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = [
    ("step-3.pt", cut, "is not what was written"),
    ("step-3.pt", flip, "is not what was written"),
    ("step-3.pt", Path.unlink, "cannot be read"),
    ("step-3.sha256", empty, "does not name step-3.pt"),
    ("step-3.sha256", flip, "is not what was written|cannot be read|does not name"),
    ("best-3.safetensors", cut, "is not what was written"),
    ("best-3.safetensors", Path.unlink, "cannot be read"),
]


@pytest.mark.parametrize(("name", "damage", "reason"), DAMAGES, ids=[f"{n}-{d.__name__}" for n, d, _ in DAMAGES])
def test_a_damaged_newest_is_put_aside_and_the_one_before_it_used(
    name: str, damage: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    seen = fill(tmp_path, 3, best=(1, 3))
    damage(tmp_path / name)
    state, found, (event,) = load(tmp_path)
    assert state is not None and (state.step, state.best_step) == (2, 1)
    assert same(found, seen[2])
    assert isinstance(event, CheckpointDamaged) and event.checkpoint == 3
    assert (tmp_path / "damaged-step-3.sha256").is_file(), "nothing is deleted silently"
    assert re.search(reason, event.reason)
    # it is told once, and does not stand in the way of the next
    state, _, events = load(tmp_path)
    assert state is not None and (state.step, events) == (2, [])


def test_when_all_are_damaged_the_error_says_what_to_do_until_it_is_done(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    for path in tmp_path.glob("*.pt"):
        cut(path)
    for _ in range(2):
        with pytest.raises(
            BundleError, match=r"no checkpoint in '.*' is whole: damaged-step-2.*Put a whole copy .*remove"
        ):
            load(tmp_path)
    shutil.rmtree(tmp_path)
    assert load(tmp_path)[0] is None


def test_a_checkpoint_of_what_another_plan_learns_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    model, optimizer = made()
    with Checkpoints(tmp_path, key="other") as checkpoints, pytest.raises(BundleError, match="made by another plan"):
        checkpoints.load(model, optimizer)


def test_what_a_kill_left_half_written_is_swept_away(tmp_path: Path) -> None:
    fill(tmp_path, 2, best=(1,))
    whole = {path.name for path in tmp_path.iterdir()}
    for name in (".step-3.pt.x1.tmp", "step-3.pt", "best-3.safetensors"):
        (tmp_path / name).write_bytes(b"half")
    state, _, events = load(tmp_path)
    assert state is not None and (state.step, events) == (2, [])
    assert {path.name for path in tmp_path.iterdir()} == whole


def test_a_step_saved_again_does_not_touch_what_is_there(tmp_path: Path) -> None:
    model, optimizer = made()
    with Checkpoints(tmp_path, key="k") as checkpoints:
        for since_best in range(3):
            checkpoints.save(State(step=7, since_best=since_best), model, optimizer)
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["step-7-2.pt", "step-7-3.pt"]
    state, _, _ = load(tmp_path)
    assert state is not None and state.since_best == 2


def test_an_error_of_the_thread_is_raised_where_news_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    model, optimizer = made()
    with Checkpoints(tmp_path / "file" / "checkpoints", key="k") as checkpoints:
        checkpoints.save(State(step=1), model, optimizer)
    with pytest.raises(StorageError, match="cannot write a checkpoint"):
        list(checkpoints.news())
    assert not list(checkpoints.news()), "it is told once"


def test_a_second_ctrl_c_does_not_wait_for_the_writing(tmp_path: Path) -> None:
    model = nn.Linear(4000, 1000)
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(KeyboardInterrupt), Checkpoints(tmp_path, key="k") as checkpoints:
        checkpoints.save(State(step=1), model, optimizer)
        raise KeyboardInterrupt
    assert not list(checkpoints.news()) or (tmp_path / "step-1.sha256").is_file()
    assert not list(tmp_path.glob(".*.tmp"))


def test_going_back_takes_the_newest_before_and_drops_those_after(tmp_path: Path) -> None:
    seen = fill(tmp_path, 5, best=(2,), keep=4)
    model, optimizer = made(seed=1)
    with Checkpoints(tmp_path, key="k", keep=4) as checkpoints:
        assert checkpoints.roll_back(2, model, optimizer) is None
        flip(tmp_path / "step-4.pt")
        state = checkpoints.roll_back(5, model, optimizer)
        assert state is not None and state.step == 3
        assert same(weights(model), seen[3])
        assert checkpoints.last_step == 3
        assert isinstance(next(checkpoints.news()), CheckpointDamaged)
    assert {path.name for path in tmp_path.glob("step-*.pt")} == {"step-2.pt", "step-3.pt"}


SAME = [
    {"micro": 16}, {"threads": 2}, {"memory_format": "channels_last"}, {"checkpointing": "full"},
    {"saving": "between"}, {"checkpoints_kept": 5}, {"target": 0.5}, {"patience": 3},
]  # fmt: skip
OTHER = [
    {"learning_rate": 0.5}, {"optimizer": "sgd"}, {"size": 32}, {"precision": "bf16"}, {"seed": 3}, {"clip": 1.0},
    {"evaluate_every": 7}, {"schedule": "linear"},
]  # fmt: skip


def changed(plan: Plan, make_plan: PlanFactory, changes: dict[str, Any]) -> Plan:
    own = {name: value for name, value in changes.items() if name in Plan.model_fields}
    rest = {name: value for name, value in changes.items() if name not in own}
    return make_plan(**rest).model_copy(update=own)


@pytest.mark.parametrize("changes", SAME, ids=str)
def test_how_it_is_computed_is_no_part_of_the_key(changes: dict[str, Any], make_plan: PlanFactory) -> None:
    plan = make_plan()
    assert learning_key(changed(plan, make_plan, changes), "data") == learning_key(plan, "data")


@pytest.mark.parametrize("changes", OTHER, ids=str)
def test_what_is_learned_is_the_key(changes: dict[str, Any], make_plan: PlanFactory) -> None:
    plan = make_plan()
    assert learning_key(changed(plan, make_plan, changes), "data") != learning_key(plan, "data")
    assert learning_key(plan, "other data") != learning_key(plan, "data")


FULL = """
import resource, sys
from pathlib import Path
import torch
from torch import nn
from thrifty.train import Checkpoints, State

folder, room = Path(sys.argv[1]), int(sys.argv[2])
model = nn.Linear(256, 256)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

with Checkpoints(folder, key="k") as checkpoints:
    for step in range(1, 7):
        # full for steps 3 and 4
        limit(room if step in (3, 4) else hard)
        state = State(step=step, best_step=step)
        checkpoints.save_best(state, model)
        checkpoints.save(state, model, optimizer)
        checkpoints.wait()
        for event in checkpoints.news():
            print(type(event).__name__, event.step, sorted(path.name for path in folder.glob("step-*.pt")))
    limit(room)
    state = State(step=7, best_step=7)
    checkpoints.save_best(state, model)
    try:
        for event in checkpoints.finish(state, model, optimizer):
            print(type(event).__name__, event.step, getattr(event, "files", ""))
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("room", [0, 1000, 270_000])
def test_files_that_find_no_room_leave_the_earlier_ones_whole(room: int, tmp_path: Path) -> None:
    """The kernel refuses files larger than a limit, for a while; with 270 kB there is room for best weights alone."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(room)], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[:6] == [
        "Checkpointed 1 ['step-1.pt']",
        "Checkpointed 2 ['step-1.pt', 'step-2.pt']",
        "CheckpointFailed 3 ['step-1.pt', 'step-2.pt']",
        "CheckpointFailed 4 ['step-1.pt', 'step-2.pt']",
        "Checkpointed 5 ['step-2.pt', 'step-5.pt']",
        "Checkpointed 6 ['step-5.pt', 'step-6.pt']",
    ]
    assert lines[6].startswith("CheckpointFailed 7")
    assert "CheckpointsRemoved 7" in lines[7] and "step-5.pt" in lines[7] and "step-6.pt" not in lines[7]
    assert lines[8].startswith("CheckpointFailed 7")
    assert lines[9].startswith("DiskFullError the disk is full: cannot write")
    model = nn.Linear(256, 256)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Checkpoints(tmp_path, key="k") as checkpoints:
        state = checkpoints.load(model, optimizer)
        assert state is not None and state.step == 6
        checkpoints.load_best(state, model)
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.slow
def test_a_disk_that_is_really_full_is_freed_of_older_checkpoints(tmp_path: Path) -> None:
    """A file system in memory with room for two checkpoints and a half: the third waits, the last one makes room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems may not be mounted here")
    try:
        model = nn.Linear(256, 256)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Checkpoints(disk, key="k", keep=3) as checkpoints:
            for number in (1, 2, 3):
                checkpoints.save(State(step=number), model, optimizer)
            checkpoints.wait()
            assert [type(event).__name__ for event in checkpoints.news()] == [
                "Checkpointed", "Checkpointed", "CheckpointFailed",
            ]  # fmt: skip
            assert checkpoints.last_step == 2
            told = [type(event).__name__ for event in checkpoints.finish(State(step=3), model, optimizer)]
            assert told == ["CheckpointFailed", "CheckpointsRemoved", "Checkpointed"]
            assert checkpoints.last_step == 3
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_plan_written_before_there_was_a_guard_is_read(make_plan: PlanFactory) -> None:
    plan = make_plan()
    old = plan.model_dump_json(exclude={"guard", "saving", "checkpoints_kept"})
    assert Plan.model_validate_json(old) == plan
