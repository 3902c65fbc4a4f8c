"""Prepares raw data once, with nothing kept from before: ``python -m benchmarks.prepare_ours TASK``, a task as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import polars  # noqa: F401  # as the peer's libraries are: time begins when they are there

from benchmarks.peers.talk import Talk
from benchmarks.raw_sets import audio_hours
from thrifty.api import silent
from thrifty.data import prepare
from thrifty.spec import Dataset, parse_job, raw_data


def counted(dataset: Dataset, path: Path) -> float:
    """Return what speed is counted in: hours of audio, tokens, else samples."""
    if dataset.kind == "audio":
        return audio_hours(path)
    return float(sum((dataset.tokens or dataset.counts).values()))


def main() -> None:
    """Prepare what the task says, and say when that began and ended."""
    section = json.loads(sys.argv[1])["section"]
    job = parse_job({"name": "prepare", "data": section, "model": "any"})
    talk = Talk()
    with tempfile.TemporaryDirectory() as cache:
        talk.say("ready")
        store = prepare(raw_data(job), seed=0, cache=Path(cache), emit=silent)
        talk.done(count=counted(store.dataset, Path(section["path"])), kept=store.dataset.cleaning.kept)


if __name__ == "__main__":
    main()
