"""Races of rivals: what a process says and takes, failures, the order of rounds, and what a cut-off keeps."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.kept import Kept
from benchmarks.peers.task import Task, cosine, task_of
from benchmarks.race import Entrant, Finish, Race, Step, cores, describe, ours, peer, race, read, run
from hypothesis import given
from hypothesis import strategies as st

TALKS = """
import time
from benchmarks.peers.talk import Talk
talk = Talk()
talk.say("ready")
for _ in range(3):
    talk.step(4, 8)
print("noise from a tool")
talk.say("evaluated", accuracy=0.5)
talk.step(4, 8)
talk.done(more=1)
"""


def script(name: str, text: str, most_s: float = 60.0) -> Entrant:
    return Entrant(name, (sys.executable, "-c", text), most_s)


@pytest.mark.slow
def test_a_process_is_read_and_metered() -> None:
    finish = run(script("a", TALKS))
    assert finish.failed == ""
    assert [step.paused for step in finish.steps] == [True, False, False, True]
    assert {(step.samples, step.tokens) for step in finish.steps} == {(4, 8)}
    assert [event["event"] for event in finish.said] == ["started", "ready", "evaluated", "done"]
    assert finish.cpu_s > 0
    assert 0 < finish.said[0]["at_s"] <= finish.steps[0].at_s <= finish.wall_s
    assert finish.peak_bytes > 1 << 20 or not Path("/proc/self/status").exists()
    assert "4 steps" in describe(finish)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise SystemExit('no such data')", "exit 1: no such data"),
        ("print('all fine')", "did not say that it was done"),
        ("import time; time.sleep(60)", "ended after"),
    ],
)
def test_failures_say_why_and_stop_nobody(text: str, why: str) -> None:
    found = race(lambda _: [script("bad", text, 1.0), script("good", TALKS)], 1, Kept())
    (failure,) = found.failed
    assert why in failure.failed
    assert not found.of("bad")
    assert len(found.of("good")) == 1


def test_rounds_turn_round_and_a_cut_off_keeps_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def made(entrant: Entrant) -> Finish:
        ran.append(entrant.name)
        if ran.count("b") == 2 and entrant.name == "b":
            return Finish(entrant.name, failed="exit 1: a whim")
        return Finish(entrant.name, (Step(1.0, 2, 3, paused=False),), ({"event": "done", "at_s": 1.0},))

    monkeypatch.setattr("benchmarks.race.run", made)
    kept = Kept(tmp_path)
    found = race(lambda _: [script(name, "") for name in "abc"], 2, kept)
    assert ran == ["a", "b", "c", "c", "b", "a"]
    assert [failure.entrant for failure in found.failed] == ["b"]
    again = race(lambda _: [script(name, "") for name in "abc"], 2, kept)
    assert ran[6:] == ["b"]
    assert again.finishes == {**found.finishes, "b": [found.of("b")[0]] * 2}


def test_what_tools_write_is_left_out() -> None:
    lines = [
        "Epoch 1 …\n",
        '{"loss": 1}\n',
        '{"event": "steps", "at": [5.0, 6.0], "samples": [1, 2], "tokens": [0, 0]}\n',
    ]
    steps, events = read([*lines, '{"event": "done", "at": 7.0, "peak_bytes": 3}\n'], began=4.0)
    assert steps == (Step(1.0, 1, 0, paused=True), Step(2.0, 2, 0, paused=False))
    assert events == ({"event": "done", "peak_bytes": 3, "at_s": 3.0},)


def test_commands_carry_their_work() -> None:
    task = Task("image", "x", 4, steps=2, rate=0.1, flags=("few",), model={"width": 8})
    command = peer("plain", "plain_torch", task).command
    assert task_of(["script", command[-1]]) == replace(task, threads=cores())
    assert command[-2] == "benchmarks.peers.plain_torch"
    assert '"stop_after": 5' in ours("ours", {"name": "a"}, stop_after=5).command[-1]


def test_a_race_goes_on_in_another() -> None:
    first = Race({"a": [Finish("a")]})
    assert race(lambda _: [], 3, Kept(), into=first) is first


@given(st.integers(0, 20), st.integers(1, 100), st.floats(0, 1))
def test_cosine_rises_then_falls_to_its_least(warmup: int, more: int, least: float) -> None:
    task = Task("image", "", 1, steps=warmup + more, rate=2.0, warmup=warmup, least_rate=2.0 * least)
    rates = [cosine(step, task) for step in range(task.steps + 1)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[warmup] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(least)
