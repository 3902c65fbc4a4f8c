"""The batcher: every request gets its own answers, whatever else is asked, cancelled, late or broken."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.errors import RequestError
from thrifty.serve.batcher import FULL, Batcher, OverloadError
from thrifty.serve.curve import Curve
from thrifty.serve.lost import WorkerLostError

SOON = 30.0


def later(seconds: float = SOON) -> float:
    return time.monotonic() + seconds


class Doubler:
    """Doubles numbers; waits at its gate; fails on 13; dies on 666. Remembers every batch."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.answers_nothing = False

    def __call__(self, rows: list[Any]) -> Sequence[Any]:
        self.batches.append(list(rows))
        self.entered.release()
        assert self.gate.wait(SOON)
        if 13 in rows:
            raise ValueError("thirteen")
        if 666 in rows:
            raise SystemExit
        if 7 in rows or self.answers_nothing:
            return []
        return [2 * row for row in rows]


def batcher(double: Doubler, *, batch_rows: int = 4, queue_rows: int = 16, **more: Any) -> Batcher:
    made = Batcher(double, name="m", batch_rows=batch_rows, queue_rows=queue_rows, **more)
    made.start()
    return made


@pytest.fixture
def double() -> Doubler:
    return Doubler()


@pytest.fixture
def work(double: Doubler) -> Iterator[Batcher]:
    made = batcher(double)
    yield made
    double.gate.set()
    made.close(SOON)


def block(work: Batcher, double: Doubler, row: int = 0) -> Future[list[Any]]:
    """Hold the worker inside a batch of one row."""
    double.gate.clear()
    held = work.submit([row], deadline=later())
    assert double.entered.acquire(timeout=SOON)
    return held


def test_idle_answers_at_once_and_alone(work: Batcher, double: Doubler) -> None:
    assert work.submit([1, 2], deadline=later()).result(SOON) == [2, 4]
    assert double.batches == [[1, 2]]


def test_what_waits_is_taken_together(work: Batcher, double: Doubler) -> None:
    held = block(work, double)
    futures = [work.submit([n], deadline=later()) for n in range(1, 7)]
    assert work.waiting_rows == 6
    double.gate.set()
    assert [future.result(SOON) for future in [held, *futures]] == [[2 * n] for n in range(7)]
    assert double.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_rows_are_counted_and_large_requests_are_cut(work: Batcher, double: Doubler) -> None:
    held = block(work, double)
    large, small = work.submit(list(range(1, 7)), deadline=later()), work.submit([8], deadline=later())
    double.gate.set()
    assert large.result(SOON) == [2, 4, 6, 8, 10, 12]
    assert (held.result(SOON), small.result(SOON)) == ([0], [16])
    assert double.batches == [[0], [1, 2, 3, 4], [5, 6, 8]]


def test_a_full_queue_refuses_in_the_words_of_tensorflow_serving_and_recovers(work: Batcher, double: Doubler) -> None:
    held = block(work, double)
    accepted = work.submit(list(range(20, 36)), deadline=later())
    assert work.waiting_rows == 16
    with pytest.raises(RequestError, match=FULL) as refused:
        work.submit([1], deadline=later())
    assert refused.value.status == 503
    double.gate.set()
    assert held.result(SOON) == [0]
    assert len(accepted.result(SOON)) == 16
    assert work.submit([1], deadline=later()).result(SOON) == [2]


def test_a_client_that_left_is_not_computed(work: Batcher, double: Doubler) -> None:
    held = block(work, double)
    gone, kept = work.submit([101, 102], deadline=later()), work.submit([3], deadline=later())
    assert gone.cancel()
    assert work.waiting_rows == 1, "its rows leave the queue at once"
    double.gate.set()
    assert (held.result(SOON), kept.result(SOON)) == ([0], [6])
    assert double.batches == [[0], [3]]


def test_a_client_that_left_between_batches_is_not_computed_further(work: Batcher, double: Doubler) -> None:
    double.gate.clear()
    large = work.submit(list(range(100, 112)), deadline=later())
    assert double.entered.acquire(timeout=SOON)
    assert large.cancel()
    assert work.waiting_rows == 0
    double.gate.set()
    assert work.submit([1], deadline=later()).result(SOON) == [2]
    assert double.batches == [[100, 101, 102, 103], [1]]


def test_a_late_request_is_refused_and_not_computed(work: Batcher, double: Doubler) -> None:
    held = block(work, double)
    late, kept = work.submit([5], deadline=later(0.01)), work.submit([6], deadline=later())
    time.sleep(0.03)
    double.gate.set()
    with pytest.raises(RequestError, match="Deadline exceeded") as refused:
        late.result(SOON)
    assert refused.value.status == 504
    assert (held.result(SOON), kept.result(SOON)) == ([0], [12])
    assert [5] not in double.batches
    assert work.waiting_rows == 0


def test_one_bad_request_does_not_spoil_its_neighbours(work: Batcher, double: Doubler) -> None:
    held = block(work, double)
    good, bad, other = (work.submit(rows, deadline=later()) for rows in ([1], [13], [2]))
    double.gate.set()
    assert [future.result(SOON) for future in (held, good, other)] == [[0], [2], [4]]
    with pytest.raises(RequestError, match="The model failed: ValueError") as failed:
        bad.result(SOON)
    assert failed.value.status == 500
    assert work.healthy
    assert work.submit([3], deadline=later()).result(SOON) == [6]


def test_a_large_request_that_fails_midway_leaves_the_queue(work: Batcher, double: Doubler) -> None:
    bad = work.submit([13, *range(20, 30)], deadline=later())
    with pytest.raises(RequestError):
        bad.result(SOON)
    assert work.submit([3], deadline=later()).result(SOON) == [6]
    assert work.waiting_rows == 0


def test_a_model_that_answers_too_few_rows_is_found(work: Batcher) -> None:
    with pytest.raises(RequestError, match="RuntimeError"):
        work.submit([7, 1], deadline=later()).result(SOON)


def test_what_kills_the_worker_fails_alone_and_the_worker_lives_on(work: Batcher, double: Doubler) -> None:
    held = block(work, double)
    good, bad, other = (work.submit(rows, deadline=later()) for rows in ([1], [666], [2]))
    double.gate.set()
    assert [future.result(SOON) for future in (held, good, other)] == [[0], [2], [4]]
    with pytest.raises(RequestError, match="its worker was lost over this input, twice") as refused:
        bad.result(SOON)
    assert refused.value.status == 500
    assert double.batches == [[0], [1, 666, 2], [1], [666], [2]], "one strike for each, the second is alone"
    assert work.submit([3], deadline=later()).result(SOON) == [6]
    assert work.healthy


def test_a_worker_that_is_lost_once_loses_no_answer(work: Batcher, double: Doubler) -> None:
    died: list[int] = []

    def once(rows: list[Any]) -> Sequence[Any]:
        if not died:
            died.append(1)
            raise WorkerLostError("died", by_rows=True)
        return double(rows)

    work._compute = once
    assert work.submit([1], deadline=later()).result(SOON) == [2]


def test_a_worker_that_cannot_be_started_refuses_until_it_can(double: Doubler) -> None:
    broken = threading.Event()
    broken.set()

    def compute(rows: list[Any]) -> Sequence[Any]:
        if broken.is_set():
            raise WorkerLostError("is being started again", by_rows=False)
        return double(rows)

    work = Batcher(compute, name="m", batch_rows=4, queue_rows=16, probe=lambda: 5)
    work.start()
    with pytest.raises(RequestError, match="worker of model 'm' is being started again") as refused:
        work.submit([1], deadline=later()).result(SOON)
    assert refused.value.status == 503
    assert not work.healthy
    broken.clear()
    until = later()
    while not work.healthy:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert double.batches == [[5]], "nobody had to ask: it asked itself"
    work.close(SOON)


def test_a_model_that_nobody_asks_is_asked_by_its_server(double: Doubler) -> None:
    work = batcher(double, probe=lambda: 5, probe_seconds=0.02)
    work.submit([1], deadline=later()).result(SOON)
    until = later()
    while len(double.batches) < 3:
        assert time.monotonic() < until
        time.sleep(0.005)
    assert double.batches[:3] == [[1], [5], [5]]
    double.answers_nothing = True
    while work.healthy:
        assert time.monotonic() < until
        time.sleep(0.005)
    work.close(SOON)


def test_what_would_be_too_late_is_refused_when_it_comes(double: Doubler) -> None:
    curve = Curve(4, 1.0)
    while (rows := curve.next_rows()) is not None:
        curve.probed(rows, 0.2)
    assert (curve.done, curve.bound) == (True, 4)
    work = batcher(double, deadline_seconds=1.0, curve=curve)
    held = block(work, double)
    accepted = [work.submit([n] * 4, deadline=later()) for n in range(1, 4)]
    assert 0.6 < work.wait_seconds() <= 0.8
    with pytest.raises(OverloadError, match=FULL) as refused:
        work.submit(list(range(8)), deadline=later())
    assert refused.value.status == 503
    assert 0.1 < refused.value.retry_after_s < 1.0
    double.gate.set()
    assert [each.result(SOON) for each in (held, *accepted)] == [[0], *([2 * n] * 4 for n in range(1, 4))]
    work.close(SOON)


@pytest.mark.parametrize(("load", "bound", "kept"), [(0.1, 1, True), (50.0, 8, False)], ids=["quiet", "busy"])
def test_what_is_measured_beside_others_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: float, bound: int, kept: bool
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    curve = Curve(32, 30.0, tmp_path / "curve.json")
    while (rows := curve.next_rows()) is not None:
        curve.probed(rows, 0.01 * rows)  # no gain of many together
    assert (curve.bound, (tmp_path / "curve.json").exists()) == (bound, kept)
    if kept:
        again = Curve(32, 30.0, tmp_path / "curve.json")
        assert (again.done, again.bound, again.seconds) == (True, bound, curve.seconds)


def test_an_idle_worker_measures_its_curve_and_then_keeps_to_it(double: Doubler) -> None:
    def slow(rows: list[Any]) -> Sequence[Any]:
        time.sleep(0.002 * max(1, len(rows) - 3))  # no gain beyond four rows
        return double(rows)

    work = Batcher(slow, name="m", batch_rows=32, queue_rows=64, curve=Curve(32, 30.0), typical=lambda: 1)
    work.start()
    assert work.submit([1], deadline=later()).result(SOON) == [2]
    until = later()
    while not work.measured:
        assert time.monotonic() < until
        time.sleep(0.005)
    assert 4 <= work.curve.bound <= 8
    assert {1, 2, 4, 8} <= set(work.curve.seconds)
    work.close(SOON)


def test_rows_of_like_length_go_together_and_the_oldest_goes_first(work: Batcher, double: Doubler) -> None:
    lists = ListDoubler(double)
    work._compute = lists
    double.gate.clear()
    held = work.submit([[0]], deadline=later())
    assert double.entered.acquire(timeout=SOON)
    lengths = [100, 20, 110, 21, 300, 90]
    futures = [work.submit([[1] * length], deadline=later()) for length in lengths]
    double.gate.set()
    assert [future.result(SOON) for future in (held, *futures)] == [[2 * n] for n in (1, *lengths)]
    assert double.batches == [[1], [100, 110, 90], [20, 21], [300]]


class ListDoubler:
    """Doubles the lengths of lists."""

    def __init__(self, double: Doubler) -> None:
        self.double = double

    def __call__(self, rows: list[Any]) -> Sequence[Any]:
        return self.double([len(row) for row in rows])


def test_a_hung_worker_is_not_healthy(double: Doubler) -> None:
    work = batcher(double, hung_after_seconds=0.02)
    held = block(work, double)
    time.sleep(0.04)
    assert not work.healthy
    double.gate.set()
    held.result(SOON)
    work.close(SOON)


def test_closing_answers_what_waits_and_takes_no_more(double: Doubler) -> None:
    work = batcher(double)
    held = block(work, double)
    waiting = [work.submit([n], deadline=later()) for n in range(20, 28)]
    closing = threading.Thread(target=work.close, args=(SOON,))
    closing.start()
    while True:
        try:
            waiting.append(work.submit([9], deadline=later()))
        except RequestError as error:
            assert (error.status, error.what) == (503, "The server is shutting down")
            break
    double.gate.set()
    closing.join(SOON)
    assert [future.result(0) for future in waiting[:8]] == [[2 * n] for n in range(20, 28)]
    assert held.result(0) == [0]


def test_closing_gives_up_after_its_time(double: Doubler) -> None:
    work = batcher(double)
    block(work, double)
    waiting = work.submit([1], deadline=later())
    work.close(0.01)
    with pytest.raises(RequestError, match="shutting down"):
        waiting.result(SOON)
    double.gate.set()


def test_batches_are_told(double: Doubler) -> None:
    told: list[tuple[int, float, float]] = []
    work = batcher(double, on_batch=lambda *batch: told.append(batch))
    work.submit([1, 2, 3], deadline=later()).result(SOON)
    work.close(SOON)
    ((rows, seconds, waited),) = told
    assert rows == 3
    assert 0 <= seconds < SOON
    assert 0 <= waited < SOON


@settings(max_examples=40, deadline=None)
@given(
    requests=st.lists(
        st.tuples(st.lists(st.integers(0, 20), min_size=1, max_size=9), st.booleans()), min_size=1, max_size=20
    ),
    batch_rows=st.integers(1, 8),
)
def test_everyone_gets_their_own(requests: list[tuple[list[int], bool]], batch_rows: int) -> None:
    """Whatever is cancelled or fails (13, 7), each request ends, and ends with its own answers or its own error."""
    work = batcher(Doubler(), batch_rows=batch_rows, queue_rows=200)
    futures = [(rows, cancel, work.submit(rows, deadline=later())) for rows, cancel in requests]
    for _, cancel, future in futures:
        if cancel:
            future.cancel()
    for rows, cancel, future in futures:
        try:
            assert future.result(SOON) == [2 * row for row in rows]
        except CancelledError:
            assert cancel
        except RequestError as error:
            assert error.status == 500
            assert {13, 7} & set(rows)
    work.close(SOON)
    assert work.waiting_rows == 0
