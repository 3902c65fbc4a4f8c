"""How fast prepared images are read, beside copying as many bytes of memory; and what batches take of a training step.

    python -m benchmarks.read [--quick] [--rounds N]

Reading: batches of 128 images in shuffled order out of the memory-mapped store of CIFAR-10, which lies in the page
cache, as the loop gathers them. Copying: blocks of the same size, one after another, out of an array as large.
Each round measures both in turn. Of a step: ResNet-20 and ResNet-18, trained as jobs with flips and crops; the share is
what each run's own bill says.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks import real_data
from benchmarks.figures import conclude, notes, spread
from benchmarks.kept import Kept
from benchmarks.race import Race, asked_of, ours, race, told
from thrifty import hardware
from thrifty.api import silent
from thrifty.data import Store, prepare
from thrifty.spec import ImageData
from thrifty.spec.folders import cache_folder

BATCH, BATCHES = 128, 300
STEPS, QUICK_STEPS = 40, 12
MODELS = ("resnet20", "resnet18")


def gathered(store: Store) -> Callable[[], int]:
    """Return what reads an epoch's first batches and says how many bytes it read."""
    images = store.array("train", "x")
    order = np.random.default_rng(0).permutation(len(images))
    chosen = [order[at * BATCH : (at + 1) * BATCH] for at in range(BATCHES)]
    return lambda: sum(images.take(each, axis=0).nbytes for each in chosen)


def copied(store: Store) -> Callable[[], int]:
    """Return what copies as many bytes from memory and says how many they were."""
    images = np.array(store.array("train", "x"))
    blocks = [images[at * BATCH : (at + 1) * BATCH] for at in range(BATCHES)]
    return lambda: sum(each.copy().nbytes for each in blocks)


def rate(work: Callable[[], int]) -> float:
    """Bytes a second."""
    began = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - began)


def job(model: str, steps: int) -> dict[str, object]:
    """A job of some steps, whose bill says what its batches took."""
    data = {"kind": "image", "path": str(real_data.cifar())}
    train = {"steps": steps, "batch": BATCH, "augment": {"flip": True, "crop": 2}}
    return {"name": f"read-{model}", "data": data, "model": model, "train": train}


def main() -> int:
    """Measure, print the figures, and write the report; returns 1 when a run failed."""
    asked = asked_of(__doc__, rounds=7)
    device = hardware.here(kind="cpu")  # measured alone, before anything is timed
    told("preparing")
    data = ImageData(kind="image", path=real_data.cifar())
    store = prepare(data, seed=0, cache=cache_folder(), emit=silent)
    read, copy = gathered(store), copied(store)
    pairs = [(rate(read), rate(copy)) for _ in range(asked.rounds + 1)][1:]
    steps = QUICK_STEPS if asked.quick else STEPS
    kept = Kept.of(f"read{'_quick' * asked.quick}", resume=asked.resume)
    found: Race = race(lambda _: [ours(each, job(each, steps)) for each in MODELS], 1, kept)
    samples = {
        "read_gb_per_second": [mine / 1e9 for mine, _ in pairs],
        "copy_gb_per_second": [theirs / 1e9 for _, theirs in pairs],
        "read_share_of_copy": [mine / theirs for mine, theirs in pairs],
    }
    for each in MODELS:
        samples[f"loading_share_{each}"] = [run.first("done")["loading_share"] for run in found.of(each)]
    says = (
        f"{__doc__}\n{BATCHES} batches of {BATCH} images of {store.dataset.shape}: read at "
        f"{spread(samples['read_gb_per_second'])} GB/s, copied at {spread(samples['copy_gb_per_second'])} GB/s; "
        f"{steps} steps of each model.\n\n{notes(found)}"
    )
    return conclude("read", device, says, samples, found, quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
