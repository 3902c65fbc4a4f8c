"""Answers shared out among classes: rows add up, and a model is trained by them as by its classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thrifty.data.answers import shares_of, smoothed
from thrifty.models.losses import sum_cross_entropy


@given(
    classes=st.integers(2, 9),
    smoothing=st.floats(0, 0.99),
    rows=st.lists(st.tuples(st.integers(-1, 8), st.integers(0, 8), st.floats(0, 1, width=32)), min_size=1, max_size=20),
)
def test_rows_add_up(classes: int, smoothing: float, rows: list[tuple[int, int, float]]) -> None:
    first, second, own = (np.array(column) for column in zip(*rows, strict=True))
    y = np.where(first < 0, -100, first % classes)
    found = smoothed(shares_of(y, classes, second % classes, own.astype(np.float32)), smoothing)
    assert found.sum(1) == pytest.approx((y != -100).astype(float), abs=1e-5)
    assert (found >= 0).all()


def test_the_loss_of_sure_answers_is_that_of_classes() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 5)
    x, y = torch.randn(6, 4), np.array([0, 1, 2, -100, 4, 0])
    sure = {"x": x, "y": torch.from_numpy(y)}
    shared = {**sure, "answers": torch.from_numpy(shares_of(y, 5))}
    assert sum_cross_entropy(model, shared).item() == pytest.approx(sum_cross_entropy(model, sure).item(), rel=1e-6)


def test_smoothing_is_that_of_torch() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 5), torch.randn(6, 4), np.array([0, 1, 2, 3, 4, 0])
    answers = torch.from_numpy(smoothed(shares_of(y, 5), 0.2))
    wanted = nn.functional.cross_entropy(model(x), torch.from_numpy(y), label_smoothing=0.2, reduction="sum")
    found = sum_cross_entropy(model, {"x": x, "y": torch.from_numpy(y), "answers": answers})
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
