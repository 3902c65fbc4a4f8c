"""Traces against closed forms, against real tensors, and against what cannot be traced."""

from __future__ import annotations

import gc
import math
import resource
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import real_step
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from thrifty import optim
from thrifty.cost import Trace, trace_step
from thrifty.cost.ops import tensors_in, touched_bytes, traffic
from thrifty.errors import JobError
from thrifty.models import MODELS, build
from thrifty.models.inputs import MEMORY_FORMATS
from thrifty.models.losses import cross_entropy
from thrifty.models.recompute import recomputing
from thrifty.spec import ModelPlan

aten = torch.ops.aten


def summed(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    return model(batch["x"]).float().sum(), 1


def trace(
    make: Callable[[], nn.Module], *shape: int, precision: Any = "fp32", dtype: str = "float32", **more: Any
) -> Trace:
    batch = {"x": (shape, dtype)}
    return trace_step(make, summed, batch, precision=precision, optimizer=optim.by_name("momentum"), **more)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64), st.sampled_from(["fp32", "bf16"]))
def test_linear_is_2mnk_forward_and_twice_that_backward(rows: int, inputs: int, outputs: int, precision: str) -> None:
    stack = trace(
        lambda: nn.Sequential(nn.Linear(inputs, inputs), nn.Linear(inputs, outputs)), rows, inputs, precision=precision
    )
    first, second = 2 * rows * inputs * inputs, 2 * rows * inputs * outputs
    assert stack.forward_flops == first + second
    # the first layer's input needs no gradient
    assert stack.backward_flops == 2 * (first + second) - first


@pytest.mark.parametrize(("stride", "groups", "side"), [(1, 1, 8), (2, 1, 4), (1, 4, 8)])
def test_convolution_by_its_closed_form(stride: int, groups: int, side: int) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 16, 3, stride, 1, groups=groups))

    found = trace(make, 5, 4, 8, 8)
    pointwise = 2 * 5 * 8 * 8 * 4 * 8
    second = 2 * 5 * side * side * 16 * (8 // groups) * 9
    assert found.forward_flops == pointwise + second
    assert found.backward_flops == pointwise + 2 * second


def test_fused_attention_is_two_products_forward_and_five_backward() -> None:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x_BHTD: Tensor) -> Tensor:
            x_BHTD = x_BHTD * self.scale
            return F.scaled_dot_product_attention(x_BHTD, x_BHTD, x_BHTD, is_causal=True)

    found = trace(Attend, 2, 3, 16, 8)
    product = 2 * 2 * 3 * 16 * 16 * 8
    assert found.forward_flops == 2 * product
    assert found.backward_flops == 5 * product
    assert {op.kind for op in found.ops if op.flops} == {"attention"}


@pytest.mark.slow
def test_gpt_is_six_flops_a_parameter_and_token() -> None:
    found = real_step.trace_case("gpt")
    plan = real_step.model_plan("gpt")
    tokens, length, width, layers = 8 * 256, 256, plan.arguments["width"], plan.arguments["layers"]
    # parameters in matrix products: the tied head counts, positions do not
    products = found.parameters - length * width
    attention = layers * 7 * 2 * tokens * length * width
    assert found.forward_flops + found.backward_flops == pytest.approx(6 * products * tokens + attention, rel=0.01)


def test_resnet18_at_224_is_1_82_gmac() -> None:
    arguments = {**MODELS["resnet18"].arguments, "channels": 3, "classes": 1000}
    plan = ModelPlan(name="resnet18", family="resnet", arguments=arguments)
    found = trace(lambda: build(plan), 2, 3, 224, 224)
    assert found.forward_flops / 2 == pytest.approx(2 * 1.82e9, rel=0.01)
    assert found.parameters == 11_689_512


def test_recurrent_layer_is_not_a_silent_zero() -> None:
    class Recur(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.LSTM(8, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)[0]

    # four gates over 5 times x 3 samples
    assert trace(Recur, 5, 3, 8).forward_flops == 2 * 5 * 3 * 4 * 16 * (8 + 16)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("case", "layout"),
    [
        ("resnet8", "contiguous"),
        ("resnet8", "channels_last"),
        ("gpt-nano", "contiguous"),
        ("vit-nano", "contiguous"),
        ("wav2vec2-tiny", "contiguous"),
        ("mlp", "contiguous"),
    ],
)
@pytest.mark.slow
def test_activations_equal_those_of_a_real_step(case: str, precision: str, layout: str) -> None:
    model = build(real_step.model_plan(case)).to(memory_format=MEMORY_FORMATS[layout]).train()
    batch = real_step.real_batch(real_step.batch_shapes(case), layout)
    outside = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), *batch.values())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in outside:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        loss, _ = cross_entropy(model, batch)
    assert loss.isfinite()
    traced = real_step.trace_case(case, precision, layout).activation_bytes
    if case == "resnet8" and precision == "bf16":
        # torch's fake batch norm keeps its statistics in bf16, the real one in fp32
        statistics = sum(module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d))
        traced += 2 * 2 * statistics
    if case == "wav2vec2-tiny" and precision == "bf16":
        # so does its layer norm, two of them for each frame
        statistics = 4 * 24 * sum(isinstance(module, nn.LayerNorm) for module in model.modules())
        traced += 2 * 2 * statistics
    # the loss itself lives between the passes too
    assert traced == pytest.approx(sum(kept.values()), abs=32)


def test_states_and_shared_weights() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight
            self.frozen = nn.Parameter(torch.ones(10), requires_grad=False)
            self.register_buffer("table", torch.ones(100))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    found = trace_step(Tied, summed, {"x": ((2, 4), "float32")}, precision="fp32", optimizer=optim.by_name("adamw"))
    assert (found.parameters, found.parameter_bytes) == (26, 104)
    # two moments, and the count of steps
    assert (found.gradient_bytes, found.optimizer_bytes, found.buffer_bytes) == (64, 132, 400)
    assert found.parameter_tensors == 1


def test_views_cost_nothing_and_in_place_is_counted_once() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            y = x * self.w
            y = y.view(8, 2).t().unsqueeze(0).transpose(1, 2).detach()
            y.add_(1.0)
            return y.sum() * self.w

    forward = [op for op in trace(Views, 4, 4).ops if op.phase == "forward"]
    assert [op.name for op in forward] == ["mul", "add_", "sum", "mul", "sum"]
    assert (forward[1].bytes_read, forward[1].bytes_written) == (64, 64)


def test_lookups_read_rows_and_copies_do_not_read_their_target() -> None:
    table, rows, target = torch.zeros(1000, 4), torch.zeros(3, dtype=torch.int64), torch.zeros(8)
    assert traffic("embedding", [table, rows], [], [torch.zeros(3, 4)]) == (48 + 24, 48)
    assert traffic("copy_", [target, torch.ones(8)], [target], []) == (32, 32)
    assert traffic("add_", [target, torch.ones(8)], [target], []) == (64, 32)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(1, 7))
def test_expanded_elements_count_once(shape: list[int], times: int) -> None:
    tensor = torch.zeros(shape)
    assert touched_bytes(tensor.unsqueeze(0).expand(times, *shape)) == 4 * math.prod(shape)
    assert tensors_in({"a": [tensor, 1, (tensor,)]}) == [tensor, tensor]


def test_the_peak_is_that_of_a_chain_known_by_hand() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            # exp keeps its result; the product keeps x, an input, and w, a parameter
            return (x * self.w).exp().exp()

    found = trace(Chain, 1000)
    assert found.activation_bytes == pytest.approx(8000, abs=64)
    # forward: product and first exp, then both exps; backward: both exps and the gradient between them
    assert found.evaluation_bytes == pytest.approx(8000, abs=64)
    assert found.live_peak_bytes == pytest.approx(12000, abs=64)


def test_bf16_halves_what_products_keep_and_keeps_weights_in_fp32() -> None:
    full, half = real_step.trace_case("gpt-nano"), real_step.trace_case("gpt-nano", "bf16")
    assert full.parameter_bytes == half.parameter_bytes
    assert full.forward_flops + full.backward_flops == pytest.approx(half.forward_flops + half.backward_flops, rel=0.1)
    assert {op.dtype for op in half.ops if op.kind == "matmul"} == {"bfloat16"}
    assert {op.dtype for op in full.ops if op.kind == "matmul"} == {"float32"}


def test_work_and_activations_grow_with_the_batch() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))

    small, large = trace(make, 10, 8), trace(make, 40, 8)
    assert large.forward_flops == 4 * small.forward_flops
    assert large.activation_bytes == pytest.approx(4 * small.activation_bytes, abs=64)
    assert large.parameter_bytes == small.parameter_bytes


class DataDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate = nn.Linear(4, 4), Gate()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.first(x))


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum().item() > 0 else x


class Inverse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.solver = Solve()

    def forward(self, x: Tensor) -> Tensor:
        return self.solver(x)


class Solve(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.solve(self.w, x)


@pytest.mark.parametrize(
    ("make", "operator", "module"),
    [(DataDependent, "_local_scalar_dense", "'gate'"), (Inverse, "linalg", "'solver'")],
)
def test_what_cannot_be_priced_names_operator_module_and_way_out(
    make: Callable[[], nn.Module], operator: str, module: str
) -> None:
    with pytest.raises(JobError) as caught:
        trace(make, 4, 4)
    assert operator in str(caught.value)
    assert f"module {module}" in str(caught.value)
    assert "probe" in caught.value.mend


def test_a_custom_operator_without_formula_is_refused() -> None:
    @torch.library.custom_op("thrifty_tests::mystery", mutates_args=())
    def mystery(x: Tensor) -> Tensor:
        return x.clone()

    @mystery.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_like(x)

    class Mystery(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(mystery(x))

    with pytest.raises(JobError, match=r"mystery.*no FLOP formula"):
        trace(lambda: Mystery(4, 4), 4, 4)


def test_a_misspelt_dtype_gets_the_nearest() -> None:
    with pytest.raises(JobError, match="Did you mean 'float32'"):
        trace(lambda: nn.Linear(4, 4), 4, 4, dtype="flaot32")


def test_an_error_leaves_no_hooks_behind() -> None:
    with pytest.raises(JobError):
        trace(DataDependent, 4, 4)
    before = weakref.ref(probe := nn.Linear(2, 2))
    probe(torch.zeros(1, 2))
    del probe
    gc.collect()
    assert before() is None


@pytest.mark.slow
def test_gpt2_is_traced_in_seconds_and_takes_little_memory() -> None:
    plan = ModelPlan(
        name="gpt2", family="gpt", arguments={**MODELS["gpt2"].arguments, "vocabulary": 50257, "length": 1024}
    )
    shapes = {"x": ((8, 1024), "int64"), "y": ((8, 1024), "int64")}
    real_step.trace_case("gpt-nano")
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found = trace_step(lambda: build(plan), cross_entropy, shapes, precision="bf16", optimizer=optim.by_name("adamw"))
    assert time.process_time() - began < 5
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 200e6
    assert found.parameters == 124_439_808
    # logits of all tokens at once would take 1.6 GB more
    assert 3.5e9 < found.live_peak_bytes < 4.5e9


def test_an_operator_with_a_kernel_of_its_own_stays_whole() -> None:
    step = trace(lambda: nn.Sequential(nn.Linear(8, 8), nn.SiLU()), 4, 8)
    assert [op.name for op in step.ops if op.module == "1"] == ["silu", "silu_backward"]


def test_shared_keys_and_values_are_counted_for_every_query() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            q = self.mix(x).view(2, 16, 4, 2).transpose(1, 2)
            kv = self.mix(x)[..., :4].view(2, 16, 2, 2).transpose(1, 2)
            return F.scaled_dot_product_attention(q, kv, kv, enable_gqa=True)

    ops = [op for op in trace(Grouped, 2, 16, 8).ops if op.kind == "attention" and op.phase == "forward"]
    # two products of 2 x 4 heads, 16 x 16 tokens, width 2
    assert sum(op.flops for op in ops) in (0, 2 * 2 * 2 * 4 * 16 * 16 * 2)


def test_a_draw_that_decides_takes_its_middle() -> None:
    class Dropped(nn.Module):
        def __init__(self, rate: float) -> None:
            super().__init__()
            self.rate, self.layer = rate, nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = x if torch.rand([]) < self.rate else self.layer(x)
            return out * self.layer.weight.sum()

    kept, dropped = (trace(lambda rate=rate: Dropped(rate), 2, 4) for rate in (0.1, 0.9))
    assert "addmm" in {op.name for op in kept.ops}
    assert "addmm" not in {op.name for op in dropped.ops}


def test_modules_are_counted_as_they_are_entered() -> None:
    step = trace(lambda: nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.ReLU()), 2, 4)
    assert sum(op.entered for op in step.ops) == 4, "the whole and its three parts"
    assert all(not op.entered for op in step.ops if op.phase != "forward")


@pytest.mark.parametrize(("how", "watched"), [("none", {""}), ("full", {"hooks"}), ("selective", {"selective"})])
def test_what_checkpointing_looks_at_is_noted(how: str, watched: set[str]) -> None:
    def make() -> nn.Module:
        blocks = (nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(3))
        return recomputing(nn.Sequential(*blocks), how)

    step = trace(make, 4, 8)
    inside = {op.watched for op in step.ops if op.name == "gelu"}
    assert inside == watched
