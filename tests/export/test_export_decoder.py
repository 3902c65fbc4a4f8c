"""A decoder with keys and values outside: what it cannot hold is told."""

from __future__ import annotations

import pytest

from thrifty.errors import BundleError
from thrifty.export.targets.decoder import nothing_read
from thrifty.models import build
from thrifty.spec import ModelPlan

SIZES = {"vocabulary": 20, "length": 8, "layers": 2, "width": 16, "heads": 4}


def test_layers_with_heads_of_different_number_are_told() -> None:
    plan = ModelPlan(name="pico", family="gpt", arguments=SIZES)
    assert nothing_read(build(plan), 3).shape == (2, 3, 4, 0, 4)
    pruned = plan.model_copy(update={"kept": {"h.1.attn": 3}})
    with pytest.raises(BundleError, match=r"layers with 4, 3 heads of keys have no one tensor.*compressed from"):
        nothing_read(build(pruned), 3)
