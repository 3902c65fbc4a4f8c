"""Clients of a server that cost it little: connections that are kept, closed and open loops of requests.

A closed loop has so many clients, each of which asks again once it is answered; an open loop asks at a rate, whatever
comes back.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

import uvloop

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
Found = TypeVar("Found")


@dataclass(frozen=True)
class Answer:
    """The status that came, 0 where none did, and after how many seconds."""

    status: int
    seconds: float


def request(path: str, body: bytes, method: str = "POST", headers: Mapping[str, str] = NO_HEADERS) -> bytes:
    """A request of HTTP/1.1 as bytes; of JSON where no header says otherwise."""
    said = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def predict_body(pixels: Sequence[object]) -> bytes:
    """A body of TensorFlow Serving's with one image."""
    return json.dumps({"instances": [pixels]}).encode()


class _Connection(asyncio.Protocol):
    """One connection, on which one request at a time is answered."""

    transport: asyncio.Transport
    answer: asyncio.Future[tuple[bytes, bytes]] | None = None

    def __init__(self) -> None:
        self._got, self._head_bytes, self._whole_bytes = bytearray(), 0, 0

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._head_bytes and (end := self._got.find(b"\r\n\r\n")) >= 0:
            self._head_bytes = end + 4
            length = _LENGTH.search(self._got, 0, self._head_bytes)
            self._whole_bytes = self._head_bytes + (int(length[1]) if length else 0)
        if self._head_bytes and len(self._got) >= self._whole_bytes and self.answer is not None:
            whole, answer = bytes(self._got), self.answer
            head_bytes = self._head_bytes
            self._got, self._head_bytes, self.answer = bytearray(), 0, None
            if not answer.done():
                answer.set_result((whole[:head_bytes], whole[head_bytes:]))

    def connection_lost(self, error: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error or ConnectionResetError("the connection was closed"))


@dataclass
class Client:
    """One connection that is kept, and opened again when it was lost."""

    port: int
    _connection: _Connection | None = field(default=None, repr=False)

    async def ask(self, whole: bytes) -> tuple[int, bytes]:
        """Send a request and read its answer: status and body.

        Raises:
            OSError: the connection cannot be had, or is lost.
        """
        if self._connection is None or self._connection.transport.is_closing():
            self._connection = await self._connect()
        answer = self._connection.answer = asyncio.get_running_loop().create_future()
        self._connection.transport.write(whole)
        try:
            head, body = await answer
        except OSError:
            self.close()
            raise
        if b"connection: close" in head.lower():
            self.close()
        return int(head[9:12]), body

    async def leave_midway(self, whole: bytes, seconds: float) -> None:
        """Send a request and close the connection before it is answered."""
        connection = await self._connect()
        connection.transport.write(whole)
        await asyncio.sleep(seconds)
        connection.transport.abort()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.transport.close()
            self._connection = None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(_Connection, "127.0.0.1", self.port)
        # by the time that it is connected it may be lost again, and was never told that it was made
        connection.transport = transport
        return connection


def run(asking: Coroutine[Any, Any, Found]) -> Found:
    """Run clients on uvloop, which leaves more of the cores to the server than asyncio's own loop."""
    return uvloop.run(asking)


async def once(port: int, whole: bytes) -> tuple[int, bytes]:
    """Ask by a connection of its own: status and body."""
    client = Client(port)
    try:
        return await client.ask(whole)
    finally:
        client.close()


async def closed_loop(port: int, wholes: Sequence[bytes], clients: int, seconds: float) -> list[Answer]:
    """Ask by so many clients that each ask again once they are answered; return what came."""
    found: list[Answer] = []
    until = time.perf_counter() + seconds

    async def one(number: int) -> None:
        client = Client(port)
        while time.perf_counter() < until:
            found.append(await _timed(client, wholes[number % len(wholes)]))
            number += clients
        client.close()

    await asyncio.gather(*(one(number) for number in range(clients)))
    return found


async def open_loop(port: int, wholes: Sequence[bytes], per_second: float, seconds: float) -> list[Answer]:
    """Ask at a fixed rate, whether or not those before were answered, by as many connections as are waited for."""
    found: list[Answer] = []
    idle: list[Client] = []
    tasks: set[asyncio.Task[None]] = set()

    async def one(number: int) -> None:
        client = idle.pop() if idle else Client(port)
        found.append(await _timed(client, wholes[number % len(wholes)]))
        idle.append(client)

    begun = time.perf_counter()
    for number in range(round(per_second * seconds)):
        await asyncio.sleep(max(0.0, begun + number / per_second - time.perf_counter()))
        task = asyncio.create_task(one(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for client in idle:
        client.close()
    return found


async def _timed(client: Client, whole: bytes) -> Answer:
    begun = time.perf_counter()
    try:
        status, _ = await client.ask(whole)
    except OSError:
        status = 0
    return Answer(status, time.perf_counter() - begun)


def quantile(seconds: Sequence[float], share: float) -> float:
    """The least of some numbers that so large a share is not above.

    >>> quantile([3.0, 1.0, 2.0], 0.5)
    2.0
    """
    ordered = sorted(seconds)
    return ordered[round(share * (len(ordered) - 1))]
