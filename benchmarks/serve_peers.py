"""Servers to compare: ours, and other people's with the same bundle behind them, each started as its users would."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.clients import once, request, run
from benchmarks.race import ROOT
from benchmarks.served import served
from thrifty.serve.footprint import family

ENVIRONMENTS = ROOT / ".venv-servers"
# seconds that a server may take to its first answer
MOST_START_S = 90.0

Raw = bytes | str


@dataclass(frozen=True)
class Way:
    """How a server batches.

    Attributes:
        batch: most rows at once; 1 is each request by itself.
        wait_s: most that a row waits for others.
    """

    batch: int = 1
    wait_s: float = 0.0


ALONE, TOGETHER = Way(), Way(batch=32, wait_s=0.005)


@dataclass(frozen=True)
class Server:
    """Who serves, and how it is asked.

    Attributes:
        name: in figures.
        ways: of batching that it is tried with; the one that answers more is compared.
        whole: a request with one row.
        probabilities: of the labels, of the parsed answer to it.
    """

    name: str
    ways: tuple[Way, ...]
    whole: Callable[[Raw], bytes]
    probabilities: Callable[[Any], list[float]]

    @property
    def there(self) -> bool:
        """Its environment has been made."""
        return self.name == "ours" or self._python.exists()

    @property
    def _python(self) -> Path:
        return ENVIRONMENTS / self.name / "bin" / "python"

    @contextlib.contextmanager
    def start(self, bundle: Path, way: Way, first: Raw) -> Iterator[int]:
        """Start it with a bundle, wait for its answer to a first row, yield its port, and end it.

        Raises:
            RuntimeError: it does not answer, with what it wrote to stderr.
        """
        if self.name == "ours":
            with served(str(bundle)) as ours:
                yield ours.port
            return
        port = _free_ports()
        work = json.dumps({"folder": str(bundle), "port": port, **asdict(way)})
        command = [str(self._python), "-W", "ignore", "-m", f"benchmarks.peers.servers.{self.name}_app", work]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1"}
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=said, stderr=said, start_new_session=True
            )
            try:
                try:
                    _await(port, self.whole(first), process)
                except RuntimeError as error:
                    said.seek(0)
                    raise RuntimeError(f"{self.name} {error}: {said.read()[-1500:].strip()}") from None
                yield port
            finally:
                # some start others in sessions of their own
                for pid in list(family(process.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()


def _text(raw: Raw) -> str:
    return raw if isinstance(raw, str) else base64.b64encode(raw).decode()


def _ours(raw: Raw) -> bytes:
    row: Any = raw if isinstance(raw, str) else {"b64": _text(raw)}
    return request("/v1/models/pets:predict", json.dumps({"instances": [row]}).encode())


def _plain(raw: Raw) -> bytes:
    return request("/predict", json.dumps({"instances": [_text(raw)]}).encode())


def _oip(raw: Raw) -> bytes:
    tensor = {"name": "rows", "shape": [1], "datatype": "BYTES", "data": [_text(raw)]}
    return request("/v2/models/pets/infer", json.dumps({"inputs": [tensor]}).encode())


SERVERS: Mapping[str, Server] = {
    each.name: each
    for each in (
        Server("ours", (ALONE,), _ours, lambda said: said["predictions"][0]["probabilities"]),
        Server("fastapi", (ALONE,), _plain, lambda said: said["predictions"][0]["probabilities"]),
        Server("litserve", (ALONE, TOGETHER), _plain, lambda said: said["predictions"][0]["probabilities"]),
        Server("bentoml", (ALONE, TOGETHER), _plain, lambda said: said[0]["probabilities"]),
        Server("mlserver", (ALONE, TOGETHER), _oip, lambda said: said["outputs"][0]["data"]),
    )
}


def answered(server: Server, port: int, raw: Raw) -> list[float]:
    """Ask once; the probabilities of the labels.

    Raises:
        RuntimeError: the answer is none.
    """
    status, body = run(once(port, server.whole(raw)))
    if status != 200:
        raise RuntimeError(f"{server.name} answered {status}: {body[:300]!r}")
    return server.probabilities(msgspec.json.decode(body))


def _await(port: int, whole: bytes, process: subprocess.Popen[bytes]) -> None:
    until, status = time.monotonic() + MOST_START_S, 0
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode}")
        with contextlib.suppress(OSError):
            status, _ = run(asyncio.wait_for(once(port, whole), 10))
            if status == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"did not answer within {MOST_START_S:.0f} s (last status {status})")


def _free_ports() -> int:
    """A port that is free, as are the two after it in all likelihood."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
