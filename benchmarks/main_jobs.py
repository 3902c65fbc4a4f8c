"""The two example jobs under several seeds: what they reach, what they take, how wrong the prediction was.

python -m benchmarks.main_jobs [--quick]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import yaml

from thrifty import api

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


def main() -> None:
    """Run, and write the report."""
    from benchmarks.record import record

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed instead of five")
    seeds = range(1 if parser.parse_args().quick else 5)
    for name in FIGURE:
        subprocess.run([sys.executable, str(EXAMPLES / "write_data.py"), name], check=True)

    samples: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for seed in seeds:
            for job, figure in FIGURE.items():
                outcome = api.run(seeded(job, seed, folder), runs=folder / f"runs-{seed}")
                train = next(stage for stage in outcome.entry.stages if stage.stage == "train")
                predicted = outcome.entry.predicted
                assert predicted is not None, "every run is planned"
                samples[f"{job}_{figure}"].append(outcome.result.test[figure])
                samples[f"{job}_total_s"].append(outcome.entry.total.wall_s)
                samples[f"{job}_train_s"].append(train.spent.wall_s)
                samples[f"{job}_predicted_over_measured_train_s"].append(predicted.seconds.value / train.spent.wall_s)
                samples[f"{job}_predicted_over_measured_peak_bytes"].append(
                    predicted.peak_bytes.value / outcome.entry.total.peak_rss_bytes
                )
                samples[f"{job}_share_of_peak"].append(train.spent.peak_share)
    device = api.hardware()[0]
    says = f"Both example jobs, {len(seeds)} seeds each, interleaved. Test figures are of the held-out test split."
    print(record("main_jobs", device, says, samples))


if __name__ == "__main__":
    main()
