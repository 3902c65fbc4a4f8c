"""Low rank: the whole rank changes nothing, a part of it errs as measured and least, and by what inputs are like."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
from small_models import ARGUMENTS, batch_of, drawn, small_plan

from thrifty.compress.moves.low_rank import choose_ranks, factor_layer, low_rank, second_moments, spectrum
from thrifty.models import build
from thrifty.models.inputs import to_tensors


def layer_and_inputs(rank: int = 40) -> tuple[nn.Linear, torch.Tensor]:
    """A layer of 40 to 56, and inputs of so many directions, of strengths that fall."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(40, 56)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(56, 40, generator=generator))
    strengths = 0.8 ** torch.arange(40)
    strengths[rank:] = 0
    mixed = torch.linalg.qr(torch.randn(40, 40, generator=generator)).Q
    return layer, torch.randn(500, 40, generator=generator) * strengths @ mixed


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(ARGUMENTS)))
def test_the_whole_rank_changes_nothing(family: str) -> None:
    plan = small_plan(family)
    model = drawn(plan)
    x = to_tensors(batch_of(family))["x"]
    with torch.no_grad():
        before = model(x)
    moments = second_moments(model, [batch_of(family)])
    assert moments
    ranks = {}
    for name, moment in moments.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        ranks[name] = min(layer.weight.shape)
        factor_layer(model, name, spectrum(layer.weight, moment), ranks[name])
    with torch.no_grad():
        torch.testing.assert_close(model(x), before, rtol=1e-3, atol=2e-4)
    built = build(plan.model_copy(update={"ranks": ranks}))
    built.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(built.eval()(x), model(x))


@pytest.mark.parametrize("rank", [1, 5, 12, 39])
def test_the_error_is_as_told_and_less_than_without_the_inputs(rank: int) -> None:
    layer, x = layer_and_inputs()
    found = spectrum(layer.weight, x.T @ x / len(x))
    model = nn.Sequential(layer)
    factor_layer(model, "0", found, rank)
    with torch.no_grad():
        wanted = x @ layer.weight.T
        error = float((model(x) - layer.bias - wanted).square().sum() / wanted.square().sum())
        u, s, v = torch.linalg.svd(layer.weight)
        blind = x @ (u[:, :rank] * s[:rank] @ v[:rank]).T
        blind_error = float((blind - wanted).square().sum() / wanted.square().sum())
    assert error == pytest.approx(found.error(rank), rel=1e-3, abs=1e-6)
    assert error < blind_error


def test_the_rank_is_the_least_within_the_tolerance() -> None:
    layer, x = layer_and_inputs()
    found = spectrum(layer.weight, x.T @ x / len(x))
    for tolerance in (0.5, 0.1, 0.01, 1e-4):
        rank = found.rank_within(tolerance)
        assert found.error(rank) <= tolerance < found.error(rank - 1)
    assert found.rank_within(0.0) == 40
    assert found.error(40) == 0


def test_what_inputs_never_took_costs_no_rank() -> None:
    layer, x = layer_and_inputs(rank=6)
    found = spectrum(layer.weight, x.T @ x / len(x))
    assert found.rank_within(1e-4) <= 6
    model = nn.Sequential(layer)
    with torch.no_grad():
        before = model(x)
        factor_layer(model, "0", found, 6)
        assert float((model(x) - before).square().sum() / before.square().sum()) < 1e-4


def test_a_layer_is_factored_where_that_is_less_work() -> None:
    plan = small_plan("bert")
    model = drawn(plan)
    with torch.no_grad():
        # of rank two, so that four numbers in five are saved
        up = model.get_submodule("blocks.0.mlp.up")
        assert isinstance(up, nn.Linear)
        u, s, v = torch.linalg.svd(up.weight, full_matrices=False)
        up.weight.copy_(u[:, :2] * s[:2] @ v[:2])
    x = to_tensors(batch_of("bert"))["x"]
    with torch.no_grad():
        before = model(x)
    chosen = choose_ranks(model, second_moments(model, [batch_of("bert", rows=64)]), 1e-6)
    assert chosen["blocks.0.mlp.up"][0] == 2
    count = sum(each.numel() for each in model.parameters())
    slim, errors = low_rank(model, plan, [batch_of("bert", rows=64)], 1e-6)
    assert slim.ranks == {name: rank for name, (rank, _) in chosen.items()}
    assert max(errors.values()) <= 1e-6
    assert sum(each.numel() for each in model.parameters()) < count
    with torch.no_grad():
        torch.testing.assert_close(model(x), before, rtol=1e-2, atol=1e-2)
