"""Precision given from outside: which weights are held in bf16, and back again; fp8's layers and its errors."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import nn

from thrifty.errors import JobError, MissingExtraError
from thrifty.models.bert import BERT
from thrifty.models.gpt import GPT
from thrifty.models.precision import autocasting, check_fp8, convert_to_fp8, fp8_layers, in_fp32, with_precision
from thrifty.models.resnet import ResNet
from thrifty.spec import BF16_HELD

TORCHAO = importlib.util.find_spec("torchao") is not None
GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def gpt() -> GPT:
    torch.manual_seed(0)
    return GPT(vocabulary=40, length=8, layers=2, width=32, heads=2)


def resnet() -> ResNet:
    sizes: dict[str, Any] = {"stem": "cifar", "block": "basic", "shortcut": "project", "blocks": (1,), "widths": (8,)}
    return ResNet(**sizes, channels=3, classes=4)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_products_are_of_the_precision(precision: str, dtype: torch.dtype | None) -> None:
    with autocasting("cpu", precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (dtype or torch.float32)


@pytest.mark.parametrize("precision", BF16_HELD)
def test_weights_of_products_are_held_in_bf16_and_norms_and_statistics_are_not(precision: str) -> None:
    model = with_precision(resnet(), precision)
    kinds = {type(module): parameter.dtype for module in model.modules() for parameter in module.parameters(False)}
    assert kinds == {nn.Conv2d: torch.bfloat16, nn.BatchNorm2d: torch.float32, nn.Linear: torch.bfloat16}
    assert torch.bfloat16 not in {buffer.dtype for buffer in model.buffers()}


def test_weights_that_are_shared_stay_so_and_come_back_as_the_numbers_they_were() -> None:
    model = with_precision(gpt(), "bf16_compensated")
    names = [name for name, _ in model.named_parameters()]
    assert names == [name for name, _ in gpt().named_parameters()]
    held = {name: each.float() for name, each in model.state_dict().items()}
    back = in_fp32(model)
    assert {each.dtype for each in back.parameters()} == {torch.float32}
    assert [name for name, _ in back.named_parameters()] == names
    assert all(torch.equal(each, held[name]) for name, each in back.state_dict().items())


def test_gradients_of_several_micro_batches_are_float32() -> None:
    def gradient(*, accumulating: bool) -> torch.Tensor:
        model = with_precision(nn.Linear(4, 4), "bf16_stochastic", accumulating=accumulating)
        for _ in range(2):
            with autocasting("cpu", "bf16_stochastic"):
                model(torch.ones(2, 4)).float().sum().backward()
        assert model.weight.grad is not None
        return model.weight.grad

    assert gradient(accumulating=True).dtype == torch.float32
    assert gradient(accumulating=False).dtype == torch.bfloat16


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_other_precisions_leave_the_weights_alone(precision: str) -> None:
    model = gpt()
    before = list(model.parameters())
    assert all(one is other for one, other in zip(with_precision(model, precision).parameters(), before, strict=True))


def test_frozen_weights_are_not_held_in_bf16() -> None:
    model = gpt()
    model.h[0].requires_grad_(False)
    with pytest.raises(JobError, match="trained whole"):
        with_precision(model, "bf16_compensated")


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        (nn.Sequential(nn.Linear(32, 48), nn.Linear(48, 16)), ["0"]),  # the head is left out
        (nn.Sequential(nn.Linear(30, 48), nn.Linear(48, 40), nn.Linear(48, 16), nn.Linear(16, 16)), ["2"]),
        (nn.Sequential(nn.Embedding(16, 32), nn.Conv1d(16, 16, 1), nn.Linear(16, 16)), []),
        (gpt(), [f"h.{n}.{name}" for n in (0, 1) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")]),
        (
            BERT(vocabulary=32, length=8, layers=1, width=32, heads=2, classes=2),
            [f"blocks.0.{name}" for name in ("attention.qkv", "attention.proj", "mlp.up", "mlp.proj")],
        ),
    ],
)
def test_the_layers_of_fp8(model: nn.Module, layers: list[str]) -> None:
    assert fp8_layers(model) == layers


@pytest.mark.skipif(TORCHAO, reason="torchao is installed")
def test_fp8_names_the_extra_that_it_needs() -> None:
    with pytest.raises(MissingExtraError, match=r"thrifty\[fp8\]"):
        with_precision(gpt(), "fp8")


@pytest.mark.skipif(not TORCHAO, reason="torchao is not installed")
def test_fp8_needs_a_device_that_has_it() -> None:
    with pytest.raises(JobError, match="needs a GPU"):
        check_fp8("cpu")


@pytest.mark.skipif(not TORCHAO, reason="torchao is not installed")
@pytest.mark.filterwarnings("ignore")
def test_fp8_that_is_emulated_learns_and_leaves_plain_layers() -> None:
    model = convert_to_fp8(gpt(), emulate=True)
    converted = [name for name, each in model.named_modules() if type(each).__name__ == "Float8Linear"]
    assert converted == fp8_layers(gpt())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x = torch.arange(16).view(2, 8)
    losses = []
    for _ in range(20):
        with autocasting("cpu", "fp8"):
            loss = nn.functional.cross_entropy(model(x).float().flatten(0, 1), (x.flatten() + 1) % 40)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    kept = {name: each.clone() for name, each in model.state_dict().items()}
    plain = in_fp32(model)
    assert {type(each) for each in plain.modules() if isinstance(each, nn.Linear)} == {nn.Linear}
    assert all(torch.equal(each, kept[name]) for name, each in plain.state_dict().items())


@pytest.mark.parametrize("precision", [pytest.param("fp8", marks=GPU)])
@pytest.mark.skipif(not TORCHAO, reason="torchao is not installed")
@pytest.mark.filterwarnings("ignore")
def test_fp8_computes_on_a_gpu_that_has_it(precision: str) -> None:
    model = gpt().cuda()
    x = torch.arange(16, device="cuda").view(2, 8)
    with autocasting("cuda", "bf16"):
        expected = model(x).float()
    with_precision(model, precision)
    with autocasting("cuda", precision):
        found = model(x).float()
    assert (found - expected).norm() < 0.1 * expected.norm()
    found.sum().backward()
