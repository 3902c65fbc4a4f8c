"""Checkpointing from outside: the same gradients bit for bit, less kept, and blocks found in any model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thrifty.errors import JobError
from thrifty.models import build
from thrifty.models.recompute import CHECKPOINTING, recomputing, repeated_blocks
from thrifty.spec import ModelPlan

GPT = {"vocabulary": 64, "length": 16, "layers": 3, "width": 32, "heads": 4}


def gpt() -> nn.Module:
    return build(ModelPlan(name="tiny", family="gpt", arguments=GPT))


def dropping() -> nn.Module:
    return nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5), nn.GELU()) for _ in range(3)))


def gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(3)
    model(x).float().pow(2).mean().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("how", CHECKPOINTING)
def test_gradients_are_the_same_bit_for_bit(how: str) -> None:
    tokens = torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(0))
    for make, x in ((gpt, tokens), (dropping, torch.ones(8, 16))):
        torch.manual_seed(1)
        plain = make()
        torch.manual_seed(1)
        again = recomputing(make(), how)
        for ours, theirs in zip(gradients(again, x), gradients(plain, x), strict=True):
            assert torch.equal(ours, theirs)


def test_blocks_of_a_gpt_are_its_layers() -> None:
    assert [type(block).__name__ for block in repeated_blocks(gpt())] == ["Block"] * 3


def test_an_unknown_way_and_a_model_without_blocks_are_told() -> None:
    with pytest.raises(JobError, match=r"ful.*Did you mean 'full'"):
        recomputing(gpt(), "ful")
    with pytest.raises(JobError, match="no repeated blocks"):
        recomputing(nn.Linear(2, 2), "full")
    assert recomputing(nn.Linear(2, 2), "none") is not None
