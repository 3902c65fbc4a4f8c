"""Training the rows used alone is AdamW on all rows, whatever is read when."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from thrifty.errors import JobError
from thrifty.optim.rows import UsedRows, use_rows

ROWS, WIDTH = 23, 4


class Reader(nn.Module):
    """Tokens [B, T] to numbers [B]; the embedding is all there is to learn, beside a linear layer."""

    def __init__(self, padding: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(ROWS, WIDTH, padding_idx=padding)
        self.fc = nn.Linear(WIDTH, 1)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        out: Tensor = self.fc(torch.tanh(self.tokens(tokens_BT)).mean(1)).squeeze(1)
        return out


def trained(model: Reader, decay: float = 0.1) -> torch.optim.AdamW:
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.98), fused=True)


def step(
    model: Reader, optimizer: torch.optim.AdamW, parts: list[np.ndarray], rate: float, used: list[UsedRows]
) -> None:
    for each in used:
        each.take(parts)
    for part in parts:
        tokens_BT = torch.from_numpy(part)
        (model(tokens_BT) - tokens_BT.double().mean(1) / ROWS).square().sum().backward()
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def rates(count: int) -> list[float]:
    return [0.01 * min(1, (t + 1) / 5) * (1 + math.cos(math.pi * t / count)) / 2 for t in range(count)]


def drawn(seed: int, count: int, parts: int = 1, rows: int = ROWS) -> list[list[np.ndarray]]:
    """Steps of tokens; some rows come often, some seldom, some never."""
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.full(rows, 0.3))
    return [[generator.choice(rows, (2, 3), p=shares) for _ in range(parts)] for _ in range(count)]


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1000),
    parts=st.integers(1, 3),
    decay=st.sampled_from([0.0, 0.1]),
    padding=st.sampled_from([None, 0]),
)
def test_the_trajectory_is_that_of_adamw_on_all_rows(seed: int, parts: int, decay: float, padding: int | None) -> None:
    whole, thin = Reader(padding).double(), Reader(padding).double()
    optimizers = trained(whole, decay), trained(thin, decay)
    used = use_rows(thin, optimizers[1], ROWS)
    assert len(used) == 1
    every = torch.arange(ROWS)[:, None]
    for index, (batches, rate) in enumerate(zip(drawn(seed, 50, parts), rates(50), strict=True)):
        step(whole, optimizers[0], batches, rate, [])
        step(thin, optimizers[1], batches, rate, used)
        if index % 7 == 0:
            with torch.no_grad():
                torch.testing.assert_close(thin(every), whole(every), rtol=1e-6, atol=1e-8)
    for each in used:
        each.release()
    for (name, got), (_, wanted) in zip(thin.state_dict().items(), whole.state_dict().items(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-8, msg=lambda says, name=name: f"{name}: {says}")


def test_a_resumed_training_ends_with_the_same_bits() -> None:
    steps = list(zip(drawn(3, 30), rates(30), strict=True))
    model = Reader()
    optimizer = trained(model)
    used = use_rows(model, optimizer, ROWS)
    for batches, rate in steps[:13]:
        step(model, optimizer, batches, rate, used)
    kept = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, kept)
    for batches, rate in steps[13:]:
        step(model, optimizer, batches, rate, used)

    other = Reader()
    again = trained(other)
    used_again = use_rows(other, again, ROWS)
    content = torch.load(io.BytesIO(kept.getvalue()), weights_only=True)
    other.load_state_dict(content["model"])
    again.load_state_dict(content["optimizer"])
    for batches, rate in steps[13:]:
        step(other, again, batches, rate, used_again)
    for each in (*used, *used_again):
        each.release()
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_row_that_is_never_read_stays_sound_for_ever() -> None:
    model = Reader()
    optimizer = trained(model)
    (used,) = use_rows(model, optimizer, ROWS)
    step(model, optimizer, [np.array([[3, 5]])], 1e-3, [used])
    # as after a million steps without it, when powers of the betas leave the range of float32
    optimizer.state[used.leaf]["missed"] += 1e6
    step(model, optimizer, [np.array([[3, 5]])], 1e-3, [used])
    used.release()
    assert torch.isfinite(model.tokens.weight).all()


def test_the_gradient_holds_the_rows_used_alone() -> None:
    model = Reader()
    optimizer = trained(model)
    (used,) = use_rows(model, optimizer, ROWS)
    used.take([np.array([[3, 5, 3]])])
    model(torch.tensor([[3, 5, 3]])).sum().backward()
    assert used.leaf.grad is not None and used.leaf.grad.shape == (2, WIDTH)
    assert model.tokens.weight.grad is None
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == 2 * WIDTH + WIDTH + 1


def test_a_row_that_was_not_told_of_is_an_error() -> None:
    model = Reader()
    (used,) = use_rows(model, trained(model), ROWS)
    used.take([np.array([[3, 5]])])
    with pytest.raises(IndexError):
        model(torch.tensor([[3, 4]]))


def test_a_weight_that_is_shared_is_left_as_it_is() -> None:
    model = Reader()
    model.head = nn.Linear(WIDTH, ROWS, bias=False)
    model.head.weight = model.tokens.weight
    assert use_rows(model, trained(model), ROWS) == []
    assert model.tokens.weight.requires_grad


def test_another_optimizer_is_refused() -> None:
    model = Reader()
    with pytest.raises(JobError, match=r"adamw, not by sgd.*plan\.rows"):
        use_rows(model, torch.optim.SGD(model.parameters(), lr=0.1), ROWS)
