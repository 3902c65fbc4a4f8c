"""Sparsity: as many zeros as asked where weights matter least; and folding, which changes no answer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
from small_models import batch_of, drawn, small_plan

from thrifty.compress.moves.fold import fold_norms, foldable
from thrifty.compress.moves.sparse import packed_bytes, sparsify
from thrifty.models import build
from thrifty.models.inputs import to_tensors


@pytest.mark.parametrize("family", ["bert", "llama", "resnet", "mlp"])
def test_half_of_each_output_becomes_zero(family: str) -> None:
    model = drawn(small_plan(family))
    packed = packed_bytes(dict(model.state_dict()))
    zeros = sparsify(model, [batch_of(family)], "any", 0.5)
    assert zeros
    for name, share in zeros.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        per_output = (layer.weight.flatten(1) == 0).sum(1)
        assert per_output.unique().tolist() == [layer.weight[0].numel() // 2]
        assert share == pytest.approx(0.5, abs=0.03)
    assert packed_bytes(dict(model.state_dict())) < 0.75 * packed


def test_of_four_inputs_two_stay_where_they_divide_by_four() -> None:
    model = drawn(small_plan("resnet"))
    zeros = sparsify(model, [batch_of("resnet")], "2:4")
    # the first convolution sees 27 numbers
    assert "conv1" not in zeros and "fc" in zeros
    for name in zeros:
        weight = model.get_parameter(f"{name}.weight").flatten(1)
        assert ((weight.unflatten(1, (-1, 4)) == 0).sum(-1) == 2).all()


def test_small_inputs_make_weights_matter_less() -> None:
    plan = small_plan("mlp")
    model = drawn(plan)
    batch = batch_of("mlp", rows=32)
    batch["x"][:, 0] *= 1e-3
    sparsify(model, [batch], "any", 1 / 3)
    quiet, loud = model.get_parameter("hidden.0.weight").split((256, 512), dim=1)
    assert float((quiet == 0).float().mean()) > 0.98
    assert float((loud == 0).float().mean()) < 0.02


@pytest.mark.parametrize("family", ["resnet", "bottleneck", "fast_convnet"])
def test_folding_changes_no_answer(family: str) -> None:
    plan = small_plan(family)
    model = drawn(plan)
    x = to_tensors(batch_of(family))["x"]
    with torch.no_grad():
        before = model(x)
        folded = fold_norms(model, plan)
        torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    assert foldable(model, folded) == {}
    built = build(folded)
    built.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(built.eval()(x), before, rtol=1e-5, atol=1e-5)


def test_a_scale_below_zero_before_a_maximum_stays() -> None:
    plan = small_plan("fast_convnet")
    model = drawn(plan)
    with torch.no_grad():
        model.get_parameter("groups.0.bn1.weight")[3] = -0.5
        model.get_parameter("groups.0.bn2.weight")[3] = -0.5
    x = to_tensors(batch_of("fast_convnet"))["x"]
    with torch.no_grad():
        before = model(x)
        folded = fold_norms(model, plan)
        torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    assert set(folded.folded) == {"groups.0.bn2", "groups.1.bn1", "groups.1.bn2"}


def test_models_without_batch_norms_have_nothing_to_fold() -> None:
    for family in ("bert", "vit", "mlp", "speech"):
        plan = small_plan(family)
        assert foldable(build(plan), plan) == {}
