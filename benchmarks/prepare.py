"""How fast raw data is prepared, beside ``map`` of Hugging Face's datasets with the same work on the same cores.

    python -m benchmarks.prepare [--only KIND ...] [--quick] [--rounds N] [--resume]

Ours reads, checks, hashes, drops copies, splits, computes statistics and writes a checksummed store. The peer reads,
does the work that makes samples of the raw (decode, crop and resize; cut into tokens; log-mel; codes and standard
scores), and writes its arrow files, with as many processes as there are cores: nothing is checked and no copy is found.
Both begin with nothing kept. Time is from when libraries are imported to when the last file is written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import raw_sets
from benchmarks.figures import conclude, notes, ratios, spread
from benchmarks.kept import Kept
from benchmarks.race import PEERS, Entrant, Finish, Race, asked_of, cores, need_peers, race
from benchmarks.real_data import shared
from thrifty import hardware


@dataclass(frozen=True)
class Subject:
    """A raw data set to prepare.

    Attributes:
        make: returns its place, of a tenth of the size where asked.
        section: of the job, beside kind and path.
        counted: what speed is counted in.
    """

    make: Callable[[bool], Path]
    section: Callable[[], Mapping[str, Any]]
    counted: str


SUBJECTS: dict[str, Subject] = {
    "image": Subject(raw_sets.photographs, lambda: {"size": 64, "color": "rgb"}, "images"),
    "text": Subject(
        raw_sets.sentences,
        lambda: {"tokenizer": str(shared("tokenizers/bert-base-uncased-vocab.txt")), "text": 1, "label": 2},
        "tokens",
    ),
    "language": Subject(raw_sets.books, lambda: {"vocabulary": 4096, "copies": "exact"}, "tokens"),
    "audio": Subject(raw_sets.digits, dict, "hours of audio"),
    "table": Subject(raw_sets.census, lambda: {"target": "income"}, "rows"),
}


def entrants(kinds: Sequence[str], *, quick: bool) -> Callable[[int], Sequence[Entrant]]:
    """Ours and the peer, for each kind."""
    found: list[Entrant] = []
    for kind in kinds:
        subject = SUBJECTS[kind]
        section = {"kind": kind, "path": str(subject.make(quick)), **subject.section()}
        task = json.dumps({"section": section, "processes": cores()}, sort_keys=True)
        found.append(Entrant(f"{kind}_ours", (sys.executable, "-W", "ignore", "-m", "benchmarks.prepare_ours", task)))
        peer = (str(PEERS), "-W", "ignore", "-m", "benchmarks.peers.datasets_map", task)
        found.append(Entrant(f"{kind}_datasets", peer))
    return lambda _: found


def rate(finish: Finish) -> float:
    """What is counted, a second."""
    done, ready = finish.first("done"), finish.first("ready")
    return float(done["count"] / (done["at_s"] - ready["at_s"]))


def figures(kinds: Sequence[str], found: Race) -> dict[str, list[float]]:
    """Rates of both, and how many times as fast ours is."""
    samples: dict[str, list[float]] = {}
    for kind in kinds:
        mine, theirs = ([rate(run) for run in found.of(f"{kind}_{who}")] for who in ("ours", "datasets"))
        unit = SUBJECTS[kind].counted.replace(" ", "_")
        samples[f"prepare_{kind}_{unit}_per_second_ours"] = mine
        samples[f"prepare_{kind}_{unit}_per_second_datasets"] = theirs
        samples[f"prepare_{kind}_speedup"] = ratios(mine, theirs)
    return samples


def main() -> int:
    """Race, print the figures, and write the report; returns 1 when a run failed."""
    asked = asked_of(__doc__, rounds=3, parts=tuple(SUBJECTS))
    need_peers()
    device = hardware.here(kind="cpu")  # measured alone, before anything is timed
    kinds = asked.only
    kept = Kept.of(f"prepare{'_quick' * asked.quick}", resume=asked.resume)
    found = race(entrants(kinds, quick=asked.quick), asked.rounds, kept)
    samples = figures(kinds, found)
    rows = [
        f"| {kind} | {SUBJECTS[kind].counted} | {spread(samples[f'prepare_{kind}_{unit}_per_second_ours'])} | "
        f"{spread(samples[f'prepare_{kind}_{unit}_per_second_datasets'])} | "
        f"{spread(samples[f'prepare_{kind}_speedup'])} | {_peak(found, f'{kind}_ours')} | "
        f"{_peak(found, f'{kind}_datasets')} |"
        for kind in kinds
        for unit in [SUBJECTS[kind].counted.replace(" ", "_")]
    ]
    head = "| kind | counted | ours, a second | datasets, a second | times as fast | ours, MiB | datasets, MiB |"
    says = "\n".join([__doc__ or "", head, "|---|---|---:|---:|---:|---:|---:|", *rows, "", raw_sets.__doc__ or ""])
    return conclude("prepare", device, f"{says}\n\n{notes(found)}", samples, found, quick=asked.quick)


def _peak(found: Race, name: str) -> str:
    return spread(run.peak_bytes / 2**20 for run in found.of(name))


if __name__ == "__main__":
    sys.exit(main())
