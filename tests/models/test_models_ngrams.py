"""A bag of n-grams: which rows its runs have, and that padding and what is dropped change what they should."""

from __future__ import annotations

import pytest
import torch

from thrifty.models.ngrams import BASE, NGrams

SIZES = {"longest": 3, "buckets": 1009, "width": 4, "power": 0.5, "gain": 1.0, "classes": 2}


def model(**more: float) -> NGrams:
    torch.manual_seed(0)
    return NGrams(**SIZES, **more).eval()  # type: ignore[arg-type]


def test_runs_of_each_length_have_a_row() -> None:
    rows, real = model()._rows(torch.tensor([[5, 7, 0]]))
    first, second = 6 % 1009, 8 % 1009
    both = (first * BASE + 8) % 1009
    assert rows[real].tolist() == [first, second, both]
    assert real.tolist() == [[True, True, False, True, False, False, False, False, False]]


@pytest.mark.parametrize("buckets", [1009, 131_071, 524_287])
def test_what_is_exported_numbers_runs_alike_in_32_bits(buckets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = NGrams(**SIZES | {"buckets": buckets})  # type: ignore[arg-type]
    hashes, tokens = torch.randint(buckets, (2, 10_000)), torch.randint(1, 60_000, (2, 10_000))
    hashes[0, 0] = buckets - 1
    plain = found._appended(hashes, tokens)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)

    def divided(number: torch.Tensor, by: int, **_: str) -> torch.Tensor:
        # as OpenVINO divides: by numbers of 32 bits, rounded as floats are
        assert int(number.abs().max()) < 2**31
        return torch.floor(number.to(torch.float32) / by).to(torch.int64)

    monkeypatch.setattr(torch, "div", divided)
    assert torch.equal(found._appended(hashes, tokens), plain)


@pytest.mark.parametrize("padding", [1, 8])
def test_padding_changes_nothing(padding: int) -> None:
    tokens = torch.randint(1, 60, (3, 11))
    longer = torch.cat([tokens, torch.zeros(3, padding, dtype=torch.int64)], 1)
    assert torch.allclose(model()(longer), model()(tokens), atol=1e-7)


def test_order_counts_and_a_text_of_one_token_has_an_answer() -> None:
    tokens = torch.tensor([[3, 4, 5, 6]])
    assert not torch.allclose(model()(tokens), model()(tokens.flip(1)), atol=1e-6)
    assert model()(torch.tensor([[3]])).isfinite().all()


def test_dropout_is_of_training_alone() -> None:
    tokens = torch.randint(1, 60, (2, 9))
    dropping = model(dropout=0.5).train()
    assert not torch.equal(dropping(tokens), dropping(tokens))
    assert torch.equal(dropping.eval()(tokens), model()(tokens))
    assert model(dropout=0.99).train()(tokens).isfinite().all()


@pytest.mark.slow
def test_it_learns_by_order_alone() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(5, 9, (256, 6))
    y = (tokens[:, 2:] - tokens[:, :-2]).eq(0).any(1).long()
    learner = NGrams(longest=3, buckets=1009, width=8, power=1.0, gain=5.0, classes=2, dropout=0.0)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=0.03)
    for _ in range(120):
        loss = torch.nn.functional.cross_entropy(learner(tokens), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (learner(tokens).argmax(1) == y).float().mean() > 0.95
