"""Scales before the first step are those of a plain forward and backward pass, and looking changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.data import Batches, Store
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.models.inputs import to_tensors
from thrifty.spec import Cost, Interval, Plan
from thrifty.train.scales import MOST_FLOPS, MOST_SAMPLES, measure_scales


def made(plan: Plan) -> nn.Module:
    model = build(plan.model)
    initialise(model, plan.init, plan.seed)
    return model


def size(tensor: Tensor) -> float:
    return float(tensor.detach().square().mean().sqrt())


def test_they_are_those_of_a_plain_pass(make_plan: Callable[..., Plan], store: Store) -> None:
    plan = make_plan("mlp-small")
    seen = measure_scales(plan, made(plan), store)
    assert seen is not None and seen.layers == ("hidden.0", "fc") and seen.samples == MOST_SAMPLES
    model = made(plan)
    batch = to_tensors(Batches(store, batch=MOST_SAMPLES, micro=MOST_SAMPLES, seed=plan.seed).step(0)[0])
    hidden = model.get_submodule("hidden.0")(batch["x"].flatten(1))
    logits = model.get_submodule("fc")(hidden.relu())
    gradients = torch.autograd.grad(F.cross_entropy(logits, batch["y"]), (hidden, logits))
    assert seen.activations == pytest.approx((size(hidden), size(logits)), rel=1e-5)
    assert seen.gradients == pytest.approx(tuple(map(size, gradients)), rel=1e-5)


@pytest.mark.parametrize("name", ["resnet8", "vit-nano"])
def test_looking_leaves_a_model_as_it_was(name: str, make_plan: Callable[..., Plan], store: Store) -> None:
    plan = make_plan(name)
    model = made(plan).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    seen = measure_scales(plan, model, store)
    assert seen is not None and len(seen.layers) == len(seen.activations) == len(seen.gradients) >= 8
    assert all(0 < value < 100 for value in (*seen.activations, *seen.gradients))
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert measure_scales(plan, model, store) == seen


def test_what_is_changed_in_place_is_seen_before(make_plan: Callable[..., Plan], store: Store) -> None:
    plan = make_plan("mlp-small")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(inplace=True), nn.Linear(32, 10))
    other = nn.Sequential(nn.Flatten(), model[1], nn.ReLU(), model[3])
    assert measure_scales(plan, model, store) == measure_scales(plan, other, store)


@pytest.mark.parametrize("share", [3, 0.5])
def test_a_large_model_is_looked_at_by_few_samples_or_none(
    share: float, make_plan: Callable[..., Plan], store: Store
) -> None:
    plan = make_plan("mlp-small")
    flops = MOST_FLOPS / share * plan.stop.steps * plan.batch.size
    due = Interval(low=flops, value=flops, high=flops, method="a test")
    cost: Cost = plan.cost.model_copy(update={"flops": due})
    seen = measure_scales(plan.model_copy(update={"cost": cost}), made(plan), store)
    assert (seen.samples if seen else 0) == int(share)


def test_a_model_that_fails_is_left_to_its_first_step(make_plan: Callable[..., Plan], store: Store) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no")

    assert measure_scales(make_plan("mlp-small"), Broken(), store) is None
