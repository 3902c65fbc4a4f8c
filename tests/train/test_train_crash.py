"""Real processes that are killed, signalled and starved while they train; what comes of them is the same."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import forked
from thrifty.data import Store
from thrifty.spec import Plan

pytestmark = pytest.mark.slow
PlanFactory = Callable[..., Plan]
CHILD = Path(__file__).parent / "crash_run.py"
BALLAST = 1_000_000
KILLS = 6


class Workplace:
    """A plan and its data, to be trained by in processes of their own."""

    def __init__(self, folder: Path, plan: Plan, store: Store) -> None:
        self.folder, self.store = folder, store
        self.plan = folder / "plan.json"
        self.plan.write_text(plan.model_dump_json())

    def command(self, name: str, **options: float) -> list[str]:
        arguments = [self.plan, self.store.folder, self.folder / name, self.folder / f"{name}.safetensors"]
        arguments += [f"{key}={value}" for key, value in {"ballast": BALLAST, **options}.items()]
        return [str(CHILD), *map(str, arguments)]

    def start(self, name: str, **options: float) -> subprocess.Popen[str]:
        return forked.start(self.command(name, **options))

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / f"{name}.safetensors")

    def finish(self, name: str, **options: float) -> tuple[dict[str, torch.Tensor], list[str]]:
        with self.start(name, **options) as process:
            said, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        return self.weights(name), said.splitlines()


def wait_for(process: subprocess.Popen[str], *lines: str) -> list[str]:
    """Read what a process says up to the first line that begins as one of these."""
    assert process.stdout is not None
    seen = []
    for said in process.stdout:
        seen.append(said.strip())
        if seen[-1].startswith(lines):
            return seen
    raise AssertionError(f"it ended before {lines}: {seen[-3:]}")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def plan(make_plan: PlanFactory) -> Plan:
    """Forty steps with a checkpoint after each, validations and a plateau between them."""
    settings: dict[str, Any] = {"schedule": "plateau", "plateau_patience": 1, "learning_rate": 0.02}
    return make_plan(steps=40, size=32, micro=16, evaluate_every=4, **settings)


@pytest.fixture(scope="module")
def expected(plan: Plan, store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a run that nothing happened to."""
    workplace = Workplace(tmp_path_factory.mktemp("whole"), plan, store)
    # hashed otherwise, by an interpreter of its own
    subprocess.run([sys.executable, *workplace.command("whole")], capture_output=True, check=True)
    return workplace.weights("whole")


@pytest.fixture
def workplace(plan: Plan, store: Store, tmp_path: Path) -> Workplace:
    return Workplace(tmp_path, plan, store)


def wait_to_kill(folder: Path, kind: str, dice: random.Random) -> None:
    """Wait until it is time to kill."""
    if kind == "at random":
        time.sleep(dice.uniform(0.0, 0.6))
    else:
        time.sleep(dice.uniform(0.0, 0.2))
        deadline = time.monotonic() + 5
        while not list(folder.glob(".step-*.tmp")) and time.monotonic() < deadline:
            pass


@pytest.mark.parametrize(
    ("kind", "saving"), [("at random", "beside"), ("while it writes", "beside"), ("at random", "between")]
)
def test_killed_again_and_again_the_weights_are_the_same(
    kind: str, saving: str, plan: Plan, store: Store, tmp_path: Path, expected: dict[str, torch.Tensor]
) -> None:
    workplace = Workplace(tmp_path, plan.model_copy(update={"saving": saving, "loading": saving}), store)
    dice, resumed = random.Random(5), 0
    for _ in range(KILLS):
        with workplace.start("killed", slow=0.02) as process:
            seen = wait_for(process, "StepDone", "Stopped")
            wait_to_kill(workplace.folder / "killed", kind, dice)
            process.send_signal(signal.SIGKILL)
        resumed += any(line.startswith("Resumed") for line in seen)
        if process.returncode == 0:
            break
    found, said = workplace.finish("killed")
    assert same(found, expected)
    assert resumed and not [line for line in said if "Damaged" in line]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_saves_and_leaves_with_one_line(
    number: signal.Signals, workplace: Workplace, expected: dict[str, torch.Tensor]
) -> None:
    with workplace.start("left", slow=0.02) as process:
        wait_for(process, "StepDone 5")
        process.send_signal(number)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    (line,) = errors.splitlines()
    step = [each for each in said.splitlines() if each.startswith("Checkpointed")][-1].split()[1]
    assert line == (
        f"stopped by {number.name}: step {step} of 40 is saved in '{workplace.folder / 'left'}'. "
        "Go on: give the same command again."
    )
    found, said_then = workplace.finish("left")
    assert said_then[0] == f"Resumed {step}"
    assert same(found, expected)


def test_a_second_ctrl_c_ends_at_once_and_loses_no_checkpoint(
    workplace: Workplace, expected: dict[str, torch.Tensor]
) -> None:
    with workplace.start("left", slow=5.0) as process:
        wait_for(process, "StepDone 1")
        time.sleep(0.3)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert time.monotonic() - began < 8.0, "a step takes ten seconds: it was not waited for"
    assert process.returncode == -signal.SIGINT
    found, said = workplace.finish("left")
    assert said[0].startswith("Resumed")
    assert same(found, expected)


def test_a_signal_cuts_a_validation_short_and_it_is_made_up_for(
    workplace: Workplace, expected: dict[str, torch.Tensor]
) -> None:
    """Signals at many instants, some of them in a validation: the run is the same however often it was left."""
    dice = random.Random(3)
    for _ in range(5):
        with workplace.start("left") as process:
            wait_for(process, "StepDone", "Stopped")
            time.sleep(dice.uniform(0.0, 0.03))
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == 128 + signal.SIGTERM
    found, _ = workplace.finish("left")
    assert same(found, expected)


def test_a_full_disk_is_survived_and_told(workplace: Workplace, expected: dict[str, torch.Tensor]) -> None:
    found, said = workplace.finish("starved", full_from=10, full_until=20)
    assert same(found, expected)
    failed = [int(line.split()[1]) for line in said if line.startswith("CheckpointFailed")]
    saved = [int(line.split()[1]) for line in said if line.startswith("Checkpointed")]
    assert failed and min(failed) >= 9 and max(failed) <= 20
    assert saved and max(saved) == 40 and not set(saved) & set(range(11, 19))


def test_a_disk_that_stays_full_ends_the_run_and_leaves_the_last_whole(
    workplace: Workplace, expected: dict[str, torch.Tensor]
) -> None:
    with workplace.start("starved", full_from=10) as process:
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "the disk is full" in errors.splitlines()[-1] and "Free some space, then run again" in errors
    assert said.count("CheckpointFailed") > 10
    found, then = workplace.finish("starved")
    assert then[0] in {"Resumed 8", "Resumed 9", "Resumed 10"}, "what was being written then is lost, no more"
    assert same(found, expected)


def test_a_full_disk_when_a_signal_comes_is_told_in_the_same_line(workplace: Workplace) -> None:
    with workplace.start("starved", full_from=10, slow=0.02) as process:
        wait_for(process, "StepDone 14")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "could not be saved (the disk is full" in errors and "; step " in errors
