"""Rows that the event loop posts: no thread computes them, and the thread has them back when anything goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from thrifty.errors import RequestError
from thrifty.serve.batcher import Batcher
from thrifty.serve.lost import WorkerLostError

SOON = 30.0


class Doubler:
    """Doubles numbers, by whoever computes; what was posted can be read once it was let go."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.starts = 1
        self.bells: list[int] = []
        self.computed: list[list[int]] = []
        self.posted: list[list[int]] = []
        self.given_up = 0
        self.seconds = SOON
        self.at_once = True
        self.holds_back = False
        self.fails: Exception | None = None

    def __call__(self, rows: list[int]) -> Sequence[int]:
        self.computed.append(list(rows))
        return [2 * row for row in rows]

    def patience(self, rows: int) -> float:
        return self.seconds

    def post(self, rows: list[int]) -> bool:
        if not self.at_once:
            return False
        self.posted.append(list(rows))
        if not self.holds_back:
            self.let_go()
        return True

    def bell(self) -> int:
        self.bells.append(os.dup(self.ours.fileno()))
        return self.bells[-1]

    def let_go(self) -> None:
        self.theirs.send(b"x")

    def read(self) -> Sequence[int] | None:
        try:
            assert self.ours.recv(1) == b"x"
        except BlockingIOError:
            return None
        if self.fails is not None:
            raise self.fails
        return [2 * row for row in self.posted[-1]]

    def hung(self) -> Exception:
        self.given_up += 1
        return WorkerLostError("gave no answer", by_rows=True)


@pytest.fixture
def double() -> Iterator[Doubler]:
    made = Doubler()
    yield made
    made.ours.close()
    made.theirs.close()


@pytest.fixture
def work(double: Doubler) -> Iterator[Batcher]:
    made = Batcher(double, name="m", batch_rows=4, queue_rows=64, posts=double)
    made.start()
    assert made.submit([1], deadline=later()).result(SOON) == [2]
    assert double.computed == [[1]]
    double.computed.clear()
    # the thread says that it is done a moment after the answer
    until = time.monotonic() + SOON
    while made._works and time.monotonic() < until:
        time.sleep(0.001)
    yield made
    made.close(SOON)


def later(seconds: float = SOON) -> float:
    return time.monotonic() + seconds


def on_a_loop(ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(ask(), SOON)

    return asyncio.run(bounded())


def answers_of(futures: Sequence[Future[list[Any]]]) -> Coroutine[Any, Any, list[Any]]:
    async def wait() -> list[Any]:
        return await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)

    return wait()


def test_the_loop_posts_the_first_and_then_all_that_came_meanwhile(work: Batcher, double: Doubler) -> None:
    async def ask() -> list[Any]:
        return await answers_of([work.submit([row], deadline=later()) for row in (1, 2, 3)])

    assert on_a_loop(ask) == [[2], [4], [6]]
    assert double.posted == [[1], [2, 3]]
    assert not double.computed


def listened(double: Doubler) -> int:
    """How many descriptors of its connection there are beside its own."""
    wanted, found = f"socket:[{os.fstat(double.ours.fileno()).st_ino}]", 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += str(each.readlink()) == wanted
    return found - 1


def test_a_loop_goes_on_listening_until_another_process_answers(work: Batcher, double: Doubler) -> None:
    async def ask() -> list[Any]:
        found = [await asyncio.wrap_future(work.submit([row], deadline=later())) for row in (1, 2)]
        assert len(double.bells) == 1
        double.starts += 1
        found.append(await asyncio.wrap_future(work.submit([3], deadline=later())))
        assert len(double.bells) == 2 and listened(double) == 1
        return found

    assert on_a_loop(ask) == [[2], [4], [6]]
    work.close(SOON)
    assert listened(double) == 0


def test_what_rings_for_the_thread_is_left_to_it(work: Batcher, double: Doubler) -> None:
    async def ask() -> list[Any]:
        first = await asyncio.wrap_future(work.submit([1], deadline=later()))
        double.let_go()  # as an answer that a thread waits for
        while listened(double):
            await asyncio.sleep(0.001)
        assert double.ours.recv(1) == b"x"  # nobody took it
        return [first, await asyncio.wrap_future(work.submit([2], deadline=later()))]

    assert on_a_loop(ask) == [[2], [4]]
    assert len(double.bells) == 2


def test_a_ring_without_an_answer_is_waited_on(work: Batcher, double: Doubler) -> None:
    async def ask() -> list[Any]:
        double.holds_back = True
        future = work.submit([1], deadline=later())
        work._rung()
        assert not future.done()
        double.let_go()
        return await answers_of([future])

    assert on_a_loop(ask) == [[2]]


def test_another_loop_leaves_rows_to_the_thread_while_one_listens(work: Batcher, double: Doubler) -> None:
    async def ask() -> None:
        assert await asyncio.wrap_future(work.submit([1], deadline=later())) == [2]
        assert await asyncio.to_thread(on_a_loop, lambda: answers_of([work.submit([2], deadline=later())])) == [[4]]

    on_a_loop(ask)
    assert double.posted == [[1]] and double.computed == [[2]]


def test_many_rows_go_in_several_batches(work: Batcher, double: Doubler) -> None:
    async def ask() -> list[Any]:
        return await answers_of([work.submit(list(range(10)), deadline=later())])

    assert on_a_loop(ask) == [[2 * row for row in range(10)]]
    assert [len(rows) for rows in double.posted] == [4, 4, 2]


def test_who_asks_from_a_thread_is_computed_by_the_thread(work: Batcher, double: Doubler) -> None:
    assert work.submit([5], deadline=later()).result(SOON) == [10]
    assert double.computed == [[5]] and not double.posted


def test_what_cannot_be_posted_is_computed_by_the_thread(work: Batcher, double: Doubler) -> None:
    double.at_once = False

    async def ask() -> list[Any]:
        return await answers_of([work.submit([row], deadline=later()) for row in (1, 2, 3)])

    assert on_a_loop(ask) == [[2], [4], [6]]
    assert sorted(row for rows in double.computed for row in rows) == [1, 2, 3] and not double.posted


def test_a_request_from_a_thread_waits_for_what_is_posted(work: Batcher, double: Doubler) -> None:
    async def ask() -> list[Any]:
        double.holds_back = True
        first = work.submit([1], deadline=later())
        second = await asyncio.to_thread(work.submit, [2], deadline=later())
        await asyncio.sleep(0.05)
        assert not first.done() and not second.done() and not double.computed
        double.holds_back = False
        double.let_go()
        return await answers_of([first, second])

    assert on_a_loop(ask) == [[2], [4]]
    assert double.posted == [[1], [2]]


@pytest.mark.parametrize(
    "error", [WorkerLostError("died", by_rows=True), RuntimeError("odd")], ids=lambda error: type(error).__name__
)
def test_who_was_in_a_batch_that_failed_has_another_chance_alone(
    error: Exception, work: Batcher, double: Doubler
) -> None:
    async def ask() -> list[Any]:
        double.holds_back = True
        futures = [work.submit([0], deadline=later())]
        futures += [work.submit([row], deadline=later()) for row in (1, 2)]
        double.let_go()
        await asyncio.wrap_future(futures[0])
        double.fails = error
        double.let_go()
        return await answers_of(futures)

    assert on_a_loop(ask) == [[0], [2], [4]]
    assert double.posted == [[0], [1, 2]]
    assert double.computed == [[1], [2]]


def test_a_refusal_is_the_answer(work: Batcher, double: Doubler) -> None:
    double.fails = RequestError("no such row")

    async def ask() -> list[Any]:
        return await answers_of([work.submit([1], deadline=later())])

    (found,) = on_a_loop(ask)
    assert isinstance(found, RequestError) and found.what == "no such row"


def test_what_hangs_is_given_up_and_tried_again(work: Batcher, double: Doubler) -> None:
    double.holds_back, double.seconds = True, 0.05

    async def ask() -> list[Any]:
        return await answers_of([work.submit([1], deadline=later())])

    assert on_a_loop(ask) == [[2]]
    assert double.given_up == 1 and double.computed == [[1]]


def test_late_and_left_requests_are_not_posted(work: Batcher, double: Doubler) -> None:
    async def ask() -> list[Any]:
        double.holds_back = True
        first = work.submit([1], deadline=later())
        late = work.submit([2], deadline=time.monotonic() + 0.01)
        left, last = work.submit([3], deadline=later()), work.submit([4], deadline=later())
        left.cancel()
        await asyncio.sleep(0.05)
        double.holds_back = False
        double.let_go()
        return await answers_of([first, late, last])

    first, late, last = on_a_loop(ask)
    assert (first, last) == ([2], [8])
    assert isinstance(late, RequestError) and late.status == 504
    assert double.posted == [[1], [4]]


def test_closing_waits_for_what_is_posted(work: Batcher, double: Doubler) -> None:
    async def ask() -> Any:
        double.holds_back = True
        future = work.submit([1], deadline=later())
        closing = asyncio.create_task(asyncio.to_thread(work.close, SOON))
        await asyncio.sleep(0.05)
        assert not closing.done()
        double.let_go()
        await closing
        return future.result(0)

    assert on_a_loop(ask) == [2]
