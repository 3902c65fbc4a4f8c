"""The network for tables: its members, what it does not know, and that it learns what a line of pieces can say."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from thrifty.models.init import initialise
from thrifty.models.losses import LOSSES
from thrifty.models.tabular import Pieces, TableMLP


def net(outputs: int = 3, numbers: int = 2, codes: int = 2, members: int = 4) -> TableMLP:
    torch.manual_seed(0)
    model = TableMLP(
        numbers=numbers, codes=codes, vocabulary=7, outputs=outputs, members=members, pieces=8, embedding=4,
        widths=[16, 16], dropout=0.0,
    )  # fmt: skip
    initialise(model, "default", 0)
    return model


def rows(count: int, numbers: int = 2, codes: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    whole = torch.randint(7, (count, codes), generator=draw).float()
    return torch.cat([torch.rand(count, numbers, generator=draw), whole], 1)


@pytest.mark.parametrize(("numbers", "codes"), [(2, 2), (3, 0), (0, 2)])
@pytest.mark.parametrize("outputs", [1, 3])
def test_members_answer_alone_while_training_and_together_else(outputs: int, numbers: int, codes: int) -> None:
    model, x = net(outputs, numbers, codes), rows(5, numbers, codes)
    alone = model(x)
    assert alone.shape == (5, 4, outputs)
    assert alone.std(1).min() > 0
    together = model.eval()(x)
    assert together.shape == (5, outputs)
    mean = alone.mean(1) if outputs == 1 else alone.softmax(-1).mean(1).log()
    assert torch.allclose(together, mean, atol=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_loss_is_the_mean_of_the_members(outputs: int) -> None:
    model, x = net(outputs), rows(6)
    y = torch.arange(6) % 3 if outputs == 3 else torch.linspace(-1, 1, 6)
    task = "classify" if outputs == 3 else "regress"
    found, count = LOSSES[task](model, {"x": x, "y": y})
    each = [
        F.cross_entropy(member, y, reduction="sum") if outputs == 3 else ((member[:, 0] - y) ** 2).sum()
        for member in model(x).unbind(1)
    ]
    assert torch.allclose(found, torch.stack(each).mean(), rtol=1e-5)
    assert int(count) == 6


def test_an_answer_that_is_none_counts_for_nothing() -> None:
    model, x = net(1), rows(4)
    y = torch.tensor([0.5, math.nan, -1.0, math.nan])
    found, count = LOSSES["regress"](model, {"x": x, "y": y})
    wanted, _ = LOSSES["regress"](model, {"x": x[::2], "y": y[::2]})
    found.backward()
    assert torch.allclose(found, wanted)
    assert int(count) == 2
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


def test_what_is_not_known_says_nothing_and_stays_so() -> None:
    model = net()
    assert model.lookup is not None
    assert not model.lookup.weight[0].any()
    model(rows(8)).sum().backward()
    assert model.lookup.weight.grad is not None
    assert not model.lookup.weight.grad[0].any()


def test_pieces_bend_at_quantiles_alone() -> None:
    pieces = Pieces(1, 4, 2)
    x = torch.linspace(0, 1, 17)[:, None]
    with torch.no_grad():
        bends = pieces(x)[:, 0].diff(dim=0).diff(dim=0).abs().amax(1)
    at = {round(float(x[index + 1]), 4) for index in (bends > 1e-5).nonzero().flatten().tolist()}
    assert at == {0.25, 0.5, 0.75}


@pytest.mark.slow
def test_it_learns_a_step() -> None:
    model, x = net(2), rows(256)
    y = ((x[:, 0] > 0.3) & (x[:, 0] < 0.6)).long()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = LOSSES["classify"](model, {"x": x, "y": y})[0] / len(y)
        loss.backward()
        optimizer.step()
    assert (model.eval()(x).argmax(1) == y).float().mean() > 0.95
