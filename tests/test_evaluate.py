"""Evaluation counts what is right, sums the loss, and leaves the model as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from thrifty.errors import DataError
from thrifty.evaluate import evaluate, wilson

Batches = list[dict[str, np.ndarray]]


class Echo(nn.Module):
    """Answers with its input as logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def cut(x: np.ndarray, y: np.ndarray, size: int) -> Batches:
    return [{"x": x[i : i + size], "y": y[i : i + size]} for i in range(0, len(x), size)]


@settings(max_examples=30, deadline=None)
@given(samples=st.integers(1, 40), size=st.integers(1, 40), seed=st.integers(0, 99))
def test_classify_against_numpy_however_it_is_cut(samples: int, size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(samples, 3)).astype(np.float32), random.integers(0, 3, samples)
    done = evaluate(Echo(), cut(x, y, size), "classify")
    answers = x.argmax(1)
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (y, answers), 1)
    assert done.confusion == tuple(map(tuple, expected.tolist()))
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    assert done.metrics["loss"] == pytest.approx(-log_p[np.arange(samples), y].mean(), rel=1e-5)
    assert done.metrics["accuracy"] == pytest.approx((answers == y).mean())
    assert done.metrics["samples"] == samples
    assert 0 <= done.metrics["accuracy_low"] <= done.metrics["accuracy"] <= done.metrics["accuracy_high"] <= 1


def test_hidden_words_are_counted_where_they_are_asked_for() -> None:
    x_BTV = np.zeros((4, 6, 8), np.float32)
    x_BTV[..., 5] = 1.0
    y_BT = np.full((4, 6), -100)
    y_BT[0, :3], y_BT[3, 5] = 5, 2
    done = evaluate(Echo(), cut(x_BTV, y_BT, 3), "mask")
    assert done.metrics["words"] == 4
    assert done.metrics["accuracy"] == 0.75
    likely = -math.log(math.e / (math.e + 7))
    assert done.metrics["loss"] == pytest.approx((3 * likely + likely + 1) / 4, rel=1e-6)
    assert done.metrics["perplexity"] == pytest.approx(math.exp(done.metrics["loss"]))


def test_language_counts_tokens_and_bytes() -> None:
    x_BTV = np.zeros((4, 6, 8), np.float32)
    y_BT = np.zeros((4, 6), np.int64)
    y_BT[0, :3] = -100
    done = evaluate(Echo(), cut(x_BTV, y_BT, 3), "language", text_bytes=63)
    assert done.metrics["tokens"] == 21
    assert done.metrics["loss"] == pytest.approx(math.log(8))
    assert done.metrics["perplexity"] == pytest.approx(8)
    # 21 tokens of three bits each over 63 bytes
    assert done.metrics["bits_per_byte"] == pytest.approx(1)
    assert done.confusion == ()


def test_bits_need_the_bytes_and_perplexity_may_overflow() -> None:
    x_BTV = np.zeros((1, 2, 2), np.float32)
    x_BTV[..., 0] = 1e6
    metrics = evaluate(Echo(), cut(x_BTV, np.ones((1, 2), np.int64), 1), "language").metrics
    assert "bits_per_byte" not in metrics
    assert metrics["perplexity"] == math.inf and metrics["loss"] == pytest.approx(1e6)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = cut(np.ones((8, 3), np.float32), np.zeros(8, np.int64), 4)
    first, second = evaluate(model, batches, "classify"), evaluate(model, batches, "classify")
    assert first == second
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_mode_comes_back_after_an_error() -> None:
    model = nn.Linear(3, 2).train()
    with pytest.raises(RuntimeError):
        evaluate(model, cut(np.ones((2, 5), np.float32), np.zeros(2, np.int64), 2), "classify")
    assert model.training


def test_bf16_is_autocast() -> None:
    seen: list[torch.dtype] = []
    model = nn.Linear(4, 2)
    model.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    batches = cut(np.ones((2, 4), np.float32), np.zeros(2, np.int64), 2)
    for precision in ("fp32", "bf16"):
        evaluate(model, batches, "classify", precision=precision)
    assert seen == [torch.float32, torch.bfloat16]


def test_nothing_to_evaluate() -> None:
    with pytest.raises(DataError, match="there are no samples to evaluate on"):
        evaluate(Echo(), [], "classify")
    empty = cut(np.zeros((1, 2, 3), np.float32), np.full((1, 2), -100), 1)
    with pytest.raises(DataError, match="there are no samples to evaluate on"):
        evaluate(Echo(), empty, "language")


def test_wilson_against_published_values() -> None:
    """Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (right, samples), bounds in published.items():
        assert wilson(right, samples) == pytest.approx(bounds, abs=5e-5)


@settings(max_examples=30, deadline=None)
@given(samples=st.integers(2, 60), size=st.integers(1, 60), seed=st.integers(0, 99), spread=st.floats(0.01, 4))
def test_two_labels_are_ordered_as_pairs_are_counted(samples: int, size: int, seed: int, spread: float) -> None:
    random = np.random.default_rng(seed)
    x, y = (spread * random.normal(size=(samples, 2))).astype(np.float32), random.integers(0, 2, samples)
    done = evaluate(Echo(), cut(x, y, size), "classify")
    odds = x[:, 1] - x[:, 0]
    above = odds[y == 1][:, None] - odds[y == 0]
    expected = ((above > 0) + 0.5 * (above == 0)).mean() if above.size else 0.5
    assert done.metrics["auc"] == pytest.approx(
        expected, abs=0.5 / max(1, above.size) * (abs(above) < 2e-3).sum() + 1e-9
    )
    assert len(done.confusion) == 2


@settings(max_examples=30, deadline=None)
@given(samples=st.integers(2, 40), size=st.integers(1, 40), seed=st.integers(0, 99))
def test_numbers_are_measured_in_their_unit(samples: int, size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = (random.normal(size=samples).astype(np.float32) for _ in range(2))
    done = evaluate(Echo(), cut(x[:, None], y, size), "regress", unit=100.0)
    errors = x.astype(float) - y
    assert done.metrics["rmse"] == pytest.approx(100 * math.sqrt((errors**2).mean()), rel=1e-6)
    assert done.metrics["mae"] == pytest.approx(100 * abs(errors).mean(), rel=1e-6)
    assert done.metrics["r2"] == pytest.approx(1 - (errors**2).sum() / ((y - y.mean()) ** 2).sum(), rel=1e-4)
    assert done.metrics["loss"] == pytest.approx((errors**2).mean(), rel=1e-6)
    assert done.metrics["samples"] == samples
    assert done.confusion == ()
