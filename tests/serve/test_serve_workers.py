"""Workers in processes: their frames, their deaths, what is blamed for them, and that nothing of them is left."""

from __future__ import annotations

import base64
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_bundles import pixels, png, write_image_bundle
from real_server import serving

from thrifty import serve
from thrifty.errors import BundleError
from thrifty.export.bundle import Bundle, load_bundle
from thrifty.export.check import INFO, sha256
from thrifty.serve.asgi import App
from thrifty.serve.cores import here
from thrifty.serve.lost import WorkerLostError
from thrifty.serve.workers import child
from thrifty.serve.workers.nursery import Nursery
from thrifty.serve.workers.process import Process
from thrifty.serve.workers.wire import SHARED_BYTES, Incoming, Shared, framed, send, send_frame

SOON = 60.0
PREDICT = "/v1/models/pets:predict"

# Rows all red kill the process, all green never return, all blue are refused by the model itself.
POISON = """
    import os, signal, time
    from torch import nn

    class Net(nn.Module):
        def __init__(self, classes, channels, height, width):
            super().__init__()
            self.inner = nn.Linear(channels, classes)

        def forward(self, x):
            means = x.mean((2, 3))
            for red, green, blue in means.tolist():
                if red > 2 and green < 0 and blue < 0:
                    os.kill(os.getpid(), signal.SIGSEGV)
                if green > 1 and red < 0 and blue < 0:
                    time.sleep(1000)
                if blue > 1 and red < 0 and green < 0:
                    raise ValueError("blue")
            return self.inner(means)

    def net(classes, channels, height, width):
        return Net(classes, channels, height, width)
"""


def plain(color: tuple[int, int, int]) -> list[Any]:
    return np.broadcast_to(np.array(color, np.uint8), (16, 16, 3)).tolist()


RED, GREEN, BLUE = plain((255, 0, 0)), plain((0, 255, 0)), plain((0, 0, 255))


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made


@pytest.fixture(scope="module")
def moody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moody")
    (folder / "moods.py").write_text(textwrap.dedent(POISON))
    write_image_bundle(folder / "bundle", name="pets", version=1, named=f"{folder}/moods:net")
    return folder / "bundle"


@pytest.fixture
def app(moody: Path, nursery: Nursery) -> Iterator[App]:
    made = App([moody], serve.Limits(), nursery=nursery)
    made.start()
    yield made
    made.close()


def children_of(app: App) -> list[int]:
    """Processes of the models, by their connections' other ends."""
    return [
        int(next(line for line in Path(f"/proc/self/fdinfo/{model._process._process}").read_text().splitlines()
                 if line.startswith("Pid:")).split()[1])
        for model in app.models if model._process is not None
    ]  # fmt: skip


def metric(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=40, deadline=None)
@given(values=st.lists(VALUES, max_size=4), shapes=st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=4))
def test_frames_arrive_as_they_were(values: list[Any], shapes: list[list[int]]) -> None:
    arrays = [
        np.arange(int(np.prod(shape))).astype(kind).reshape(shape)
        for shape in shapes
        for kind in ("u1", "f4", "i8", "?")
    ]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, {"values": values, "arrays": arrays, "number": np.float32(1.5)})
        found = Incoming(theirs).receive()
    assert found["values"] == values
    assert found["number"] == 1.5
    for array, other in zip(arrays, found["arrays"], strict=True):
        assert (array.dtype, array.shape) == (np.asarray(other).dtype, np.asarray(other).shape)
        assert np.array_equal(array, other)


def test_arrays_lie_in_shared_memory_as_far_as_they_fit() -> None:
    shared = Shared()
    others = Shared(os.dup(shared.descriptor))
    draw = np.random.default_rng(0)
    arrays = [draw.integers(0, 256, size, np.uint8) for size in (7, 5_000, SHARED_BYTES - 6_000, 1_001)]
    turned = draw.standard_normal((3, 4)).astype(np.float32).T
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sent = threading.Thread(
            target=send_frame, args=(ours, framed({"arrays": arrays, "turned": turned, "none": np.zeros(0)}, shared))
        )
        sent.start()
        found = Incoming(theirs, others).receive()
        sent.join()
    for array, arrived in zip(
        [*arrays, turned, np.zeros(0)], [*found["arrays"], found["turned"], found["none"]], strict=True
    ):
        assert array.dtype == arrived.dtype and np.array_equal(array, arrived)
    in_it = [np.shares_memory(each, others.bytes) for each in found["arrays"]]
    assert in_it == [True, True, True, False]
    shared.close()
    others.close()


@pytest.fixture
def process(moody: Path, nursery: Nursery) -> Iterator[Process]:
    made = Process(
        nursery, moody, sha256=sha256(moody / INFO), needs="torch image", name="m", cores=here(),
        patience=lambda rows: SOON,
    )  # fmt: skip
    made.begin()
    yield made
    made.stop()


@contextmanager
def listening(process: Process) -> Iterator[int]:
    bell = process.bell()
    yield bell
    os.close(bell)


def readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], SOON)[0])


def test_rows_are_posted_and_their_answers_read_later(process: Process) -> None:
    rows = [pixels(number) for number in range(3)]
    with listening(process) as bell:
        for _ in range(2):
            assert process.post(rows) and readable(bell)
            posted = process.read()
            assert posted is not None and not select.select([bell], [], [], 0)[0]
            for found, wanted in zip(posted, process(rows), strict=True):
                np.testing.assert_array_equal(found["probabilities"], wanted["probabilities"])


def test_answers_that_are_not_there_yet_are_not_waited_for(process: Process) -> None:
    assert process.post([np.array(GREEN, np.uint8)])
    assert process.read() is None
    assert "killed" in str(process.hung())


def test_a_process_that_dies_over_what_was_posted_is_started_again(process: Process) -> None:
    rows, before = [pixels(0)], process.starts
    with listening(process) as bell:
        assert process.post([np.array(RED, np.uint8)]) and readable(bell)
        with pytest.raises(WorkerLostError, match="died"):
            process.read()
    assert not process.post(rows)  # it does not run
    assert len(process(rows)) == 1
    assert process.starts == before + 1
    with listening(process) as bell:
        assert process.post(rows) and readable(bell) and len(process.read() or ()) == 1


def test_a_process_is_given_up_or_stopped_over_what_was_posted(process: Process) -> None:
    stuck = [np.array(GREEN, np.uint8)]
    process.post(stuck)
    assert "killed" in str(process.hung())
    assert len(process([pixels(0)])) == 1
    with listening(process) as bell:
        process.post(stuck)
        process.stop()
        assert readable(bell)  # whoever waits for it is told
        with pytest.raises(WorkerLostError):
            process.read()
    with pytest.raises(WorkerLostError):
        process.bell()


def test_what_is_too_much_to_send_at_once_is_not_posted(process: Process) -> None:
    assert not process.post([["a long row"] * 20_000])


@pytest.mark.parametrize(
    ("together_s", "alone_s", "cores", "few"),
    [(5e-4, 5e-4, 2, True), (5e-4, 1.5e-3, 2, False), (1e-2, 1e-2, 2, False), (5e-4, 5e-4, 1, False)],
    ids=["no faster", "faster", "long", "one core"],
)
def test_threads_that_gain_little_are_left_out(
    monkeypatch: pytest.MonkeyPatch, together_s: float, alone_s: float, cores: int, few: bool
) -> None:
    def bundle(seconds: float) -> Any:
        def answers(rows: list[int]) -> list[int]:
            time.sleep(seconds)
            return rows

        return SimpleNamespace(form=SimpleNamespace(made_up=lambda: 0, answers=answers, alone=False))

    alone, kept = bundle(alone_s), []
    monkeypatch.setattr(child, "threads", lambda found: len(found))
    monkeypatch.setattr(child, "use_cores", lambda found, few=False: kept.append(few))
    monkeypatch.setattr(child, "_load", lambda order, count: alone if count == 1 else None)
    found = child._on_one_thread(bundle(together_s), {"cores": list(range(cores))})
    assert found is (alone if few else None)
    assert kept[-1:] in ([], [few])


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 40_000), min_size=1, max_size=6), cut=st.integers(1, 70_000))
def test_frames_that_come_in_pieces_or_together_are_told_apart(sizes: list[int], cut: int) -> None:
    frames = [{"rows": [np.full(size, number, np.uint8), "x" * size]} for number, size in enumerate(sizes)]
    whole = b"".join(bytes(part) for each in frames for part in framed(each))
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        pieces = [whole[at : at + cut] for at in range(0, len(whole), cut)]
        sent = pool.submit(lambda: [ours.sendall(each) for each in pieces])
        incoming = Incoming(theirs)
        for number, size in enumerate(sizes):
            array, text = incoming.receive()["rows"]
            assert array.tolist() == [number] * size and len(text) == size
        sent.result(SOON)


def test_shared_memory_is_refused_where_none_is_shared() -> None:
    shared = Shared()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_frame(ours, framed({"rows": [np.ones(3)]}, shared))
        with pytest.raises(ValueError, match="extension 2"):
            Incoming(theirs).receive()
    shared.close()


def test_large_frames_of_many_arrays_arrive_and_objects_do_not() -> None:
    rows = [np.full((50, 50, 3), number % 256, np.uint8) for number in range(1500)]
    ours, theirs = socket.socketpair()
    incoming = Incoming(theirs)
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(send, ours, {"rows": rows})
        found = incoming.receive()["rows"]
        sent.result(SOON)
        assert all(np.array_equal(one, other) for one, other in zip(rows, found, strict=True))
        with pytest.raises(TypeError, match="cannot be sent"):
            send(ours, {"rows": [np.array([object()])]})
        ours.close()
        with pytest.raises(EOFError):
            incoming.receive()
        with pytest.raises(EOFError):
            incoming.has_come()


@pytest.mark.slow
def test_a_process_answers_as_the_bundle_does(pets: Bundle, critic: Bundle, nursery: Nursery) -> None:
    app = App([pets.folder, critic.folder], serve.Limits(), nursery=nursery)
    assert all(model.bundle.model is None for model in app.models)
    with serving(app) as url:
        for seed in range(3):
            data = base64.b64encode(png(pixels(seed))).decode()
            reply = httpx.post(f"{url}{PREDICT}", json={"instances": [{"b64": data}] * 3})
            right = list(pets.predict(png(pixels(seed)))["probabilities"].values())
            assert all(np.allclose(each["probabilities"], right, atol=1e-5) for each in reply.json()["predictions"])
        reply = httpx.post(f"{url}/v1/models/critic:predict", json={"instances": ["a fine cat"]})
        right = list(critic.predict("a fine cat")["probabilities"].values())
        assert np.allclose(reply.json()["predictions"][0]["probabilities"], right, atol=1e-5)
        assert metric(url, 'thrifty_cpu_seconds_total{model="pets:1"}') > 0
        cores = sorted(os.sched_getaffinity(0))
        assert nursery._process is not None
        assert len(list(Path(f"/proc/{nursery._process.pid}/task").iterdir())) == 1, "a fork would lose the others"
        held = [sorted(os.sched_getaffinity(pid)) for pid in children_of(app)]
        assert sorted(core for each in held for core in each) == cores or len(cores) == 1, "shared out"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("poison", "how"), [(RED, "died"), (GREEN, "hung"), (BLUE, "")], ids=["dies", "hangs", "fails"]
)
def test_a_poisoned_input_fails_alone(app: App, poison: list[Any], how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thrifty.serve.model._LEAST_PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr("thrifty.serve.model._PATIENCE", 10.0)
    reference = load_bundle(next(iter(app.models)).bundle.folder)
    right = reference.form.probabilities(np.stack([pixels(seed) for seed in range(12)]))
    with serving(app) as url, ThreadPoolExecutor(13) as pool:
        until = time.monotonic() + SOON
        while not next(iter(app.models)).measured:
            assert time.monotonic() < until
            time.sleep(0.01)

        def ask(image: list[Any]) -> httpx.Response:
            return httpx.post(f"{url}{PREDICT}", json={"instances": [image]}, timeout=SOON)

        asked = [pool.submit(ask, pixels(seed).tolist()) for seed in range(6)]
        bad = pool.submit(ask, poison)
        asked += [pool.submit(ask, pixels(seed).tolist()) for seed in range(6, 12)]
        for each, expected in zip(asked, right, strict=True):
            reply = each.result(SOON)
            assert reply.status_code == 200, reply.text
            assert np.allclose(reply.json()["predictions"][0]["probabilities"], expected, atol=1e-5)
        refused = bad.result(SOON)
        said = "its worker was lost over this input, twice" if how else "The model failed: ValueError"
        assert (refused.status_code, said in refused.text) == (500, True)
        assert metric(url, "thrifty_workers_lost_total") == (2 if how else 0)
        if how:
            assert metric(url, f'thrifty_workers_lost_total{{how="{how}",model="pets:1"}}') == 2
        assert httpx.get(f"{url}/v2/health/ready").status_code == 200


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_no_answer_and_a_nursery_that_is_killed_comes_back(
    app: App, nursery: Nursery
) -> None:
    with serving(app) as url:
        (before,) = children_of(app)
        os.kill(before, signal.SIGKILL)
        assert httpx.post(f"{url}{PREDICT}", json={"instances": [plain((9, 9, 9))]}, timeout=SOON).status_code == 200
        (after,) = children_of(app)
        assert after != before
        assert nursery._process is not None
        nursery._process.kill()
        os.kill(after, signal.SIGKILL)
        assert httpx.post(f"{url}{PREDICT}", json={"instances": [plain((9, 9, 9))]}, timeout=SOON).status_code == 200


@pytest.mark.slow
def test_a_folder_that_was_replaced_is_not_taken_for_what_was_loaded(nursery: Nursery, tmp_path: Path) -> None:
    write_image_bundle(tmp_path / "bundle", name="pets", version=1)
    app = App([tmp_path / "bundle"], serve.Limits(probe_seconds=0.2), nursery=nursery)
    with serving(app) as url:
        write_image_bundle(tmp_path / "bundle", name="pets", version=1, seed=3)
        os.kill(children_of(app)[0], signal.SIGKILL)
        refused = httpx.post(f"{url}{PREDICT}", json={"instances": [plain((9, 9, 9))]}, timeout=SOON)
        assert (refused.status_code, "is another one by now" in refused.text) == (503, True)
        assert httpx.get(f"{url}/v2/health/ready").status_code == 503
        with pytest.raises(BundleError, match="lacks its file"):
            app.models.load(tmp_path)
        app.models.load(tmp_path / "bundle")
        assert httpx.get(f"{url}/v2/health/ready").status_code == 200


@pytest.mark.slow
def test_memory_is_returned_when_versions_are_swapped(nursery: Nursery, pets: Bundle, pets2: Bundle) -> None:
    app = App([pets.folder], serve.Limits(), nursery=nursery)
    stop = threading.Event()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def ask(url: str) -> int:
        with httpx.Client(base_url=url, timeout=SOON) as client:
            count = 0
            while not stop.is_set():
                assert client.post(PREDICT, json={"instances": [plain((9, 9, 9))]}).status_code == 200
                count += 1
        return count

    with serving(app) as url, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, url)
        try:
            sizes = []
            for _ in range(8):
                app.models.load(pets2.folder)
                app.models.unload("pets", 2)
                sizes.append(resident())
        finally:
            stop.set()
        assert asked.result(SOON) > 0
        assert sizes[-1] < 1.05 * sizes[2], sizes
        assert len(children_of(app)) == 1


@pytest.mark.slow
def test_nothing_is_left_of_a_server_that_was_killed(moody: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        from thrifty import serve
        serve.run([sys.argv[1]], port=0, ready=lambda host, port: print(port, flush=True))
        """
    )
    with subprocess.Popen([sys.executable, "-c", program, str(moody)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert int(process.stdout.readline()) > 0
            nursery = [int(pid) for pid in _children(process.pid)]
            workers = [int(pid) for each in nursery for pid in _children(each)]
            assert len(workers) == 1
        finally:
            process.kill()
    until = time.monotonic() + SOON
    while any(Path(f"/proc/{pid}").exists() for pid in (*nursery, *workers)):
        assert time.monotonic() < until
        time.sleep(0.02)


# os as it is where neither a descriptor of a process is to be had, nor cores to keep to
_ELSEWHERE = """
import os, sys
del os.pidfd_open, os.sched_setaffinity, os.sched_getaffinity
from thrifty import serve
serve.run([sys.argv[1]], port=0, ready=lambda host, port: print(port, flush=True))
"""


@pytest.mark.slow
def test_without_processes_to_hold_on_to_threads_compute(pets: Bundle) -> None:
    program = [sys.executable, "-c", _ELSEWHERE, str(pets.folder)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{int(process.stdout.readline())}"
            body = {"instances": [{"pixels": np.zeros((16, 16, 3), int).tolist()}]}
            said = httpx.post(f"{url}/v1/models/{pets.info.name}:predict", json=body, timeout=SOON)
            assert said.status_code == 200, said.text
            assert not _children(process.pid)
        finally:
            process.kill()


def _children(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [child for task in tasks for child in task.read_text().split()]


def test_a_gpu_that_computes_no_more_ends_its_process() -> None:
    def raises(error: Exception) -> Any:
        def answers(rows: list[Any]) -> list[Any]:
            raise error

        return SimpleNamespace(form=SimpleNamespace(answers=answers))

    assert child._answer(raises(ValueError("blue")), [1])["error"] == "ValueError"
    with pytest.raises(torch.AcceleratorError):
        child._answer(raises(torch.AcceleratorError("an illegal memory access was encountered")), [1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_processes_answer_by_a_gpu(pets: Bundle, poet: Bundle) -> None:
    with Nursery(device="cuda") as nursery:
        app = App([pets.folder, poet.folder], serve.Limits(), nursery=nursery)
        with serving(app) as url:
            data = base64.b64encode(png(pixels(1))).decode()
            reply = httpx.post(f"{url}{PREDICT}", json={"instances": [{"b64": data}] * 3}, timeout=60)
            right = list(pets.predict(png(pixels(1)))["probabilities"].values())
            assert all(np.allclose(each["probabilities"], right, atol=1e-3) for each in reply.json()["predictions"])
            asked = {"model": "poet", "prompt": "the cat sat", "max_tokens": 20, "temperature": 0}
            replies = [httpx.post(f"{url}/v1/completions", json=asked, timeout=60).json() for _ in range(3)]
            expected = poet.predict("the cat sat", max_tokens=20, temperature=0.0)["completion"]
            assert {each["choices"][0]["text"] for each in replies} == {expected}
