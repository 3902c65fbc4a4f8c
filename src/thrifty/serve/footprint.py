"""What a server of a bundle takes on this machine: memory of its processes at their largest batch, and cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from thrifty.errors import BundleError, JobError
from thrifty.serve.cores import here, threads
from thrifty.serve.limits import Limits

_PROGRAM = "import sys; from thrifty.serve.footprint import main; main(sys.argv[1])"
_LANGUAGE_TEXTS = 8  # written at once while memory is looked at


@dataclass(frozen=True)
class Footprint:
    """What a server took.

    Attributes:
        memory_bytes: of the server and its workers, what they share counted once.
        cores: that it computed with.
    """

    memory_bytes: int
    cores: int


def measure(folder: Path) -> Footprint:
    """Serve a bundle in a process of its own, have it compute as many rows at once as it ever may, and look.

    Raises:
        JobError: this system does not tell what a process holds; Linux does.
        BundleError: the bundle does not answer.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        raise JobError("the memory of a server cannot be measured on this system", mend="Do it on Linux.")
    done = subprocess.run([sys.executable, "-c", _PROGRAM, str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise BundleError(f"the bundle in '{folder}' cannot be served: {done.stderr.strip().splitlines()[-1]}")
    return Footprint(**json.loads(done.stdout.splitlines()[-1]))


def main(folder: str) -> None:
    """Measure in this process, and print it as JSON."""
    from thrifty.serve.asgi import App
    from thrifty.serve.curve import typical
    from thrifty.serve.workers.nursery import Nursery, needs

    limits = Limits()
    with Nursery(needs([Path(folder)])) as nursery:
        app = App([folder], limits, nursery=nursery)
        try:
            app.start()
            (model,) = app.models
            model.wait_until_warm(limits.warm_seconds)
            until = time.monotonic() + limits.warm_seconds
            while not model.measured and time.monotonic() < until:
                time.sleep(0.02)
            rows = 1 if model.form.alone else _LANGUAGE_TEXTS if model.writer else limits.batch_rows
            row = model.form.made_up()
            if not model.form.alone and not model.writer:
                row = typical(row, 2 * model.bundle.info.data.shape[0])  # as long as any that was learned from
            model.submit([row] * rows).result(limits.deadline_seconds)
            held = sum(map(held_bytes, family(os.getpid())))
        finally:
            app.close()
    print(json.dumps(asdict(Footprint(held, threads(here())))))


def family(pid: int) -> Iterator[int]:
    """A process and all that came of it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from family(int(child))


def held_bytes(pid: int) -> int:
    """Memory that a process holds; of what it shares with others, its share (proc(5), smaps_rollup: Pss)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended meanwhile
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
