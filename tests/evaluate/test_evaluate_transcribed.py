"""Word and character error rates, worked by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from thrifty.evaluate import evaluate
from thrifty.evaluate.transcribed import edits

SYMBOLS = (" ", "a", "b", "c")


class Says(nn.Module):
    """Says, for each recording, the tokens that its frames spell."""

    def forward(self, x: Tensor) -> Tensor:
        return 20.0 * torch.eye(len(SYMBOLS) + 1)[x[..., 0].long()]


def measured(said: list[str], wanted: list[str]) -> dict[str, float]:
    number = {symbol: place for place, symbol in enumerate(SYMBOLS, start=1)}
    frames, length = max(map(len, said)) * 2 + 1, max(map(len, wanted))
    x, y = torch.zeros(len(said), frames, 1), torch.full((len(said), length), -100)
    for row, (one, other) in enumerate(zip(said, wanted, strict=True)):
        # a blank after each token, so that the same twice are two
        for at, symbol in enumerate(one):
            x[row, 2 * at, 0] = number[symbol]
        y[row, : len(other)] = torch.tensor([number[symbol] for symbol in other])
    batches = [{"x": x.numpy(), "y": y.numpy()}]
    return evaluate(Says(), batches, "transcribe", labels=SYMBOLS).metrics


def test_rates_are_edits_over_what_should_have_been_said() -> None:
    found = measured(["aa b", "ab", "c a"], ["aa b", "a b", "c"])
    # one word for two is a substitution and a deletion, one too many an insertion: 3 of 5 words
    assert found["wer"] == pytest.approx(3 / 5)
    # a lost space, and two characters too many: 3 of 8
    assert found["cer"] == pytest.approx(3 / 8)
    assert found["whole"] == pytest.approx(1 / 3)
    assert (found["tokens"], found["samples"]) == (8, 3)
    assert found["loss"] > 0


def test_what_is_right_has_no_errors_and_hardly_a_loss() -> None:
    found = measured(["ab ab", "c"], ["ab ab", "c"])
    assert (found["wer"], found["cer"], found["whole"]) == (0, 0, 1)
    assert found["loss"] < 1e-3


@given(st.text("abc", max_size=8), st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_edits_are_a_distance(one: str, two: str, three: str) -> None:
    assert edits(one, two) == edits(two, one)
    assert (edits(one, two) == 0) == (one == two)
    assert edits(one, three) <= edits(one, two) + edits(two, three)
    assert abs(len(one) - len(two)) <= edits(one, two) <= max(len(one), len(two))
