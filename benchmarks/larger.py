"""A data set of 6 GiB, prepared and trained on by a process that may have 2 GiB of memory.

    python -m benchmarks.larger [--quick]

4,096 images of 724 x 724 pixels in tar shards, kept at their size, so that what is prepared has 6 GiB too. The kernel
refuses the process more than 2 GiB of its own (RLIMIT_DATA: heap, stacks, private mappings; files that are mapped do
not count, and can leave memory at any time). Measured are the most that was really resident of that, and how fast each
stage went. ``--quick``: a twelfth of the set, and the same limit.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.figures import conclude, notes
from benchmarks.kept import Kept
from benchmarks.race import Entrant, asked_of, race, told
from thrifty import hardware
from thrifty.spec.folders import cache_folder
from thrifty.spec.units import format_bytes

IMAGES, QUICK_IMAGES, SIDE, SHARD = 4_096, 341, 724, 256
LIMIT_BYTES = 2 << 30
STEPS, BATCH = 3, 4


def write_shards(folder: Path, count: int) -> int:
    """Write images of noise, each another, of two classes; returns their bytes."""
    import cv2

    generator = np.random.default_rng(0)
    noise = generator.integers(256, size=(2 * SIDE, 2 * SIDE, 3), dtype=np.uint8)
    places = generator.integers(SIDE, size=(count, 2))
    written = 0
    for first in range(0, count, SHARD):
        with tarfile.open(folder / f"noise-{first // SHARD:03}.tar", "w") as shard:
            for number in range(first, min(first + SHARD, count)):
                top, left = places[number]
                image = noise[top : top + SIDE, left : left + SIDE].copy()
                image[:16, :16] = number % 256
                image[0, 0] = (number >> 8, number & 255, 0)
                raw = cv2.imencode(".bmp", image)[1].tobytes()
                for suffix, content in (("bmp", raw), ("cls", str(number % 2).encode())):
                    member = tarfile.TarInfo(f"{number:06}.{suffix}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
                written += len(raw)
    return written


def main() -> int:
    """Make the set, run, print the figures, and write the report; returns 1 when the run failed."""
    asked = asked_of(__doc__, rounds=1)
    device = hardware.here(kind="cpu")  # measured alone, before it is asked for
    kept = Kept.of(f"larger{'_quick' * asked.quick}", resume=asked.resume)
    with tempfile.TemporaryDirectory(prefix="thrifty-larger-") as scratch:
        folder = Path(scratch) / "shards"
        folder.mkdir()
        raw_bytes = write_shards(folder, QUICK_IMAGES if asked.quick else IMAGES)
        told(f"{format_bytes(raw_bytes)} of images; limit {format_bytes(LIMIT_BYTES)}")
        split = {"validation": 0.001, "test": 0.001}
        job = {
            "name": "larger",
            "data": {"kind": "image", "path": str(folder), "size": SIDE, "split": split},
            "model": "resnet8",
            "train": {"steps": STEPS, "batch": BATCH},
            "plan": {"micro_batch": 1},
        }
        # what was measured of this machine is measured without a limit
        shutil.copytree(cache_folder() / "hardware", f"{scratch}/cache/hardware")
        course = json.dumps({"job": job, "limit_bytes": LIMIT_BYTES, "cache": f"{scratch}/cache"})
        command = (sys.executable, "-W", "ignore", "-m", "benchmarks.larger_run", course)
        found = race(lambda _: [Entrant("ours", command)], 1, kept)
    samples: dict[str, list[float]] = {"raw_gib": [raw_bytes / 2**30], "limit_gib": [LIMIT_BYTES / 2**30]}
    for run in found.of("ours"):
        done = run.first("done")
        samples["larger_own_memory_gib"] = [done["own_bytes"] / 2**30]
        samples["larger_store_gib"] = [done["store_bytes"] / 2**30]
        stages = {each["stage"]: float(each["wall_s"]) for each in run.said if each["event"] == "stage"}
        samples["larger_prepare_mb_per_second"] = [raw_bytes / 1e6 / stages["prepare"]]
        samples |= {f"larger_{stage}_seconds": [spent] for stage, spent in stages.items()}
    return conclude("larger", device, f"{__doc__}\n{notes(found)}", samples, found, quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
