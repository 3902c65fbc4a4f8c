"""A server of ours as a process, bundles with made-up weights for it, and clients that cost it little."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from thrifty.export.bundle import write_bundle
from thrifty.models import build, resolve
from thrifty.models.init import initialise
from thrifty.spec import Cleaning, Dataset, Spent

SIDE = 32
LABELS = ("cat", "dog", "owl")
# Images all red end the process that computes them.
POISON = """
    import os, signal
    from torch import nn

    class Net(nn.Module):
        def __init__(self, classes, channels, height, width):
            super().__init__()
            self.inner = nn.Linear(channels * height * width, classes)

        def forward(self, x):
            means = x.mean((2, 3))
            if bool(((means[:, 0] > 1.5) & (means[:, 1] < -1.5)).any()):
                os.kill(os.getpid(), signal.SIGSEGV)
            return self.inner(x.flatten(1))

    def net(classes, channels, height, width):
        return Net(classes, channels, height, width)
"""


def image_bundle(folder: Path, model: str, *, version: int = 1, seed: int = 0) -> Path:
    """Write a classifier of images of 32 x 32 with weights drawn from a seed, named ``pets``."""
    data = Dataset(
        kind="image", task="classify", key="k", counts={"train": 3, "validation": 1, "test": 1}, labels=LABELS,
        label_counts=dict.fromkeys(LABELS, 1), shape=(3, SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3, crop="center",
        vocabulary=0, tokens={}, text_bytes={}, source_bytes=1, stored_bytes=1,
        cleaning=Cleaning(seen=5, kept=5, rejected={}, duplicates=0, across_splits=0),
    )  # fmt: skip
    plan = resolve(model, data)
    made = build(plan)
    initialise(made, "default", seed)
    write_bundle(
        folder, name="pets", version=version, task="classify", model=made, plan=plan, data=data, tokenizer=None,
        metrics={"accuracy": 0.5}, isa=(), bill=Spent(wall_s=1.0),
    )  # fmt: skip
    return folder


def poisonable_bundle(folder: Path) -> Path:
    """Write a model that ends its process over images all red."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "moods.py").write_text(textwrap.dedent(POISON), encoding="utf-8")
    return image_bundle(folder / "bundle", f"{folder}/moods:net")


@dataclass
class Served:
    """A server that runs."""

    port: int
    process: subprocess.Popen[str]

    def resident_bytes(self) -> int:
        """Memory of the server and all its processes, shared pages divided among them."""
        return sum(_proportional(pid) for pid in _tree(self.process.pid))

    def counted(self, name: str) -> float:
        """A counter of its metrics, summed over its labels."""
        status, body = asyncio.run(_once(self.port, "GET", "/metrics", b""))
        assert status == 200, body
        lines = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", body.decode(), re.MULTILINE)
        return sum(map(float, lines))


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[Served]:
    """Start ``thrifty serve`` on a free port, wait until it is ready, and stop it by its process in the end."""
    command = [sys.executable, "-m", "thrifty", "serve", *arguments, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r":(\d+)", line)
            if found is None:
                raise RuntimeError(f"the server did not start: {line!r}")
            yield Served(int(found[1]), process)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def request(path: str, body: bytes, method: str = "POST") -> bytes:
    """A request of HTTP/1.1 as bytes."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def predict_body(pixels: Sequence[object]) -> bytes:
    """A body of TensorFlow Serving's with one image."""
    return json.dumps({"instances": [pixels]}).encode()


@dataclass
class Client:
    """One connection that is kept, and opened again when it was lost."""

    port: int
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None, repr=False)

    async def ask(self, whole: bytes) -> tuple[int, bytes]:
        """Send a request and read its answer: status and body."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        try:
            writer.write(whole)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            raise
        if b"connection: close" in head:
            self.close()
        return int(head[9:12]), body

    async def leave_midway(self, whole: bytes, seconds: float) -> None:
        """Send a request and close the connection before it is answered."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(whole)
        await writer.drain()
        await asyncio.sleep(seconds)
        writer.transport.abort()

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _once(port: int, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    client = Client(port)
    try:
        return await client.ask(request(path, body, method))
    finally:
        client.close()


async def closed_loop(port: int, whole: bytes, clients: int, seconds: float) -> float:
    """Answers a second of so many clients that each ask again once they are answered."""
    until = time.perf_counter() + seconds

    async def one() -> int:
        client, count = Client(port), 0
        while time.perf_counter() < until:
            status, _ = await client.ask(whole)
            count += status == 200
        client.close()
        return count

    return sum(await asyncio.gather(*(one() for _ in range(clients)))) / seconds


def _tree(pid: int) -> list[int]:
    found = [pid]
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in tasks.read_text().split():
            found += _tree(int(child))
    return found


def _proportional(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it ended meanwhile
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
