"""Runs as they lie in a folder and its ledger, made without training; and the pages over them, at work in a thread."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import uvicorn
from made_runs import make_dataset, make_device, make_entry, make_evaluations, make_plan, make_steps

from thrifty.ledger import Ledger
from thrifty.runs import RunFolder
from thrifty.spec.job import parse_job
from thrifty.web.guard import new_token
from thrifty.web.server import config_of
from thrifty.web.site import Site

CROWD = 10_000


class Shown(NamedTuple):
    """Pages at work: their site, address, and a client that asks as their own scripts do."""

    site: Site
    url: str
    client: httpx.Client

    def act(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Ask for something to be done, as a page with the token does."""
        own = {"origin": self.url, "x-thrifty-token": self.site.token, **headers}
        return self.client.post(path, json=body, headers=own)


@contextmanager
def showing(runs: Path, folder: Path) -> Iterator[Shown]:
    """Serve the pages over a folder of runs in a thread."""
    site = Site(runs=runs, folder=folder, token=new_token())
    server = uvicorn.Server(config_of(site, "127.0.0.1"))
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        until = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < until, "the pages' server did not start"
            time.sleep(0.01)
        with httpx.Client(base_url=url, timeout=60) as client:
            yield Shown(site, url, client)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
        site.close()
    assert not thread.is_alive()


def add_run(
    runs: Path,
    name: str,
    *,
    status: str = "done",
    batch: int = 32,
    accuracy: float = 0.9861,
    slower: float = 1.0,
    steps: int = 400,
    report: str = "<!doctype html><title>a report</title><p>of this run</p>",
    **job: Any,
) -> int:
    """Make a run of digits, as far as its status says; returns its number.

    Args:
        runs: the folder.
        name: of the run.
        status: ``done``, ``running`` in this very process, ``interrupted``, ``failed``.
        batch, accuracy, slower: of it; the last is how many times as long as the made entry says training took.
        steps: that its events tell of.
        report: of one that is done, its page.
        job: other keys of its job.
    """
    folder = RunFolder(runs / name)
    wanted = parse_job(
        {
            "name": "digits",
            "data": {"kind": "image", "path": "/data/digits"},
            "model": "resnet8",
            "train": {"batch": batch},
        }
        | job
    )
    plan = make_plan()
    plan = plan.model_copy(update={"batch": plan.batch.model_copy(update={"size": batch, "micro": batch})})
    entry = make_entry()
    folder.claim(name, wanted, f"name: digits  # {name}\n", course=name)
    for noun, what in (("device", make_device()), ("dataset", make_dataset()), ("plan", plan)):
        folder.keep(noun, what)
    writer = folder.writer()
    looks = {each.step: each for each in make_evaluations()}
    for step in make_steps(steps):
        writer(step)
        if step.step in looks:
            writer(looks[step.step])
    writer.flush()
    with closing(Ledger(runs / "ledger.sqlite")) as ledger:
        with someone(killed=status == "interrupted") as pid:
            number = ledger.begin(
                name=wanted.name, key=name, folder=folder.folder, job=wanted.model_dump_json(), device=make_device(),
                code="abc", pid=pid,
            )  # fmt: skip
        ledger.planned(number, plan)
        for stage in entry.stages:
            spent = stage.spent
            if stage.stage == "train":
                spent = spent.model_copy(update={"wall_s": spent.wall_s * slower, "joules": spent.joules * slower})
            if status == "done" or stage.stage in ("prepare", "plan", "train"):
                ledger.stage(number, 1, stage.stage, spent)
        if status == "done":
            ledger.finish(number, status="done", metrics={"accuracy": accuracy, "loss": 0.05}, reason="all steps done")
            folder.page.write_text(report)
        elif status == "failed":
            ledger.finish(number, status="failed", metrics={}, reason="the disk is full")
    return number


def copy_runs(made: Path, runs: Path) -> None:
    """Copy a folder of runs; its ledger then speaks of the copy."""
    shutil.copytree(made, runs)
    with closing(sqlite3.connect(runs / "ledger.sqlite")) as database, database:
        database.execute("UPDATE runs SET folder = replace(folder, ?, ?)", (str(made.resolve()), str(runs.resolve())))


@contextmanager
def someone(*, killed: bool) -> Iterator[int]:
    """A process that works: this one, or another that is killed when the block ends."""
    if not killed:
        yield os.getpid()
        return
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


def make_crowd(runs: Path, count: int) -> None:
    """Fill a ledger with runs of three models on two devices, as quickly as SQLite takes them."""
    path = runs / "ledger.sqlite"
    Ledger(path).close()
    noise = random.Random(0)
    entry, plan = make_entry(), make_plan().model_dump_json()
    assert entry.predicted is not None
    predicted = entry.predicted.model_dump_json()
    stages = [(each.stage, json.loads(each.spent.model_dump_json())) for each in entry.stages]
    device = make_device().model_dump_json(exclude={"kernels"})
    rows, spents = [], []
    for number in range(1, count + 1):
        model = ("resnet8", "gpt-nano", "mlp-small")[number % 3]
        job = {"name": f"job-{number % 97}", "model": model, "train": {"batch": 32}, "data": {"path": "/data/digits"}}
        status = "failed" if number % 50 == 0 else "done"
        off = noise.gauss(0.0, 0.3)
        rows.append(
            (
                number, job["name"], f"key-{number}", str(runs / f"run-{number:05}"), status, "2026-11-20T10:00:00Z",
                "2026-11-20T10:02:00Z", 1, 1, "", json.dumps(job), "abc", ("Xeon", "EPYC")[number % 2], device, plan,
                predicted, json.dumps({"accuracy": 0.9 + 0.09 * noise.random(), "samples": 180}), "all steps done",
                abs(off),
            )
        )  # fmt: skip
        for stage, spent in stages:
            took = {**spent, "wall_s": spent["wall_s"] * 2.718281828**off} if stage == "train" else spent
            spents.append((number, 1, stage, json.dumps(took), ""))
    names = (
        "id, name, key, folder, status, started, finished, attempts, pid, process, job, code, device, hardware, plan, "
        "predicted, metrics, reason, miss"
    )
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany(f"INSERT INTO runs ({names}) VALUES ({', '.join('?' * len(rows[0]))})", rows)
        database.executemany(
            "INSERT INTO stages (run_id, attempt, stage, spent, predicted) VALUES (?, ?, ?, ?, ?)", spents
        )
