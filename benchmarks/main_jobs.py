"""The two example jobs under several seeds: what they reach, what they take, how wrong the prediction was.

    python -m benchmarks.main_jobs [--quick] [--seeds N]

Each run is a process of its own, as a user starts it, so that its memory is counted from a bare interpreter.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import yaml

from benchmarks.record import record
from thrifty import api
from thrifty.ledger import Entry

EXAMPLES = Path(__file__).parent.parent / "examples"
FIGURE = {"digits": "accuracy", "source_code": "bits_per_byte"}


def seeded(name: str, seed: int, folder: Path) -> Path:
    """Write the example job again with another seed, its data path made absolute."""
    job = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8"))
    job["data"]["path"] = str((EXAMPLES / job["data"]["path"]).resolve())
    job.setdefault("train", {})["seed"] = seed
    path = folder / f"{name}-{seed}.yaml"
    path.write_text(yaml.safe_dump(job), encoding="utf-8")
    return path


def run(job: Path, runs: Path) -> Entry:
    """Run a job and return its bill."""
    command = [sys.executable, "-m", "thrifty", "run", str(job), "--runs", str(runs), "--json"]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    return Entry.model_validate(json.loads(done.stdout)["bill"])


def main() -> None:
    """Run, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    seeds = range(1 if asked.quick else asked.seeds)
    for name in FIGURE:
        subprocess.run([sys.executable, str(EXAMPLES / "write_data.py"), name], check=True)

    samples: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for seed in seeds:
            for job, figure in FIGURE.items():
                entry = run(seeded(job, seed, folder), folder / f"runs-{seed}")
                samples[f"{job}_test_{figure}"].append(entry.metrics[figure])
                samples[f"{job}_total_s"].append(entry.total.wall_s)
                samples[f"{job}_train_s"].append(entry.training().wall_s)
                samples[f"{job}_share_of_measured_peak"].append(entry.training().peak_share)
                for each in entry.comparisons():
                    if each.quantity in {"seconds", "peak_bytes"}:
                        samples[f"{job}_train_{each.quantity}_measured_over_predicted"].append(1 + each.difference)
                        samples[f"{job}_train_{each.quantity}_inside_its_interval"].append(float(each.inside))
    says = (
        f"Both example jobs under {len(seeds)} seeds, in turn, each run a process of its own. Test figures are of the "
        "held-out test split. Predictions are held against the share of the planned work that was done; "
        "`inside_its_interval` is 1 or 0, the bounds are meant to hold nine times in ten."
    )
    print(record("main_jobs", api.hardware()[0], says, samples))


if __name__ == "__main__":
    main()
