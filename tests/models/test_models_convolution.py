"""Convolutions by columns compute what torch's own do, in every product, and only where they were measured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from thrifty.models import build, convolution
from thrifty.models.convolution import PRODUCTS, Convolution, geometry, has_ways, use_convolution
from thrifty.models.recompute import recomputing
from thrifty.spec import ModelPlan

LAST = torch.channels_last
EVERY = [(product,) for product in PRODUCTS] + [PRODUCTS]


def trained(
    module: nn.Conv2d, x_BCHW: Tensor, by: tuple[str, ...], *, autocast: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and the gradients of input and weight, of a sum whose gradient is not the same everywhere."""
    dtype = torch.bfloat16 if autocast else x_BCHW.dtype
    use_convolution(module, {geometry(module, x_BCHW.shape[2:], dtype): by} if by else {})
    x = x_BCHW.detach().clone(memory_format=LAST).requires_grad_()
    module.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = module(x)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape))
    assert x.grad is not None and module.weight.grad is not None
    return out.detach(), x.grad, module.weight.grad


def pair(smallest: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(smallest, most), st.integers(smallest, most))


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=pair(1, 5),
    window=pair(1, 4),
    stride=pair(1, 3),
    padding=pair(0, 3),
    more=pair(0, 6),
    bias=st.booleans(),
    by=st.sampled_from(EVERY),
)
def test_every_product_is_torchs_own(
    batch: int,
    channels: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    more: tuple[int, int],
    bias: bool,
    by: tuple[str, ...],
) -> None:
    module = nn.Conv2d(*channels, window, stride, padding, bias=bias).double().to(memory_format=LAST)
    sizes = [wide + extra for wide, extra in zip(window, more, strict=True)]
    x_BCHW = torch.randn(batch, channels[0], *sizes, dtype=torch.float64)
    for ours, theirs in zip(trained(module, x_BCHW, by), trained(module, x_BCHW, ()), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("by", EVERY)
def test_in_bf16_it_is_about_as_near_to_the_exact_gradient(by: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(32, 16, 3, padding=1).to(memory_format=LAST)
    x_BCHW = torch.randn(8, 32, 4, 4)
    exact = trained(module, x_BCHW, ())
    ours, theirs = (trained(module, x_BCHW, each, autocast=True) for each in (by, ()))
    for mine, its, true in zip(ours, theirs, exact, strict=True):
        assert mine.dtype == its.dtype
        assert (mine - true).norm() <= 1.5 * (its - true).norm()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Which products were computed by columns."""
    calls: list[str] = []
    for name in ("result", "input_gradient", "weight_gradient"):
        whole = getattr(convolution, name)

        def count(*given: object, name: str = name, whole: object = whole) -> object:
            calls.append(name)
            return whole(*given)  # type: ignore[operator]

        monkeypatch.setattr(convolution, name, count)
    yield calls


def test_only_what_was_measured_goes_by_columns(counted: list[str]) -> None:
    module = nn.Conv2d(4, 4, 3, padding=1).to(memory_format=LAST)
    ways = {geometry(module, (4, 4), torch.float32): PRODUCTS}
    use_convolution(module, ways)
    x_BCHW = torch.randn(2, 4, 4, 4).to(memory_format=LAST).requires_grad_()
    module(x_BCHW).sum().backward()
    assert counted == ["result", "input_gradient", "weight_gradient"]
    counted.clear()
    module(torch.randn(2, 4, 5, 4).to(memory_format=LAST)).sum().backward()  # another size
    module.double()(x_BCHW.double()).sum().backward()  # another dtype
    module.float()(torch.randn(2, 4, 4, 4)).sum().backward()  # images lie otherwise
    module.eval()(x_BCHW).sum().backward()
    with torch.no_grad():
        module.train()(x_BCHW)
    assert counted == []
    module.weight.requires_grad_(False)
    module(x_BCHW).sum().backward()
    assert counted == ["result", "input_gradient"]


@pytest.mark.parametrize(
    ("module", "able"),
    [
        (nn.Conv2d(2, 2, 3), True),
        (nn.Conv2d(2, 2, 3, groups=2), False),
        (nn.Conv2d(2, 2, 3, dilation=2), False),
        (nn.Conv2d(2, 2, 3, padding="same"), False),
        (nn.Conv2d(2, 2, 3, padding_mode="reflect"), False),
        (nn.Conv1d(2, 2, 3), False),
        (nn.LazyConv2d(2, 3), False),
    ],
)
def test_what_it_is_for(module: nn.Module, able: bool) -> None:
    assert has_ways(module) is able
    before = type(module)
    use_convolution(module, {"any": ("weight",)})
    assert type(module) is (Convolution if able else before)
    assert type(use_convolution(module, {})) is before


@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_a_resnet_by_columns_learns_as_it_is(checkpointing: str) -> None:
    arguments = {
        "stem": "cifar", "block": "basic", "shortcut": "project", "blocks": (2, 2), "widths": (4, 8), "channels": 3,
        "classes": 5,
    }  # fmt: skip
    plain = ModelPlan(name="r", family="resnet", arguments=arguments)
    x_BCHW = torch.randn(3, 3, 8, 8, dtype=torch.float64).to(memory_format=LAST)
    plans = [plain, plain.model_copy(update={"convolution": dict.fromkeys(_geometries(plain), PRODUCTS)})]
    models = [build(each).double().to(memory_format=LAST) for each in plans]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        recomputing(model, checkpointing)(x_BCHW).square().sum().backward()
    assert sum(isinstance(each, Convolution) for each in models[1].modules()) == 10
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12)


def _geometries(plan: ModelPlan) -> list[str]:
    found: list[str] = []
    model = build(plan).double()
    for each in model.modules():
        if isinstance(each, nn.Conv2d):
            each.register_forward_pre_hook(lambda m, x: found.append(geometry(m, x[0].shape[2:], x[0].dtype)))
    model(torch.randn(3, 3, 8, 8, dtype=torch.float64))
    return found
