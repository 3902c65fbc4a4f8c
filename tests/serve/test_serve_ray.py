"""Replicas under Ray Serve: every protocol's answers, a replica that is killed under load, and a stop that drains."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from made_bundles import pixels, write_image_bundle

from thrifty import api, serve
from thrifty.errors import JobError, MissingExtraError
from thrifty.export.bundle import Bundle, load_bundle
from thrifty.serve.ray import deploy

SOON = 60.0
PREDICT = "/v1/models/pets:predict"

SLOW = """
    import time
    from torch import nn

    class Net(nn.Module):
        def __init__(self, classes, channels):
            super().__init__()
            self.inner = nn.Linear(channels, classes)

        def forward(self, x):
            time.sleep(0.1)
            return self.inner(x.mean((2, 3)))

    def net(classes, channels, height, width):
        return Net(classes, channels)
"""


@pytest.fixture
def slow_pets(tmp_path: Path) -> Bundle:
    (tmp_path / "slow.py").write_text(textwrap.dedent(SLOW))
    write_image_bundle(tmp_path / "bundle", name="pets", version=3, named=f"{tmp_path}/slow:net")
    return load_bundle(tmp_path / "bundle")


@contextlib.contextmanager
def replicas(count: int, *bundles: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "thrifty", "serve", *map(str, bundles), "--port", "0"]
    command += ["--engine", "ray", "--replicas", str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("serving on http://127.0.0.1:"), said
            yield process, said.split()[-1]
        finally:
            process.kill()


def family(pid: int) -> set[int]:
    children = [int(each) for task in Path(f"/proc/{pid}/task").glob("*/children") for each in task.read_text().split()]
    return {pid}.union(*(family(child) for child in children))


class Load:
    """Clients that ask without a pause, each for rows of its own, and note what they are told and by whom."""

    def __init__(self, url: str, bundle: Bundle, clients: int) -> None:
        self._url, self._stop = url, threading.Event()
        images = [pixels(seed) for seed in range(clients)]
        self._right = bundle.form.probabilities(np.stack(images))
        self._bodies = [{"instances": [image.tolist()]} for image in images]
        self.answered_by: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._pool = ThreadPoolExecutor(clients)
        self._asked = [self._pool.submit(self._ask, number) for number in range(clients)]

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=SOON) as client:
            while not self._stop.is_set():
                reply = client.post(PREDICT, json=self._bodies[number])
                if reply.status_code != 200:
                    self.wrong.append(f"{reply.status_code} {reply.text}")
                elif not np.allclose(reply.json()["predictions"][0]["probabilities"], self._right[number], atol=1e-5):
                    self.wrong.append(reply.text)
                self.answered_by[reply.headers.get("x-replica", "")] += 1

    def wait_for(self, names: int) -> set[str]:
        """Wait until so many replicas in all have answered."""
        until = time.monotonic() + SOON
        while len(self.answered_by) < names:
            assert time.monotonic() < until, self.answered_by
            time.sleep(0.05)
        return set(self.answered_by)

    def end(self) -> None:
        self._stop.set()
        for each in self._asked:
            each.result(SOON)
        self._pool.shutdown()


@pytest.mark.slow
def test_a_replica_is_killed_under_load_and_a_stop_answers_what_was_accepted(slow_pets: Bundle, poet: Bundle) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    with replicas(2, slow_pets.folder, poet.folder) as (process, url):
        everyone = family(process.pid)
        speaks_all_protocols(url)
        listens_to_this_machine_alone(everyone)

        load = Load(url, slow_pets, 8)
        first = load.wait_for(2)
        killed = int(sorted(first)[0].rpartition("-")[2])
        assert killed in everyone
        os.kill(killed, signal.SIGKILL)
        load.wait_for(3)
        time.sleep(0.5)
        load.end()
        assert not load.wrong, "what the killed one computed is asked again of another"

        everyone |= family(process.pid)
        body = {"instances": [pixels(1).tolist()] * 6}
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(httpx.post, f"{url}{PREDICT}", json=body, timeout=SOON) for _ in range(4)]
            time.sleep(0.15)
            process.send_signal(signal.SIGTERM)
            assert [each.result(SOON).status_code for each in asked] == [200] * 4
        assert process.wait(SOON) == 0
    until = time.monotonic() + SOON
    while any(Path(f"/proc/{pid}").exists() for pid in everyone):
        assert time.monotonic() < until, "something was left"
        time.sleep(0.05)


def speaks_all_protocols(url: str) -> None:
    """Each protocol's routes, refusals and streams are those of a server alone."""
    with httpx.Client(base_url=url, timeout=SOON) as client:
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/v1/models/pets").json()["model_version_status"][0]["version"] == "3"
        unknown = client.post("/v1/models/dogs:predict", json={"instances": [1]}, headers={"x-request-id": "mine"})
        assert unknown.status_code == 404
        assert unknown.headers["x-request-id"] == "mine"
        tensor = {"name": "pixels", "datatype": "UINT8", "shape": [2, 16, 16, 3], "data": [7] * (2 * 16 * 16 * 3)}
        inferred = client.post("/v2/models/pets/infer", json={"inputs": [tensor]})
        assert inferred.json()["outputs"][0]["shape"][0] == 2, inferred.text
        asked = {"model": "poet", "prompt": "a", "max_tokens": 4, "temperature": 0}
        whole = client.post("/v1/completions", json=asked).json()["choices"][0]["text"]
        with client.stream("POST", "/v1/completions", json={**asked, "stream": True}) as reply:
            lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
        assert lines.pop() == "[DONE]"
        assert "".join(json.loads(line)["choices"][0]["text"] for line in lines) == whole


def listens_to_this_machine_alone(pids: set[int]) -> None:
    """No process of it has an address that others reach."""
    sockets = set()
    for pid in pids:
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(str(each.readlink()))
    inodes = {name[8:-1] for name in sockets if name.startswith("socket:[")}
    heard = []
    loopback = ("0100007F:", "0" * 24 + "01000000:", "0000000000000000FFFF00000100007F:")
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes and not words[1].startswith(loopback):
                heard.append(words[1])
    assert not heard


def test_what_every_replica_would_refuse_is_refused_at_once(
    pets: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"serving by Ray needs the package 'ray'.*thrifty\[ray\]"):
        serve.run_replicas([pets.folder], replicas=2, port=0)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    with pytest.raises(JobError, match="two bundles are named 'pets' version 1"):
        serve.run_replicas([pets.folder, pets.folder], replicas=2)
    with pytest.raises(JobError, match="there is no bundle to serve"):
        serve.run_replicas([], replicas=2)
    with pytest.raises(JobError, match="label 'stable' stands for version 7"):
        serve.run_replicas([pets.folder], replicas=2, labels=["stable=7"])
    with pytest.raises(JobError, match="0 replicas"):
        serve.run_replicas([pets.folder], replicas=0)


def test_why_replicas_do_not_come_up_is_told_in_the_words_of_the_last() -> None:
    trace = "Traceback:\n  raise\nthrifty.errors.BundleError: first.\nmore\nthrifty.errors.BundleError: it is: gone.\n"
    for message, reason in ((trace, "it is: gone"), ("Traceback:", "")):
        application = SimpleNamespace(deployments={"thrifty": SimpleNamespace(message=message)})
        status = SimpleNamespace(applications={"thrifty": application})
        assert deploy._reason(SimpleNamespace(status=lambda status=status: status)) == reason
    assert deploy._reason(SimpleNamespace(status=lambda: SimpleNamespace(applications={}))) == ""


def test_what_does_not_go_with_replicas_is_said(pets: Bundle, tmp_path: Path) -> None:
    def start(**options: object) -> None:
        api.serve([pets.folder], host="127.0.0.1", port=0, **options)  # type: ignore[arg-type]

    with pytest.raises(JobError, match=r"--grpc-port and --watch cannot be had with --engine ray"):
        start(engine="ray", grpc_port=1, watch=tmp_path)
    with pytest.raises(JobError, match="are of --engine ray"):
        start(replicas=2)
    with pytest.raises(JobError, match="Did you mean 'ray'"):
        start(engine="rays")
