"""A job run by a process that may have so much memory: ``python -m benchmarks.larger_run COURSE``, as JSON."""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import yaml

from benchmarks.peers.talk import Talk

LOOK_SECONDS = 0.05


def own_bytes() -> int:
    """Return the resident memory of this process that no file stands for."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class Watch(threading.Thread):
    """Looks at the process's own memory and remembers the most."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest = 0

    def run(self) -> None:
        """Look, until the process ends."""
        while True:
            self.highest = max(self.highest, own_bytes())
            time.sleep(LOOK_SECONDS)


def main(text: str) -> None:
    """Run, and say how it goes."""
    course = json.loads(text)
    resource.setrlimit(resource.RLIMIT_DATA, (course["limit_bytes"], course["limit_bytes"]))
    os.environ["THRIFTY_CACHE"] = course["cache"]
    from thrifty import api
    from thrifty.spec.events import Event, StageDone

    talk, watch = Talk(), Watch()
    watch.start()

    def emit(event: Event) -> None:
        if isinstance(event, StageDone):
            talk.say("stage", stage=event.stage, says=event.says, wall_s=event.spent.wall_s)

    with tempfile.TemporaryDirectory(prefix="thrifty-bench-") as scratch:
        job = Path(scratch) / "job.yaml"
        job.write_text(yaml.safe_dump(course["job"]), encoding="utf-8")
        api.run(job, runs=Path(scratch) / "runs", emit=emit)
    stored = sum(path.stat().st_size for path in Path(course["cache"], "prepared").rglob("*.npy"))
    talk.done(own_bytes=watch.highest, store_bytes=stored)


if __name__ == "__main__":
    main(sys.argv[1])
