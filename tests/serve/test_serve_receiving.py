"""Waiting for a message of gRPC: one that comes at once costs no room, one that does not has some, and an end."""

from __future__ import annotations

import asyncio

import pytest

import thrifty.serve.receiving as receiving
from thrifty.errors import RequestError
from thrifty.serve.limits import Limits
from thrifty.serve.receiving import Receiving


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "AT_ONCE_SECONDS", 0.02)


def waiting(*, messages: int = 2, body_seconds: float = 20.0) -> Receiving:
    return Receiving(Limits(body_bytes=1000, held_bytes=1000 * messages + 999, body_seconds=body_seconds))


def test_room_is_for_as_many_messages_as_may_be_held() -> None:
    assert waiting(messages=2).room == 2
    assert Receiving(Limits()).room == 8


def test_what_comes_at_once_takes_no_room() -> None:
    async def check() -> None:
        own = waiting(messages=1)
        own.room = 0
        assert await own.whole(lambda: asyncio.sleep(0, "it")) == "it"

    asyncio.run(check())


def test_what_takes_its_time_has_room_until_it_came_and_one_more_is_refused() -> None:
    async def check() -> None:
        own, come = waiting(messages=2), asyncio.Event()

        async def slow() -> str:
            await come.wait()
            return "it"

        two = [asyncio.create_task(own.whole(slow)) for _ in range(2)]
        await asyncio.sleep(0.1)
        assert own.room == 0
        with pytest.raises(RequestError, match="holds as many requests as it may") as refused:
            await own.whole(slow)
        assert refused.value.status == 503
        # what is quick is not in the way of it
        assert await own.whole(lambda: asyncio.sleep(0, "quick")) == "quick"
        come.set()
        assert await asyncio.gather(*two) == ["it", "it"]
        assert own.room == 2

    asyncio.run(check())


@pytest.mark.parametrize("body_seconds", [0.01, 0.08], ids=["less than at once", "more"])
def test_what_does_not_come_ends(body_seconds: float) -> None:
    async def check() -> None:
        own = waiting(body_seconds=body_seconds)
        with pytest.raises(RequestError, match=f"did not arrive within {body_seconds:g} s") as late:
            await own.whole(lambda: asyncio.sleep(30))
        assert late.value.status == 408 and own.room == 2
        current = asyncio.current_task()
        assert current is not None and current.cancelling() == 0

    asyncio.run(check())


def test_who_ends_the_call_from_outside_is_heard() -> None:
    async def check() -> None:
        own = waiting()
        task = asyncio.create_task(own.whole(lambda: asyncio.sleep(30)))
        await asyncio.sleep(0.1)
        assert own.room == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert own.room == 2

    asyncio.run(check())
