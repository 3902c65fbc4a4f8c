"""Images changed by chance in the loop: a run goes on with the draws it would have had; validation sees plain ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from short_runs import Killed, go, same

from thrifty.data import Store
from thrifty.errors import BundleError
from thrifty.spec import Augment, Plan, RandAugment
from thrifty.spec.events import Evaluated, Event, StepDone

PlanFactory = Callable[..., Plan]
EVERYTHING = Augment(
    flip=True, crop=2, cutout=3, brightness=0.2, contrast=0.2, randaugment=RandAugment(), mixup=0.2, cutmix=1.0
)


def losses(events: list[Event]) -> list[float]:
    return [each.loss for each in events if isinstance(each, StepDone)]


@pytest.mark.slow
def test_a_run_goes_on_with_the_draws_it_would_have_had(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan("mlp-small", steps=12, evaluate_every=4)
    augmented = plan.model_copy(update={"augment": EVERYTHING})
    plain, before = go(plan, store, tmp_path / "plain")
    whole, expected = go(augmented, store, tmp_path / "whole")
    assert not same(plain, whole) and losses(before) != losses(expected)
    with pytest.raises(Killed):
        go(augmented, store, tmp_path / "killed", die_at=7)
    resumed, events = go(augmented, store, tmp_path / "killed")
    assert same(whole, resumed) and losses(events) == losses(expected)[-len(losses(events)) :]
    # another augmentation learns something else: no checkpoint of this is gone on with
    with pytest.raises(BundleError):
        go(plan, store, tmp_path / "whole")


def test_validation_sees_images_as_they_are(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan("mlp-small", steps=2, evaluate_every=1)
    still = plan.optim.model_copy(update={"learning_rate": 1e-12})
    found = []
    for augment, smoothing in ((Augment(), 0.0), (EVERYTHING, 0.2)):
        run = plan.model_copy(update={"optim": still, "augment": augment, "label_smoothing": smoothing})
        _, events = go(run, store, tmp_path / (augment.says or "none"))
        found.append(next(each.metrics for each in events if isinstance(each, Evaluated)))
    assert found[0] == found[1]


def test_smooth_answers_are_learned_as_such(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan("mlp-small", steps=6, evaluate_every=6)
    smooth = plan.model_copy(update={"label_smoothing": 0.3})
    (_, sure), (_, smoothed) = (go(each, store, tmp_path / str(each.label_smoothing)) for each in (plan, smooth))
    # of ten classes no answer of 0.73 and nine of 0.03 has a cross entropy below their own entropy
    assert min(losses(smoothed)) > 1.17 and losses(sure) != losses(smoothed)
    with pytest.raises(BundleError):
        go(smooth, store, tmp_path / "0.0")


@pytest.mark.slow
def test_images_grow_and_a_run_goes_on_at_the_side_it_had(make_plan: PlanFactory, store: Store, tmp_path: Path) -> None:
    plan = make_plan("resnet8", steps=10, evaluate_every=5).model_copy(update={"progressive": 0.5})
    whole, expected = go(plan, store, tmp_path / "whole")
    with pytest.raises(Killed):
        go(plan, store, tmp_path / "killed", die_at=6)
    resumed, events = go(plan, store, tmp_path / "killed")
    assert same(whole, resumed) and losses(events) == losses(expected)[-len(losses(events)) :]
    with pytest.raises(BundleError):
        go(plan.model_copy(update={"progressive": 1.0}), store, tmp_path / "whole")
