"""What is particular to each optimizer of our own: against torch's where it has one, and against its paper."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from references import Valley, plan, steps
from torch import Tensor, nn

from thrifty.optim import build, evaluating
from thrifty.optim.adafactor import Adafactor
from thrifty.optim.eight_bit import AdamW8bit, levels
from thrifty.optim.muon import Muon, orthogonal
from thrifty.optim.soap import LONGEST_SIDE

SHAPES = ((6, 4), (4, 6), (5, 5), (5, 5))


def follow(own: Any, theirs: Any, shapes: Any, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    ours, others = ([nn.Parameter(each.clone()) for each in start] for _ in range(2))
    optimizers = own(ours), theirs(others)
    for _ in range(12):
        for one, other in zip(ours, others, strict=True):
            one.grad = torch.randn(one.shape, generator=generator, dtype=dtype)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    return ours, others


def test_adafactor_takes_the_steps_of_torchs() -> None:
    ours, others = follow(
        lambda params: Adafactor(params, lr=0.05, weight_decay=0.1),
        lambda params: torch.optim.Adafactor(params, lr=0.05, weight_decay=0.1),
        (*SHAPES, (7,), (3, 2, 4, 5)),
        torch.float64,
    )
    for one, other in zip(ours, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_muon_takes_the_steps_of_torchs() -> None:
    ours, others = follow(
        lambda params: Muon(params, lr=0.05, weight_decay=0.1),
        lambda params: torch.optim.Muon(params, lr=0.05, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        SHAPES,
        torch.float32,
    )
    for one, other in zip(ours, others, strict=True):
        # both iterate in bf16, in which they round differently
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 20, 5), (1, 5, 20)])
def test_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    x_KMN = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    before, after = (torch.linalg.svdvals(each.float()) for each in (x_KMN, orthogonal(x_KMN)))
    turned = after[before > 0.05 * before.amax()]
    assert bool((turned > 0.6).all()) and bool((turned < 1.3).all())


def test_a_convolution_is_its_matrix_in_any_memory_order() -> None:
    flat = nn.Parameter(torch.randn(4, 18, generator=torch.Generator().manual_seed(0)))
    deep = nn.Parameter(flat.detach().clone().view(4, 2, 3, 3).contiguous(memory_format=torch.channels_last))
    flat.grad = torch.randn(4, 18, generator=torch.Generator().manual_seed(1))
    deep.grad = flat.grad.clone().view(4, 2, 3, 3).contiguous(memory_format=torch.channels_last)
    for each in (flat, deep):
        Muon([each], lr=0.1).step()
    assert torch.equal(flat, deep.reshape(4, 18))


def test_the_average_of_schedule_free_is_measured_and_the_rest_is_trained() -> None:
    own, model = plan("schedule_free", learning_rate=0.01), Valley()
    optimizer = build(model, own)
    steps(model, optimizer, 30)
    training, state = model.w.detach().clone(), optimizer.state[model.w]
    with evaluating(optimizer):
        average = model.w.detach().clone()
        with pytest.raises(AssertionError, match="train"):
            optimizer.step()
    torch.testing.assert_close(model.w.detach(), training, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(0.1 * state["fast"] + 0.9 * average, training, rtol=1e-12, atol=1e-12)
    assert not torch.equal(average, training)


def test_other_optimizers_keep_their_weights() -> None:
    model = Valley()
    optimizer, before = build(model, plan("adamw")), model.w.detach().clone()
    with evaluating(optimizer):
        assert torch.equal(model.w, before)


def test_a_fault_while_measuring_brings_the_weights_back() -> None:
    model = Valley()
    optimizer = build(model, plan("schedule_free"))
    steps(model, optimizer, 3)
    with pytest.raises(RuntimeError, match="measuring"), evaluating(optimizer):
        raise RuntimeError("measuring")
    optimizer.step()


def test_levels_of_eight_bits_are_dense_near_zero_and_reach_one() -> None:
    for signed, low in ((True, -1.0), (False, 0.0)):
        found = levels(signed)
        assert len(found) == 256 and found == sorted(set(found)) and 0.0 in found
        assert (found[0] > low) == signed and found[-1] == 1.0


def test_eight_bits_stay_near_adamw() -> None:
    def trained(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Linear(64, 64)
        optimizer = build(model, plan(name, learning_rate=1e-3, weight_decay=0.01))
        for step in range(30):
            x = torch.randn(32, 64, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            (model(x) - x.flip(1)).pow(2).mean().backward()
            optimizer.step()
        return model, optimizer

    (own, optimizer), (exact, _) = trained("adamw_8bit"), trained("adamw")
    torch.manual_seed(0)
    start = nn.Linear(64, 64).weight
    moved = (exact.weight - start).norm()
    assert (own.weight - exact.weight).norm() < 0.1 * moved
    assert optimizer.state[own.weight]["first_codes"].dtype == torch.uint8
    # too small to be worth it
    assert optimizer.state[own.bias]["first"].dtype == torch.float32


def test_eight_bits_follow_their_rule_block_by_block() -> None:
    """Dettmers et al. 2022, sections 1.2 to 2.1, in float64: read, update, write as the nearest level."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(64, 64, generator=generator)
    parameter = nn.Parameter(start.clone())
    optimizer = AdamW8bit([parameter], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    w, codes = start.double(), {}
    tables = {name: torch.tensor(levels(name == "m"), dtype=torch.float64) for name in "ms"}
    for t in range(1, 13):
        g = torch.randn(64, 64, generator=generator)
        parameter.grad = g.clone()
        optimizer.step()
        blocks = g.double().view(16, 256)
        for name, keep, fresh in (("m", 0.9, blocks), ("s", 0.99, blocks**2)):
            read = tables[name][codes[name][0]] * codes[name][1] if codes.get(name) else torch.zeros_like(blocks)
            moment = keep * read + (1 - keep) * fresh
            scale = moment.abs().amax(dim=1, keepdim=True)
            nearest = ((moment / scale)[..., None] - tables[name]).abs().argmin(dim=-1)
            codes[name] = (nearest, scale, moment)
        update = codes["m"][2] / (1 - 0.9**t) / ((codes["s"][2] / (1 - 0.99**t)).sqrt() + 1e-8)
        w = w * (1 - 0.01 * 0.1) - 0.01 * update.view(64, 64)
        # where a moment lies between two levels fp32 may take the other one
        off = (parameter.detach().double() - w).abs() > 1e-4
        assert off.double().mean() < 0.002, t


def test_codes_of_eight_bits_survive_a_checkpoint() -> None:
    parameter = nn.Parameter(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
    parameter.grad = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    first, second = AdamW8bit([parameter], lr=0.01), AdamW8bit([parameter], lr=0.01)
    first.step()
    second.load_state_dict(first.state_dict())
    one, other = first.state[parameter], second.state[parameter]
    assert one.keys() == other.keys()
    for key in one.keys() - {"step"}:
        assert one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]), key


def test_soap_leaves_a_long_side_its_own_basis() -> None:
    parameter = nn.Parameter(torch.randn(4, LONGEST_SIDE + 1, generator=torch.Generator().manual_seed(0)))
    model = nn.Module()
    model.register_parameter("w", parameter)
    optimizer = build(model, plan("soap"))
    before = parameter.detach().clone()
    for step in range(12):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
        optimizer.step()
    assert {"left", "left_basis"} <= optimizer.state[parameter].keys()
    assert "right" not in optimizer.state[parameter]
    assert bool(parameter.isfinite().all()) and not torch.equal(parameter, before)
