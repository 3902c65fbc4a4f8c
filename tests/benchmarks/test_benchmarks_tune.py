"""The benchmark of tuning: ratios come of what each process says, a target that is missed is charged, MNIST is cut."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest
from benchmarks.race import Finish, Race

from benchmarks import tune


def finish(name: str, seed: int, cpu_s: float, *, reached: bool = True) -> Finish:
    return Finish(name, said=({"event": "done", "seed": seed, "cpu_s": cpu_s, "reached": reached, "best": 0.9},))


def test_ratios_are_of_the_same_seed_and_the_worst_set_counts() -> None:
    found = Race(
        {
            "adult_ours": [finish("adult_ours", 0, 2.0), finish("adult_ours", 1, 3.0)],
            "adult_optuna": [finish("adult_optuna", 1, 12.0), finish("adult_optuna", 0, 4.0, reached=False)],
            "fsdd_ours": [finish("fsdd_ours", 0, 9.0)],
            "fsdd_optuna": [finish("fsdd_optuna", 0, 10.0)],
        }
    )
    samples = tune.figures(["adult", "fsdd"], found)
    assert sorted(samples["tune_cost_ratio_adult"]) == [0.25, 0.5]
    assert samples["tune_cost_ratio"] == [0.9] and "tune_cost_ratio_asha" not in samples


def test_a_target_that_ours_missed_is_never_reached() -> None:
    found = Race({"adult_ours": [finish("a", 0, 2.0, reached=False)], "adult_optuna": [finish("b", 0, 4.0)]})
    assert tune.figures(["adult"], found)["tune_cost_ratio"] == [math.inf]


def test_mnist_is_cut_to_its_first_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTY_SHARED", str(tmp_path))
    source = tmp_path / "data/mnist"
    source.mkdir(parents=True)
    for split in ("train", "t10k"):
        size = (9).to_bytes(4, "big")
        pixels = b"\0\0\x08\x03" + size + (28).to_bytes(4, "big") * 2 + bytes(range(9)) * 784
        (source / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(pixels))
        (source / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x01" + size + bytes(range(9))))
    monkeypatch.setattr(tune, "IMAGES", 4)
    monkeypatch.setattr(tune, "HELD_OUT_IMAGES", 2)
    folder = tune.mnist()
    labels = gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    assert labels[4:8] == (4).to_bytes(4, "big") and labels[8:] == bytes(range(4))
    assert len(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())) == 16 + 2 * 784
