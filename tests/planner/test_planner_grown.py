"""What images that grow would save is offered with its seconds and joules, where they could and a job does not say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from made_devices import device
from thrifty.planner.growing import growth_offered
from thrifty.planner.grown import might_grow
from thrifty.planner.learning import decide
from thrifty.planner.local import Local
from thrifty.planner.planner import draft_of
from thrifty.planner.rules import Reasons
from thrifty.spec import Cleaning, Dataset, Interval, parse_job

SETTINGS = {"precision": "fp32", "memory_format": "contiguous", "checkpointing": "none", "micro_batch": 32}
COUNTS = {"train": 640, "validation": 64, "test": 64}
IMAGES = Dataset(
    kind="image", key="aa", counts=COUNTS, labels=("a", "b"), label_counts={"a": 384, "b": 384}, shape=(3, 32, 32),
    mean=(0.5,) * 3, std=(0.5,) * 3, crop="center", vocabulary=0, tokens={}, text_bytes={}, source_bytes=1,
    stored_bytes=1, cleaning=Cleaning(seen=768, kept=768, rejected={}, duplicates=0, across_splits=0, notes=()),
)  # fmt: skip


@pytest.mark.parametrize(("side", "offered"), [(8, False), (16, True)], ids=["8", "16"])
def test_images_that_would_begin_too_small_for_three_stages_are_not_offered(side: int, offered: bool) -> None:
    job = parse_job({"name": "a", "data": {"kind": "image", "path": "x"}, "model": "resnet8"})
    images = IMAGES.model_copy(update={"shape": (1, side, side), "mean": (0.5,), "std": (0.5,)})
    learning = decide(job, images, Reasons([]))
    assert (growth_offered(job, learning.model, images, learning.optim) is not None) == offered


# each traces a real model
@pytest.mark.slow
@pytest.mark.parametrize(("asked", "offered"), [(None, True), (0.5, False)], ids=["unasked", "asked"])
def test_what_it_would_save_is_told_where_a_job_does_not_say(asked: float | None, offered: bool) -> None:
    train = {"batch": 32, "steps": 200, **({"progressive": asked} if asked else {})}
    job = parse_job({"name": "a", "data": {"kind": "image", "path": "x"}, "model": "resnet8", "train": train})
    local = Local(job, decide(job, IMAGES, Reasons([])), IMAGES, device())
    way = local.way(SETTINGS)

    def of(value: float) -> Interval:
        return Interval(low=value, value=value, high=value, method="a test")

    draft = draft_of(local, way, "k")
    plan = draft.model_copy(update={"cost": draft.cost.model_copy(update={"seconds": of(100), "joules": of(1000)})})
    said = might_grow(plan, local, way)
    if not offered:
        assert said == "" and plan.progressive == 0.5
        return
    growth = growth_offered(job, local.learning.model, IMAGES, local.learning.optim)
    assert growth is not None and plan.progressive == 1.0
    grown = replace(local, learning=replace(local.learning, growth=growth), known={}).price(SETTINGS)
    share = 1 - grown.seconds / way.price.seconds
    # batches, norms and the optimizer cost what they did
    assert 0.1 < share < 1 - growth.area_share
    assert said.startswith(f"{100 * share:.0f} % less time, about {100 * share:.1f} s and ")
    assert "train: {progressive: 0.5}" in said and "something else is learned" in said
