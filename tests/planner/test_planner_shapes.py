"""Shapes count what their models hold."""

from __future__ import annotations

import pytest

from thrifty import models
from thrifty.planner.declared import declared_dataset
from thrifty.planner.shapes import parameters_of, shape_of
from thrifty.spec import DeclaredData

TEXT = declared_dataset(DeclaredData(kind="language", tokens=10**6, vocabulary=1000, length=64))


@pytest.mark.parametrize("name", [name for name, recipe in models.MODELS.items() if recipe.family in {"gpt", "llama"}])
def test_a_shape_counts_the_parameters_of_its_model(name: str) -> None:
    plan = models.resolve(name, TEXT)
    shape = shape_of(plan)
    assert shape is not None
    assert parameters_of(shape) == sum(each.numel() for each in models.build(plan, "meta").parameters())
