"""What a run's folder is asked for, what its events say while they are written, and the meter of a run that waits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.runs import Following, RunFolder
from thrifty.spec.events import Event, Paused, Resumed, StepDone, Warned
from thrifty.spec.steering import ASKS, Steering


def step(number: int) -> StepDone:
    return StepDone(number, 100, 0.1, 1.0 / number, 1e-3, 1.0, 100.0, 0.5)


LIMITS = st.none() | st.floats(min_value=1e-3, max_value=1e9)


@settings(max_examples=20)
@given(ask=st.sampled_from(ASKS), time_s=LIMITS, joules=LIMITS, usd=LIMITS)
def test_what_is_asked_comes_back(
    tmp_path_factory: pytest.TempPathFactory, ask: str, time_s: float, joules: float, usd: float
) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    texts = {"time": (time_s, "s"), "energy": (joules, "J"), "money": (usd, "USD")}
    said = {name: f"{value!r}{unit}" for name, (value, unit) in texts.items() if value is not None}
    asked = Steering.model_validate({"ask": ask, **said})
    folder.steer(asked)
    assert folder.steering() == asked
    folder.let_go()
    assert folder.steering() == asked.model_copy(update={"ask": "go"})


@pytest.mark.parametrize("text", ["", "{", "7", '{"ask": "halt"}', '{"time": 5}', "\0" * 40])
def test_what_cannot_be_read_asks_for_nothing(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path)
    assert folder.steering() == Steering()
    (tmp_path / "control.json").write_text(text)
    assert folder.steering() == Steering()
    folder.let_go()
    assert (tmp_path / "control.json").read_text() == text


def test_events_are_read_on_as_they_are_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    following = folder.following()
    assert not following.read() and following.events == []
    writer = folder.writer()
    writer(Warned("a"))
    writer(step(1))
    writer.flush()
    assert following.read() and following.events == [Warned("a"), step(1)]
    assert not following.read()
    for number in (2, 3):
        writer(step(number))
    writer(Resumed(1))
    writer(step(2))
    writer.flush()
    assert following.read()
    assert following.events == [Warned("a"), step(1), Resumed(1), step(2)] == folder.events()


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_a_line_that_is_half_written_is_waited_for(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    said: list[Event] = [step(1), Paused(1), Warned("é\u2028x"), step(2)]
    whole = "".join(json.dumps({"event": type(each).__name__, **vars(each)}) + "\n" for each in said).encode()
    following = Following(path)
    for cut in [*sorted(cuts), len(whole)]:
        path.open("ab").close()
        with path.open("r+b") as file:
            file.write(whole[:cut])
        following.read()
        assert following.events == said[: whole[:cut].count(b"\n")]
    assert following.events == said and following.unread == 0


def test_a_file_begun_anew_is_read_from_its_start(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.writer()(Warned("of an earlier course"))
    following = folder.following()
    following.read()
    (tmp_path / "events.jsonl").unlink()
    folder.writer()(Warned("new"))
    following.read()
    assert following.events == [Warned("new")]
