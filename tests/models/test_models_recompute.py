"""Checkpointing from outside: what is learned is the same bit for bit, less is kept, and blocks found in any model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from thrifty.cost import trace_step
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


FAMILIES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "gpt": (GPT, (4, 16)),
    "llama": ({**GPT, "kv_heads": 2, "ffn": 48, "tied": True}, (4, 16)),
    "resnet": (
        {"stem": "cifar", "block": "basic", "shortcut": "project", "blocks": [2, 2], "widths": [8, 16],
         "channels": 3, "classes": 5},
        (6, 3, 12, 12),
    ),
    "mlp": ({"inputs": 48, "widths": [32, 32], "classes": 5}, (6, 3, 4, 4)),
}  # fmt: skip


def of_family(family: str, how: str) -> nn.Module:
    return recomputing(build(ModelPlan(name="tiny", family=family, arguments=FAMILIES[family][0])), how)


def after_steps(family: str, how: str, precision: str) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Gradients of two micro-batches, added up, and what a step then leaves of weights and buffers."""
    model, shape = of_family(family, how), FAMILIES[family][1]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        x = (
            torch.randint(0, 64, shape, generator=generator)
            if family in {"gpt", "llama"}
            else torch.rand(shape, generator=generator)
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(x).float().pow(2).mean()
        loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    optimizer.step()
    return gradients, model.state_dict()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("how", ["selective", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_the_same_bit_for_bit(family: str, how: str, precision: str) -> None:
    if family == "mlp":
        with pytest.raises(JobError, match="MLP has no repeated blocks"):
            of_family(family, how)
        return
    plain, again = after_steps(family, "none", precision), after_steps(family, how, precision)
    assert len(plain[0]) == len(again[0]) > 0
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again[0], plain[0], strict=True))
    assert list(plain[1]) == list(again[1])
    assert all(torch.equal(value, again[1][name]) for name, value in plain[1].items())
    if family == "resnet":
        assert again[1]["layer1.0.bn1.num_batches_tracked"] == 2
        assert again[1]["layer1.0.bn1.running_mean"].abs().sum() > 0


@pytest.mark.parametrize("how", ["selective", "full"])
def test_statistics_of_a_cumulative_average_are_counted_once(how: str) -> None:
    def make() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(
            *(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=None), nn.GELU()) for _ in range(2))
        )

    states = []
    for model in (make(), recomputing(make(), how)):
        for scale in (1.0, 3.0):
            model(scale * torch.arange(32.0).view(8, 4)).pow(2).sum().backward()
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
def test_full_keeps_less_than_selective_and_selective_less_than_none() -> None:
    def kept(how: str) -> int:
        trace = trace_step(
            lambda: recomputing(gpt(), how),
            lambda model, batch: (model(batch["x"]).sum(), 64),
            {"x": ((4, 16), "int64")},
            precision="fp32",
            optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        )
        return trace.activation_bytes

    assert kept("full") < kept("selective") < kept("none")


def test_the_last_call_counts_and_none_takes_it_away() -> None:
    model, plain = gpt(), [block.forward for block in repeated_blocks(gpt())]
    recomputing(recomputing(model, "full"), "selective")
    blocks = list(repeated_blocks(model))
    assert all(block.forward.once.__func__ is forward.__func__ for block, forward in zip(blocks, plain, strict=True))
    recomputing(model, "none")
    assert all(block.forward.__func__ is forward.__func__ for block, forward in zip(blocks, plain, strict=True))


def test_a_copy_computes_with_its_own_weights() -> None:
    model, tokens = recomputing(gpt(), "full"), torch.zeros(1, 16, dtype=torch.int64)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.h.parameters():  # type: ignore[union-attr]
            parameter.zero_()
    assert torch.equal(other(tokens), gpt()(tokens))
    assert not torch.equal(other(tokens), model(tokens))


def test_blocks_of_a_gpt_are_its_layers() -> None:
    assert [type(block).__name__ for block in repeated_blocks(gpt())] == ["Block"] * 3


def test_an_unknown_way_and_a_model_without_blocks_are_told() -> None:
    with pytest.raises(JobError, match=r"ful.*Did you mean 'full'"):
        recomputing(gpt(), "ful")
    with pytest.raises(JobError, match="no repeated blocks"):
        recomputing(nn.Linear(2, 2), "full")
    assert recomputing(nn.Linear(2, 2), "none") is not None
