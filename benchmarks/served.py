"""A server of ours as a process, and bundles with made-up weights for it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.clients import once, request, run
from thrifty.export.bundle import write_bundle
from thrifty.models import build, resolve
from thrifty.models.init import initialise
from thrifty.serve.footprint import family, held_bytes
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
# The mean colour tells the label.
POOLING = """
    from torch import nn

    class Net(nn.Module):
        def __init__(self, classes, channels):
            super().__init__()
            self.inner = nn.Linear(channels, classes)

        def forward(self, x):
            return self.inner(x.mean((2, 3)))

    def net(classes, channels, height, width):
        return Net(classes, channels)
"""


def image_bundle(folder: Path, model: str, *, version: int = 1, seed: int = 0, side: int = SIDE) -> Path:
    """Write a classifier of square images with weights drawn from a seed, named ``pets``."""
    data = Dataset(
        kind="image", task="classify", key="k", counts={"train": 3, "validation": 1, "test": 1}, labels=LABELS,
        label_counts=dict.fromkeys(LABELS, 1), shape=(3, side, side), mean=(0.5,) * 3, std=(0.25,) * 3, crop="center",
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


def pooling_bundle(folder: Path, side: int) -> Path:
    """Write a model of large images that computes next to nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "means.py").write_text(textwrap.dedent(POOLING), encoding="utf-8")
    return image_bundle(folder / "bundle", f"{folder}/means:net", side=side)


@dataclass
class Served:
    """A server that runs."""

    port: int
    process: subprocess.Popen[str]

    def resident_bytes(self) -> int:
        """Memory of the server and all its processes, shared pages divided among them."""
        return sum(map(held_bytes, family(self.process.pid)))

    def cpu_seconds(self) -> float:
        """Processor seconds of the server and all its processes so far, in steps of a tick (10 ms)."""
        return sum(_ticks(pid) for pid in family(self.process.pid)) / os.sysconf("SC_CLK_TCK")

    def counted(self, name: str) -> float:
        """A counter of its metrics, summed over its labels."""
        status, body = run(once(self.port, request("/metrics", b"", "GET")))
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


def _ticks(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # it ended meanwhile
        return 0
    # proc(5): utime and stime, the 14th and 15th field; the second may hold spaces
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[11]) + int(fields[12])
