"""The run folder: found by its key, never another's, read back as it was written, whole after a kill."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from thrifty.errors import BundleError, DataError
from thrifty.runs import STEPS_HELD_S, Result, RunFolder, folder_for, open_run
from thrifty.spec import Job, parse_job
from thrifty.spec.events import Checkpointed, Evaluated, Event, Progress, Resumed, StepDone, Stopped

RESULT = Result(
    key="k",
    reason="all steps done",
    steps=3,
    best_step=2,
    validation={"loss": 0.1},
    test={"loss": 0.2},
    confusion=((1, 0), (0, 1)),
    prompt="",
    completion="",
)


def job() -> Job:
    return parse_job({"name": "a", "data": {"kind": "image", "path": "x"}, "model": "resnet8"})


def claimed(runs: Path, key: str, *, planned: bool = True, course: str = "") -> RunFolder:
    folder = folder_for(runs, "a", key, course=course or key)
    folder.claim(key, job(), "name: a", course=course or key)
    if planned:
        (folder.folder / "plan.json").write_text("{}")
    return folder


def step(number: int) -> StepDone:
    return StepDone(number, 10, number / 5, 1.0, 0.1, 0.5, 64.0, 0.01)


def test_the_same_key_finds_its_folder_and_another_key_the_next(tmp_path: Path) -> None:
    names = [claimed(tmp_path, key).folder.name for key in ("one", "two", "one", "three", "two")]
    assert names == ["a", "a-2", "a", "a-3", "a-2"]


def test_an_unfinished_run_of_the_same_course_goes_on_under_another_key(tmp_path: Path) -> None:
    first = claimed(tmp_path, "one", course="c")
    first.writer()(step(1))
    again = claimed(tmp_path, "two", course="c")
    assert (again.folder, again.key, again.events()) == (first.folder, "two", [step(1)])
    assert claimed(tmp_path, "other", course="d").folder.name == "a-2"
    again.keep("result", RESULT)
    assert claimed(tmp_path, "one", course="c").folder.name == "a-3", "what is done is left alone"
    assert claimed(tmp_path, "two", course="c").folder.name == "a"


def test_events_wait_while_the_disk_is_full(tmp_path: Path) -> None:
    folder = claimed(tmp_path, "k")
    emit = folder.writer()
    emit(step(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "a" / "events.jsonl").stat().st_size + 20, limits[1]))
        for number in (2, 3):
            emit(step(number))
            emit.flush()
        assert folder.events() == [step(1)], "not even half a line of the others"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    emit(step(4))
    emit.flush()
    assert folder.events() == [step(number) for number in (1, 2, 3, 4)]


def test_a_users_own_folder_or_file_is_never_taken(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("mine")
    (tmp_path / "a-2").write_text("mine too")
    assert claimed(tmp_path, "one").folder.name == "a-3"
    assert (tmp_path / "a" / "thesis.tex").read_text() == "mine"


def test_a_run_that_failed_before_its_plan_leaves_its_folder_to_the_next(tmp_path: Path) -> None:
    failed = claimed(tmp_path, "one", planned=False)
    failed.writer()(step(1))
    again = claimed(tmp_path, "two")
    assert again.folder == failed.folder
    assert (again.key, again.events()) == ("two", [])


def test_nouns_come_back_as_they_were(tmp_path: Path) -> None:
    folder = claimed(tmp_path, "k")
    folder.keep("result", RESULT)
    assert folder.result() == RESULT
    assert folder.job() == job()


def test_a_damaged_noun_is_named(tmp_path: Path) -> None:
    folder = claimed(tmp_path, "k")
    (folder.folder / "result.json").write_text('{"key": ')
    with pytest.raises(BundleError, match=r"result.json' is damaged.*Remove"):
        folder.result()


def test_a_noun_that_is_not_there_yet_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no result.json yet.*Finish it"):
        claimed(tmp_path, "k").result()


def test_lasting_events_come_back_and_passing_ones_do_not(tmp_path: Path) -> None:
    folder = claimed(tmp_path, "k")
    emit = folder.writer()
    kept: list[Event] = [
        step(1),
        Evaluated(1, 0.2, {"loss": 0.5}, True, 0.1, 0.01),
        Checkpointed(1, 100, 0.01),
        Stopped(1, "done"),
    ]
    for event in (*kept, Progress("train", 1, 2, "steps")):
        emit(event)
    assert folder.events() == kept


def test_steps_that_a_crash_made_repeat_are_told_once(tmp_path: Path) -> None:
    folder = claimed(tmp_path, "k")
    emit = folder.writer()
    for number in (1, 2, 3):
        emit(step(number))
    emit(Resumed(1))
    for number in (2, 3, 4):
        emit(step(number))
    emit.flush()
    assert [event.step for event in folder.events() if isinstance(event, StepDone)] == [1, 2, 3, 4]


def test_half_a_line_is_cut_off_before_the_next_attempt_writes(tmp_path: Path) -> None:
    folder = claimed(tmp_path, "k")
    folder.writer()(step(1))
    path = folder.folder / "events.jsonl"
    path.write_text(path.read_text() + '{"event": "StepDone", "st')
    assert folder.events() == [step(1)]
    folder.writer()(step(2))
    assert folder.events() == [step(1), step(2)]


def test_lines_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    folder = claimed(tmp_path, "k")
    folder.writer()(step(1))
    path = folder.folder / "events.jsonl"
    odd = b'\0\0\0\n{"event": "Unheard", "x": 1}\n{"event": "Resumed"}\n[3]\n{"x": 2}\n\xff{\n'
    path.write_bytes(path.read_bytes() + odd)
    folder.writer()(step(2))
    assert folder.events() == [step(1), step(2)]


def test_opening_a_run_that_is_not_there_names_its_neighbours(tmp_path: Path) -> None:
    claimed(tmp_path, "k")
    with pytest.raises(DataError, match=r"no run in '.*b'.*Runs there: a\."):
        open_run(tmp_path / "b")
    with pytest.raises(DataError, match=r"Make one: thrifty run JOB"):
        open_run(tmp_path / "nowhere" / "b")


def test_steps_that_are_taken_fast_are_written_with_what_follows_them(tmp_path: Path) -> None:
    folder = claimed(tmp_path, "k")
    emit = folder.writer()
    for number in range(1, 50):
        emit(step(number))
    written = folder.events()
    assert 1 <= len(written) < 49  # the first at once, those of the next moment together
    emit(Checkpointed(49, 100, 0.01))
    assert [event.step for event in folder.events()] == [*range(1, 50), 49]


def test_steps_that_waited_are_written_when_their_time_is_over(tmp_path: Path) -> None:
    folder = claimed(tmp_path, "k")
    emit = folder.writer()
    emit(step(1))
    emit(step(2))
    time.sleep(STEPS_HELD_S)
    emit(step(3))
    assert [event.step for event in folder.events()] == [1, 2, 3]
