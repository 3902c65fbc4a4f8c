"""The default space goes by model and data; settings are put into a job, and what they cannot be is told."""

from __future__ import annotations

from typing import Any

import pytest
from tuning_ground import Ground

from thrifty.errors import JobError
from thrifty.spec import Job
from thrifty.spec.tuning import Choice
from thrifty.tune.space import check_space, default_space, first_of, sizes_of, start_of, strength, with_settings

pytestmark = pytest.mark.slow


def changed(ground: Ground, **changes: Any) -> Job:
    return ground.job.model_copy(update=changes)


def test_the_default_space_lies_around_the_plan(ground: Ground) -> None:
    plan = ground.pricer.plan({})
    space = default_space(ground.job, plan, ground.store.dataset)
    assert set(space) == {
        "learning_rate", "schedule", "warmup", "batch", "weight_decay", "label_smoothing", "augment", "model",
    }  # fmt: skip
    assert space["batch"].values == (16, 32, 64, 128)
    assert space["model"].values == ("mlp-small", "mlp-large")
    start = start_of(space)
    assert start["learning_rate"] == plan.optim.learning_rate and start["batch"] == 32
    assert start["model"] == "mlp-small" and start["augment"] == "none"
    # what is tried first is what the job does by itself
    again = ground.pricer.plan(start)
    assert again.optim.model_dump(exclude={"warmup_steps"}) == plan.optim.model_dump(exclude={"warmup_steps"})
    assert again.optim.warmup_steps == plan.optim.warmup_steps and again.model == plan.model


def test_settings_are_put_into_a_job(ground: Ground) -> None:
    settings = {"learning_rate": 0.01, "batch": 16, "model": "mlp-large", "augment": "strong", "augment.crop": 2}
    job = with_settings(ground.job, settings, ground.store.dataset)
    assert (job.train.learning_rate, job.train.batch, job.model) == (0.01, 16, "mlp-large")
    assert job.train.augment.crop == 2 and job.train.augment.cutout == 2
    assert job.train.epochs == 9
    steps = changed(ground, train=ground.job.train.model_copy(update={"epochs": None, "steps": 50}))
    assert with_settings(steps, {"epochs": 3}, ground.store.dataset).train.steps is None


def test_settings_that_bear_on_no_price_are_not_planned_again(ground: Ground) -> None:
    plans = len(ground.pricer.plans)
    one, other = ground.pricer.plan({"learning_rate": 0.5}), ground.pricer.plan({"batch": 16, "augment": "mild"})
    assert len(ground.pricer.plans) == plans
    assert one.optim.learning_rate == 0.5 and one.cost == other.cost
    assert other.batch.size == 16 and other.batch.micro <= 16 and other.augment.crop == 1
    assert other.stop.steps == pytest.approx(2 * one.stop.steps, rel=0.05)


def test_what_a_job_says_of_the_space_is_looked_up(ground: Ground) -> None:
    said = {"space": {"optimizer": ["adamw", "adamm"]}}
    with pytest.raises(JobError, match=r"unknown optimizer 'adamm'\. Did you mean 'adam"):
        job = ground.job.model_copy(update={"tune": type(ground.job.tune).model_validate(said)})
        check_space(job)


@pytest.mark.parametrize(
    ("word", "changes"), [("none", {}), ("mild", {"crop": 1}), ("strong", {"crop": 1, "cutout": 2})]
)
def test_strengths_of_images_go_by_their_side(ground: Ground, word: str, changes: dict[str, int]) -> None:
    assert strength(ground.job, word, ground.store.dataset).model_dump(exclude_defaults=True) == changes


def test_neighbours_in_size_are_of_one_kind() -> None:
    assert sizes_of("resnet8") == ("resnet8", "resnet14")
    assert sizes_of("resnet50") == ("resnet34", "resnet50", "resnet101")
    assert sizes_of("bert-mini") == ("bert-tiny", "bert-mini", "bert-small")
    assert sizes_of("mine:net") == ("mine:net",)
    assert first_of(Choice(low=0.0, high=1.0)) == 0.5
