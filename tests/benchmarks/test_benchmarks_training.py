"""The benchmarks of training: figures come out of what entrants say, and data is laid out as the peers have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.peers.augmented import augmented
from benchmarks.peers.task import Task, stream
from benchmarks.race import Finish, Race, Step

from benchmarks import (
    bert_step,
    budget,
    checkpoints,
    cifar,
    gpt2,
    gpu_train,
    overhead,
    real_data,
    shakespeare,
    sst2,
)
from thrifty.api import silent
from thrifty.data import prepare
from thrifty.spec import parse_job, raw_data

FAST = ("ours", "with", "peak")
Figures = Callable[[Race], dict[str, list[float]]]


def made(*names: str) -> Race:
    """A race in which ours takes 10 ms a step and reaches every target after 12 s; the others 40 ms and 90 s."""
    found = Race()
    for name in names:
        slow = not name.startswith(FAST) and not name.endswith(("_free", "_budget", "_ours"))
        steps = tuple(Step(5 + at * (0.04 if slow else 0.01), 32, 96, paused=not at) for at in range(300))
        figures = {"accuracy": 0.9, "nats_per_byte": 1.8}
        said: tuple[dict[str, Any], ...] = (
            {"event": "peak", "at_s": 3.0, "flops_per_second": 1e12, "shape": "1 x 1 x 1"},
            {"event": "ready", "at_s": 4.0},
            {"event": "evaluated", "at_s": 90.0 if slow else 12.0, **figures},
            {"event": "done", "at_s": 95.0, "checkpoints": 15},
        )
        found.finishes[name] = [Finish(name, steps, said, wall_s=100.0, peak_bytes=3 << 30 if slow else 1 << 30)]
    return found


CASES: dict[str, tuple[Figures, tuple[str, ...], dict[str, float]]] = {
    "sst2": (
        lambda found: sst2.figures(found, quick=False),
        ("ours", "trainer", "trainer_best", "ours_target", "trainer_target"),
        {
            "sst2_speedup_default": 4.0,
            "sst2_speedup_best": 4.0,
            "sst2_target_speedup": 7.5,
            "sst2_matched_accuracy": 0.9,
            "sst2_matched_speedup": 7.5,
        },
    ),
    "sst2_quick": (
        lambda found: sst2.figures(found, quick=True),
        ("ours", "trainer", "trainer_best", "ours_target"),
        {"sst2_speedup_default": 4.0, "sst2_speedup_best": 4.0, "sst2_target_speedup": 4 * 6_920 / 800 / 12},
    ),
    "cifar": (
        cifar.figures,
        ("ours", "plain", "lightning", "keras", "ours_target", "lightning_target"),
        {
            "cifar_speedup_plain": 4.0,
            "cifar_speedup_lightning": 4.0,
            "cifar_speedup_keras": 4.0,
            "cifar_target_speedup": 7.5,
            "cifar_matched_speedup": 7.5,
        },
    ),
    "shakespeare": (
        shakespeare.figures,
        ("ours", "ours_target", "nanogpt", "nanogpt_tuned", "trainer", "ours_large", "nanogpt_large", "trainer_large"),
        {
            "shakespeare_speedup": 4.0,
            "shakespeare_target_speedup": 7.5,
            "shakespeare_target_speedup_tuned": 7.5,
            "shakespeare_loss_difference": 0.0,
        },
    ),
    "gpt2": (
        lambda found: gpt2.figures(found, 50_257),
        ("peak", "ours", "trainer"),
        {"gpt2_speedup": 4.0, "gpt2_mfu": 9600 * 854.6e6 / 1e12},
    ),
    "bert_step": (bert_step.figures, ("peak", "ours"), {"bert_mfu": 275.4e9 / 0.01 / 1e12}),
    "overhead": (overhead.figures, ("ours", "bare"), {"step_overhead_us": -30_000.0}),
    "checkpoints": (checkpoints.figures, ("with", "without"), {"checkpoint_slowdown": 0.0}),
    "budget": (
        lambda found: budget.figures(found, {"a": 1.5 * 2**30, "b": 2 * 2**30}),
        ("a_budget", "a_free", "b_budget", "b_free"),
        {"budget_worst_ratio": 1 / 1.5, "budget_slowdown": 0.0, "budget_models": 2.0},
    ),
    "gpu_train": (
        lambda found: gpu_train.figures(found, ["gpt2_124m"]),
        ("peak", "gpt2_124m_ours", "gpt2_124m_trainer", "gpt2_124m_lightning"),
        {"gpt2_124m_speedup_trainer": 4.0, "gpt2_124m_speedup_lightning": 4.0},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_figures_come_out(name: str) -> None:
    figures, entrants, expected = CASES[name]
    found = figures(made(*entrants))
    assert {figure: found[figure][0] for figure in expected} == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("name", CASES)
def test_what_failed_leaves_figures_out_and_breaks_nothing(name: str) -> None:
    figures, entrants, _ = CASES[name]
    for missing in entrants:
        figures(made(*(each for each in entrants if each != missing)))
    assert not any(figures(Race()).get(figure) for figure in CASES[name][2] if figure != "budget_models")


def test_missing_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTY_SHARED", str(tmp_path))
    with pytest.raises(SystemExit, match="sst2', which is not there"):
        real_data.shared("sst2")


@pytest.mark.parametrize("seed", range(2))
def test_shakespeare_is_cut_as_nanogpt_cuts_it(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data" / "tinyshakespeare" / "input.txt"
    file.parent.mkdir(parents=True)
    words = np.random.default_rng(0).choice(["to", "be", "or", "not"], size=30_000)
    file.write_text(" ".join(words), encoding="utf-8")
    monkeypatch.setenv("THRIFTY_SHARED", str(tmp_path))
    monkeypatch.setenv("THRIFTY_CACHE", str(tmp_path / "cache"))
    wanted = parse_job(shakespeare.job(seed))
    ours = prepare(raw_data(wanted), seed=seed, cache=tmp_path / "cache", emit=silent).dataset
    peers = stream(Task("characters", str(file), 1, steps=1, rate=1.0))
    assert ours.text_bytes["train"] == len(peers.train)
    assert ours.text_bytes["validation"] == peers.held_out_bytes == len(peers.held_out) - 1


def test_peers_change_images_as_we_do() -> None:
    task = Task("image", "", 1, steps=1, rate=1.0, **cifar.AUGMENT)
    torch.manual_seed(0)
    margin, images = task.crop, torch.arange(1.0, 1 + 400 * 3 * 8 * 8).view(400, 3, 8, 8)
    found = augmented(images, task)
    framed = [torch.nn.functional.pad(each, (margin,) * 4) for each in (images, images.flip(-1))]
    seen = set()
    for number, image in enumerate(found):
        for mirrored, frames in enumerate(framed):
            windows = frames[number].unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4)
            seen |= {(mirrored, *place) for place in (windows == image).flatten(2).all(-1).nonzero().tolist()}
    assert len(seen) == 2 * (2 * margin + 1) ** 2
    assert torch.equal(augmented(images, Task("image", "", 1, steps=1, rate=1.0)), images)
