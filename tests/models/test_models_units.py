"""Units of every family: what is cut is a smaller model that answers as one whose units have no effect."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from small_models import ARGUMENTS, batch_of, drawn, small_plan

from thrifty.errors import JobError
from thrifty.models import build
from thrifty.models.factored import factor
from thrifty.models.folded import fold, norms_of
from thrifty.models.inputs import to_tensors
from thrifty.models.units import Units, cut, units_of

FAMILIES = sorted(set(ARGUMENTS) - {"ngrams"})


def silence(model: nn.Module, units: Units, gone: list[int]) -> None:
    """Make units have no effect: whoever takes what they give takes zero of it."""
    (taker,) = [each for each in units.axes if each.dim == 1]
    with torch.no_grad():
        model.get_parameter(taker.tensor).index_fill_(1, taker.indices(units.count, gone), 0.0)


def answers(model: nn.Module, family: str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(to_tensors(batch_of(family))["x"])
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_units_without_effect_can_go(family: str) -> None:
    plan = small_plan(family)
    model = drawn(plan)
    kept = {}
    for units in units_of(model, plan).values():
        left = [unit for unit in range(units.count) if unit % 2 == 0]
        silence(model, units, [unit for unit in range(units.count) if unit % 2])
        kept[units.name] = left
    assert kept
    before = answers(model, family)
    count = sum(each.numel() for each in model.parameters())
    for name, left in kept.items():
        cut(model, units_of(model, plan)[name], left)
    torch.testing.assert_close(answers(model, family), before, rtol=1e-5, atol=1e-5)
    assert sum(each.numel() for each in model.parameters()) < count
    slim = plan.model_copy(update={"kept": {name: len(left) for name, left in kept.items()}})
    built = build(slim)
    built.load_state_dict(model.state_dict())
    torch.testing.assert_close(answers(built.eval(), family), before, rtol=1e-5, atol=1e-5)
    assert str(built) == str(model), "layers tell the sizes that they have"


def test_of_grouped_heads_the_queries_go_with_their_keys() -> None:
    plan = small_plan("llama")
    model = drawn(plan)
    cut(model, units_of(model, plan)["blocks.1.attention"], [1])
    attention = model.get_submodule("blocks.1.attention")
    assert (attention.heads, attention.kv_heads) == (2, 1)
    assert model.get_parameter("blocks.1.attention.qkv.weight").shape == (4 * 8, 32)
    assert "blocks.1.attention" not in units_of(model, plan), "the last one stays"


def test_ngrams_have_no_units() -> None:
    plan = small_plan("ngrams")
    assert units_of(build(plan), plan) == {}


def test_a_place_whose_layer_is_factored_has_no_units() -> None:
    plan = small_plan("bert")
    model = build(plan)
    factor(model, "blocks.0.mlp.up", 4)
    factor(model, "blocks.1.attention.proj", 4)
    assert set(units_of(model, plan)) == {"blocks.0.attention", "blocks.1.mlp"}


def test_cut_factored_and_folded_models_are_built_from_their_plan() -> None:
    plan = small_plan("bert").model_copy(update={"kept": {"blocks.0.mlp": 40}, "ranks": {"blocks.0.mlp.up": 4}})
    shapes = {name: tuple(each.shape) for name, each in build(plan, device="meta").state_dict().items()}
    assert shapes["blocks.0.mlp.up.down.weight"] == (4, 32)
    assert shapes["blocks.0.mlp.up.up.weight"] == (40, 4)
    folded = small_plan("resnet").model_copy(update={"folded": ("bn1",), "kept": {"layer2.0.conv1": 3}})
    names = set(build(folded, device="meta").state_dict())
    assert "conv1.bias" in names and "bn1.weight" not in names and "layer2.0.bn1.weight" in names


IMPOSSIBLE: dict[str, tuple[dict[str, object], str]] = {
    "no such place": ({"kept": {"blocks.0.mpl": 4}}, r"no units at 'blocks.0.mpl'.*blocks.0.mlp"),
    "more than there are": ({"kept": {"blocks.0.attention": 5}}, "has 4 units at 'blocks.0.attention', not 5"),
    "none left": ({"kept": {"blocks.0.attention": 0}}, "not 0"),
    "no linear layer": ({"ranks": {"blocks.0": 4}}, "'blocks.0' of BERT is no linear layer"),
    "too high a rank": ({"ranks": {"fc": 4}}, "'fc' has 32 inputs and no rank of 4"),
    "no norm": ({"folded": ("norm",)}, "no norm 'norm' to fold"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_changes_that_cannot_be_are_told(case: str) -> None:
    changes, says = IMPOSSIBLE[case]
    with pytest.raises(JobError, match=f"(?s){says}"):
        build(small_plan("bert").model_copy(update=changes))


@pytest.mark.parametrize("family", ["resnet", "bottleneck", "fast_convnet"])
def test_folded_norms_answer_alike(family: str) -> None:
    plan = small_plan(family)
    model = drawn(plan)
    before, found = answers(model, family), norms_of(model)
    count = sum(isinstance(each, nn.BatchNorm2d) for each in model.modules())
    assert len(found) == count > 0
    for norm, convolution in found.items():
        fold(model, norm, convolution)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in model.modules())
    torch.testing.assert_close(answers(model, family), before, rtol=1e-5, atol=1e-5)
    built = build(plan.model_copy(update={"folded": tuple(found)}))
    built.load_state_dict(model.state_dict())
    torch.testing.assert_close(answers(built.eval(), family), before, rtol=1e-5, atol=1e-5)
    places = units_of(model, plan)
    name = next(iter(places))
    silence(model, places[name], [0])
    before = answers(model, family)
    cut(model, places[name], range(1, places[name].count))
    torch.testing.assert_close(answers(model, family), before, rtol=1e-5, atol=1e-5)
