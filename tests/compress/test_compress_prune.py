"""Pruning: importance is what a gate's gradient says, what does not matter goes first, and nothing else changes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
from small_models import ARGUMENTS, TASKS, batch_of, drawn, small_plan

from thrifty.compress.moves.importance import Importance, left_out, mean_loss, measure_importance
from thrifty.compress.moves.prune import choose, drop_layer, drop_layers, layers_of, prune, together
from thrifty.models import build
from thrifty.models.inputs import to_tensors
from thrifty.models.units import Units, units_of
from thrifty.spec import Task

FAMILIES = sorted(set(ARGUMENTS) - {"ngrams"})


def answers(model: nn.Module, family: str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(to_tensors(batch_of(family))["x"])
    return found


def silence(model: nn.Module, units: Units, gone: list[int]) -> None:
    (taker,) = [each for each in units.axes if each.dim == 1]
    with torch.no_grad():
        model.get_parameter(taker.tensor).index_fill_(1, taker.indices(units.count, gone), 0.0)


def task_of(family: str) -> Task:
    return "language" if TASKS[family] == "language" else "classify"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_units_without_effect_have_no_importance_and_go_first(family: str) -> None:
    plan = small_plan(family)
    model = drawn(plan)
    units = units_of(model, plan)
    quiet = {name: list(range(each.count // 2)) for name, each in units.items()}
    for name, gone in quiet.items():
        silence(model, units[name], gone)
    before = answers(model, family)
    found = measure_importance(model, units, [batch_of(family), batch_of(family, rows=3, seed=5)], task_of(family))
    for name, gone in quiet.items():
        scores = found[name].scores
        assert float(scores[gone].max()) <= 1e-6 * float(scores.max())
        loud = [unit for unit in range(units[name].count) if unit not in gone]
        assert float(scores[loud].max()) > 0
    silent = sum(len(gone) // (size := together(units[name])) * size * found[name].work for name, gone in quiet.items())
    share = silent / sum(each.count * found[name].work for name, each in units.items())
    kept = choose(units, found, share)
    for name, left in kept.items():
        gone = sorted(set(range(units[name].count)) - set(left))
        assert float(found[name].scores[gone].max()) <= 1e-6 * float(found[name].scores.max())
    assert kept
    slim = prune(model, plan, kept)
    torch.testing.assert_close(answers(model, family), before, rtol=1e-5, atol=1e-5)
    assert {name: len(left) for name, left in kept.items()} == slim.kept
    built = build(slim)
    built.load_state_dict(model.state_dict())
    torch.testing.assert_close(answers(built.eval(), family), before, rtol=1e-5, atol=1e-5)


def test_importance_is_what_the_loss_changes_by_as_a_unit_fades() -> None:
    """Against finite differences: each channel's inputs scaled by 1 + h in the weights that take them."""
    plan, family = small_plan("mlp"), "mlp"
    model = drawn(plan).double()
    units = units_of(model, plan)
    row = {key: each[:1] for key, each in batch_of(family).items()}
    single = drawn(plan)
    found = measure_importance(single, {"hidden.1": units["hidden.1"]}, [row], "classify")["hidden.1"].scores
    x, y = torch.from_numpy(row["x"]).double(), torch.from_numpy(row["y"])
    step = 1e-5
    for unit in range(0, 24, 5):
        losses = []
        for by in (1 - step, 1 + step):
            with torch.no_grad():
                weight = model.get_parameter("fc.weight")
                own = weight[:, unit].clone()
                weight[:, unit] *= by
                losses.append(float(nn.functional.cross_entropy(model(x), y)))
                weight[:, unit] = own
        assert float(found[unit]) == pytest.approx(abs(losses[1] - losses[0]) / (2 * step), rel=1e-3, abs=1e-7)


@st.composite
def places(draw: st.DrawFn) -> tuple[dict[str, Units], dict[str, Importance]]:
    units, importance = {}, {}
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["heads", "channels"]))
        count = draw(st.integers(2, 80 if kind == "channels" else 12))
        name = f"place{number}"
        units[name] = Units(name, kind, count, (), name)
        scores = draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
        importance[name] = Importance(torch.tensor(scores), draw(st.floats(1, 1000)))
    return units, importance


@pytest.mark.slow
@given(made=places(), share=st.floats(0.01, 0.95))
@settings(max_examples=60)
def test_never_more_goes_than_was_asked_and_the_least_goes(
    made: tuple[dict[str, Units], dict[str, Importance]], share: float
) -> None:
    units, importance = made
    kept = choose(units, importance, share)
    gone_work = 0.0
    for name, left in kept.items():
        each, scores = units[name], importance[name].scores
        gone = sorted(set(range(each.count)) - set(left))
        assert left == sorted(set(left)) and len(left) >= max(1, each.count / 8) and gone
        assert float(scores[gone].max()) <= float(scores[left].min())
        if each.kind == "channels" and each.count >= 16:
            assert len(left) % (16 if each.count >= 32 else 8) == 0
        gone_work += len(gone) * importance[name].work
    assert gone_work <= share * sum(importance[n].work * each.count for n, each in units.items()) * (1 + 1e-9)


DEEP = {
    "bert": {"layers": 3},
    "gpt": {"layers": 3},
    "llama": {"layers": 3},
    "vit": {"layers": 3},
    "speech": {"layers": 3},
    "resnet": {"blocks": [3, 3]},
    "bottleneck": {"blocks": [3, 2]},
}


@pytest.mark.parametrize("family", DEEP)
def test_a_layer_without_effect_can_go(family: str) -> None:
    plan = small_plan(family)
    plan = plan.model_copy(update={"arguments": {**plan.arguments, **DEEP[family]}})
    # what is known of layers behind it is known by their new names
    places = units_of(build(plan, device="meta"), plan)
    first = next(name for name in places if re.search(r"(blocks|h|layer1)\.2\.", name))
    plan = plan.model_copy(update={"kept": {first: places[first].count - 1}})
    model = drawn(plan)
    names = list(layers_of(model, plan))
    gone = names[1] if family not in {"resnet", "bottleneck"} else names[0]
    with left_out(model.get_submodule(gone)):
        before = answers(model, family)
        loss = mean_loss(model, [batch_of(family)], task_of(family))
    slim = drop_layer(model, plan, gone)
    torch.testing.assert_close(answers(model, family), before)
    assert mean_loss(model, [batch_of(family)], task_of(family)) == pytest.approx(loss, rel=1e-5)
    assert len(layers_of(model, slim)) == len(names) - 1
    built = build(slim)
    built.load_state_dict(model.state_dict())
    torch.testing.assert_close(answers(built.eval(), family), before)


def test_the_layer_goes_without_which_the_loss_is_least() -> None:
    plan = small_plan("bert")
    plan = plan.model_copy(update={"arguments": {**plan.arguments, "layers": 4}})
    batch, losses = batch_of("bert"), {}
    for name in layers_of(drawn(plan), plan):
        model = drawn(plan)
        drop_layer(model, plan, name)
        losses[name] = mean_loss(model, [batch], "classify")
    model = drawn(plan)
    slim, gone = drop_layers(model, plan, 1, (batch,), "classify")
    assert gone == [min(losses, key=lambda name: losses[name])]
    assert mean_loss(model, [batch], "classify") == pytest.approx(min(losses.values()), rel=1e-6)
    slimmer, more = drop_layers(model, slim, 2, (batch,), "classify")
    assert slimmer.arguments["layers"] == 1 and len(more) == 2
    assert layers_of(model, slimmer) == {}, "the last one stays"
