"""CIFAR-10 from JPEG files by a ResNet-18: images a second, and the time to 0.83 on the test images.

    python -m benchmarks.cifar [--quick] [--rounds N] [--seeds N] [--resume] [--plain-to-target]

Against a plain PyTorch loop in fp32, Lightning with bf16 and channels last, and Keras 3 on PyTorch. The same network (a
3x3 stem, 11.2 M parameters), pixels, batches of 128, SGD with momentum 0.9, rate and schedule. Who runs to the target
trains on images that are mirrored and cropped by chance; speeds are of images as they are.
Without ``--quick`` it takes hours, most of them on the way to the target: on two cores an epoch takes minutes.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import real_data
from benchmarks.figures import best, conclude, matched, notes, rates, ratios, reached_s, spread, table, target_ratio
from benchmarks.kept import Kept
from benchmarks.peers.task import Task
from benchmarks.race import Entrant, Race, asked_of, need_peers, ours, peer, race, told
from thrifty import hardware
from thrifty.api import silent
from thrifty.data import Store, prepare
from thrifty.data.draft import drafting, remove_store
from thrifty.spec import SPLITS, ImageData
from thrifty.spec.folders import cache_folder

TARGET = 0.83
BATCH, EPOCHS = 128, 6
RATE, DECAY, WARM_UP_SHARE = 0.1, 5e-4, 0.05
# of who runs to the target: without it eight epochs end at 0.825 (seed 0)
AUGMENT = {"flip": True, "crop": 2}
FIGURE = "accuracy"
# of the test images, so that thrifty has a test split beside its validation split; it takes no time
TESTED = 500
# steps measured after two that warm up
STEPS = {"ours": 24, "plain": 5, "lightning": 16, "keras": 6}
QUICK_STEPS = {"ours": 12, "plain": 4, "lightning": 8, "keras": 4}
SCRIPTS = {"plain": "plain_torch", "lightning": "lightning_cifar", "keras": "keras_cifar"}


def laid_out(seed: int) -> Store:
    """Prepare the images, once a seed, with the published test images as the validation split.

    thrifty deals splits of class folders by itself. What it has prepared is laid out anew under the same key, so that
    the runs find it there; all read the pixels from it.
    """
    cache = cache_folder()
    store = prepare(_data(), seed=seed, cache=cache, emit=silent)
    names = [name for split in SPLITS for name in store.names(split)]
    if all(Path(name).name.startswith("test-") for name in store.names("validation")):
        return store
    told(f"cifar: laying out the published test images for seed {seed}")
    x, y = (np.concatenate([store.array(split, array) for split in SPLITS]) for array in ("x", "y"))
    tested = np.array([Path(name).name.startswith("test-") for name in names])
    held_out = np.flatnonzero(tested)
    parts = {"train": np.flatnonzero(~tested), "validation": held_out, "test": held_out[:: len(held_out) // TESTED]}
    dataset = store.dataset.model_copy(
        update={
            "counts": {split: len(chosen) for split, chosen in parts.items()},
            "label_counts": {
                label: int((y[parts["train"]] == number).sum()) for number, label in enumerate(store.dataset.labels)
            },
        }
    )
    rejects = (store.folder / "rejects.jsonl").read_text(encoding="utf-8")
    remove_store(cache, dataset.key)
    with drafting(cache, dataset.key) as draft:
        for split, chosen in parts.items():
            for name, array in (("x", x), ("y", y)):
                with draft.rows(split, name, array.dtype, array.shape[1:]) as rows:
                    rows.append(array[chosen])
        draft.write("names.json", json.dumps({split: [names[at] for at in chosen] for split, chosen in parts.items()}))
        draft.write("rejects.jsonl", rejects)
        return draft.publish(dataset)


def _data() -> ImageData:
    return ImageData(kind="image", path=real_data.cifar().resolve())


def job(seed: int, *, augment: bool = False, **more: Any) -> dict[str, Any]:
    """The job of our runs."""
    train = {
        "epochs": EPOCHS,
        "evaluations": EPOCHS,
        "batch": BATCH,
        "optimizer": "momentum",
        "learning_rate": RATE,
        "weight_decay": DECAY,
        "warmup": WARM_UP_SHARE,
        "schedule": "cosine",
        "seed": seed,
        **({"augment": AUGMENT} if augment else {}),
    }
    data = {"kind": "image", "path": str(_data().path)}
    return {"name": "cifar", "data": data, "model": "benchmarks.nets:resnet18_32", "train": train, **more}


def task(store: Store, seed: int, **more: Any) -> Task:
    """The task of the peers."""
    steps = EPOCHS * -(-store.dataset.counts["train"] // BATCH)
    return Task(
        "image",
        str(store.folder),
        BATCH,
        steps=steps,
        rate=RATE,
        weight_decay=DECAY,
        warmup=round(WARM_UP_SHARE * steps),
        seed=seed,
        **more,
    )


def speeds(quick: bool) -> Callable[[int], Sequence[Entrant]]:
    """Who runs for images a second."""
    steps = QUICK_STEPS if quick else STEPS
    store = laid_out(0)

    def entrants(_: int) -> list[Entrant]:
        peers = []
        for name, script in SCRIPTS.items():
            precision = "bf16" if name == "lightning" else "fp32"
            peers.append(peer(name, script, task(store, 0, stop_after=2 + steps[name], precision=precision)))
        return [ours("ours", job(0), stop_after=2 + steps["ours"]), *peers]

    return entrants


def ways(plain: bool) -> Callable[[int], Sequence[Entrant]]:
    """Who runs to the target: we and the fastest peer; the plain loop, which takes hours, where it is asked for."""

    def entrants(seed: int) -> list[Entrant]:
        store = laid_out(seed)
        epoch = -(-store.dataset.counts["train"] // BATCH)
        to_target = task(store, seed, evaluate_every=epoch, target=TARGET, **AUGMENT)
        mine = ours("ours_target", job(seed, augment=True, target={FIGURE: TARGET}))
        found = [mine, peer("lightning_target", "lightning_cifar", replace(to_target, precision="bf16"))]
        return [*found, peer("plain_target", "plain_torch", to_target, most_s=4 * 3600)] if plain else found

    return entrants


def figures(found: Race) -> dict[str, list[float]]:
    """The figures of the issue, and what they are computed from."""
    speed = {name: rates(found.of(name)) for name in STEPS if found.of(name)}
    samples = {f"cifar_images_per_second_{name}": values for name, values in speed.items()}
    if "ours" in speed:
        samples |= {f"cifar_speedup_{name}": ratios(speed["ours"], speed[name]) for name in SCRIPTS if name in speed}
    to_target = {
        name: [(reached_s(run, FIGURE, TARGET, rising=True), run.wall_s) for run in found.of(f"{name}_target")]
        for name in ("ours", "lightning", "plain")
    }
    for name, times in to_target.items():
        if times:
            samples[f"cifar_target_seconds_{name}"] = [target for target, _ in times]
            samples[f"cifar_best_accuracy_{name}"] = [
                best(run, FIGURE, rising=True) for run in found.of(f"{name}_target")
            ]
    mine = [target for target, _ in to_target["ours"]]
    if mine and to_target["lightning"]:
        samples["cifar_target_speedup"] = [target_ratio(mine, to_target["lightning"])]
        if to_target["plain"]:
            samples["cifar_target_speedup_plain"] = [target_ratio(mine, to_target["plain"])]
        elif speed.get("plain") and speed.get("lightning"):
            # the same recipe takes as many steps in fp32: only its speed differs
            slower = statistics.median(speed["lightning"]) / statistics.median(speed["plain"])
            samples["cifar_target_speedup_plain_estimated"] = [slower * samples["cifar_target_speedup"][0]]
    samples |= matched("cifar", found.of("ours_target"), found.of("lightning_target"), FIGURE, rising=True)
    return samples


def main() -> int:
    """Race, print the figures, and write the report; returns 1 when a run failed."""
    to_target = "the plain loop runs to the target too: hours"
    asked = asked_of(__doc__, rounds=3, seeds=5, plain_to_target=to_target)
    need_peers()
    real_data.shared("cifar10_jpeg")
    device = hardware.here(kind="cpu")  # measured alone, before it is asked for
    kept = Kept.of(f"cifar{'_quick' * asked.quick}", resume=asked.resume)
    found = race(speeds(asked.quick), asked.rounds, kept)
    if not asked.quick:
        race(ways(asked.plain_to_target), asked.seeds, kept, into=found)
    samples = figures(found)
    reached = "; ".join(
        f"{name}: {spread(run.wall_s for run in runs)} s wall, {spread(run.cpu_s for run in runs)} s of the processors"
        for name, runs in found.finishes.items()
        if name.endswith("_target")
    )
    left_out = "\n\n`--quick`: one round, few steps; nobody ran to the target." if asked.quick else ""
    says = (
        f"{__doc__}\nSpeed is of steady training, from the end of a step to the end of the next, without the first two "
        "and without evaluation. The files were decoded once, before any clock ran; all read the same pixels. The time "
        f"to {TARGET} is of the whole process, and all look at the 10,000 test images after each of {EPOCHS} epochs; "
        f"`cifar_target_speedup` is against Lightning, the fastest peer. {reached}{left_out}\n\n"
        f"{table(found, list(STEPS))}\n\n{notes(found)}"
    )
    return conclude("cifar", device, says, samples, found, quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
