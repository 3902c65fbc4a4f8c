"""Models at other sizes: every family that can be had at one, at its own size too, and names that cannot be meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.errors import JobError
from thrifty.models.sized import Shape, name_of, shape_of, split_name
from thrifty.models.table import MODELS, check_name, recipe_of

GROWING = [name for name, recipe in MODELS.items() if shape_of(recipe.family, recipe.arguments) is not None]


@pytest.mark.parametrize("name", GROWING)
def test_at_its_own_size_a_model_is_itself(name: str) -> None:
    own = shape_of(MODELS[name].family, MODELS[name].arguments)
    assert own is not None
    assert recipe_of(name_of(name, own)).arguments == MODELS[name].arguments


@given(st.integers(1, 40), st.integers(1, 64), st.sampled_from(["gpt-nano", "llama-mini", "bert-tiny", "vit-mini"]))
def test_a_name_gives_the_size_that_it_says(layers: int, heads: int, base: str) -> None:
    own = MODELS[base].arguments
    width = heads * own["width"] // own["heads"]
    found = recipe_of(f"{base}@{layers}x{width}").arguments
    assert (found["layers"], found["width"], found["heads"]) == (layers, width, heads)
    if "kv_heads" in own:
        assert heads % found["kv_heads"] == 0
        assert found["kv_heads"] <= max(1, heads * own["kv_heads"] / own["heads"])


def test_heads_may_be_given() -> None:
    assert recipe_of("gpt-nano@3x96x6").arguments == {"layers": 3, "width": 96, "heads": 6}
    assert recipe_of("mlp-small@2x64").arguments == {"widths": (64, 64)}
    assert recipe_of("resnet20@1x8").arguments["widths"] == (8, 16, 32)
    assert split_name(name_of("vit-nano", Shape(1, 32, 1))) == ("vit-nano", "1x32x1")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpt-nano@", "gives a size that cannot be read"),
        ("gpt-nano@3", r"gives a size that cannot be read.*gpt-nano@4x192x4"),
        ("gpt-nano@0x96", "gives a size that cannot be read"),
        ("gpt-nano@3x96x", "gives a size that cannot be read"),
        ("gpt-nano@3x97", "does not divide into heads of 48"),
        ("gpt-nano@3x96x7", "does not divide into heads: 7"),
        ("gpt-nano@3x9999999", "Write a smaller number"),
        ("mlp-small@2x64x2", "gives heads, and 'mlp-small' has none"),
        ("resnet50@3x64", "which this one cannot have"),
        ("gpt-nona@3x96", r"unknown model 'gpt-nona'. Did you mean 'gpt-nano'"),
    ],
)
def test_a_size_that_cannot_be_meant_is_told(name: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        check_name(name)
