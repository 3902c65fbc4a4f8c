"""Several labels of a sample: F1 as scikit-learn counts it, however the samples are cut and dealt to ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from thrifty.evaluate import evaluate
from thrifty.evaluate.tagged import Tagged


class Echo(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Scikit-learn's figures, which take a second to load."""
    import sklearn.metrics

    return sklearn.metrics


@pytest.mark.slow
@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(2, 5))
def test_f1_is_scikit_learns(theirs: Any, seed: int, samples: int, labels: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(samples, labels)).astype(np.float32)
    y = (generator.random((samples, labels)) < 0.4).astype(np.float32)
    cut = samples // 2
    parts = [{"x": x[part], "y": y[part]} for part in (slice(cut), slice(cut, None)) if len(x[part])]
    found = evaluate(Echo(), parts, "tag").metrics
    micro = theirs.f1_score(y, x > 0, average="micro", zero_division=0)
    by_label = [theirs.f1_score(y[:, k], x[:, k] > 0, zero_division=np.nan) for k in range(labels)]
    seen = [each for each in by_label if not np.isnan(each)]
    assert found["micro_f1"] == pytest.approx(micro)
    assert found["macro_f1"] == pytest.approx(np.mean(seen) if seen else 0.0)
    whole = binary_cross_entropy_with_logits(torch.from_numpy(x), torch.from_numpy(y), reduction="sum")
    assert found["loss"] == pytest.approx(whole.item() / samples, rel=1e-5)
    assert found["samples"] == samples
    told = evaluate(Echo(), parts, "tag").by_label
    said, wanted = x > 0, y > 0
    assert np.array_equal(told, np.stack([(said & wanted).sum(0), said.sum(0), wanted.sum(0)], axis=1))


def test_ranks_add_up() -> None:
    x, y = torch.tensor([[2.0, -1.0], [0.5, 3.0], [-1.0, -1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    whole, first, second, idle = Tagged(), Tagged(), Tagged(), Tagged()
    whole.add(Echo(), {"x": x, "y": y})
    first.add(Echo(), {"x": x[:2], "y": y[:2]})
    second.add(Echo(), {"x": x[2:], "y": y[2:]})
    idle.add(Echo(), {"x": x})
    whole_figures = whole.evaluation().metrics
    whole.take(first.sums() + second.sums() + idle.sums())
    assert whole.count == 3
    assert whole.evaluation().metrics == pytest.approx(whole_figures)
