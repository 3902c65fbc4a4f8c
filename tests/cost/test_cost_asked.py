"""Calls with blanks for tensors run as those they were made of; a GPU's own answers, where there is one."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import made_devices
from thrifty import optim
from thrifty.cost import Trace, peak_bytes, step_seconds, trace_step
from thrifty.cost.asked import heard, slowest
from thrifty.cost.time import Priced
from thrifty.hardware.asking import Asker
from thrifty.hardware.capture import Blank, Call, Captured, Key, blank
from thrifty.spec.device import KernelPoint


class Words(nn.Module):
    """Looks rows up, attends, has a norm, dropout and a recurrent layer; whole numbers must stay within the table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 16)
        self.rnn = nn.LSTM(16, 16, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x_BT: Tensor) -> Tensor:
        heads = self.table(x_BT).unflatten(-1, (2, 8)).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)
        out: Tensor = self.head(nn.functional.dropout(self.norm(self.rnn(mixed)[0]), 0.1))
        return out


def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    scores: Tensor = model(batch["x"])
    return nn.functional.cross_entropy(scores.flatten(0, 1).float(), batch["y"].flatten(), reduction="sum"), 1


def test_every_call_of_a_step_runs_again_on_blanks() -> None:
    model = Words()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = {"x": torch.randint(0, 7, (4, 6)), "y": torch.randint(0, 5, (4, 6))}
    with Captured() as captured:
        loss_of(model, batch)[0].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    names = {key.name for key in captured.calls}
    assert names >= {"embedding", "embedding_dense_backward", "nll_loss_backward", "addmm", "_fused_adamw_"}
    with torch.no_grad():
        for key, call in captured.calls.items():
            again = Call(call.func, blank(call.args), blank(call.kwargs), call.tensors, call.moved_bytes).filled("cpu")
            with Captured() as seen:
                again.again()
            # without gradients a recurrent layer keeps nothing for them
            given = {(each.name, each.dtype, each.shapes.partition("->")[0]) for each in seen.calls}
            assert (key.name, key.dtype, key.shapes.partition("->")[0]) in given, key


def test_a_blank_lies_in_memory_as_its_tensor_did() -> None:
    for tensor in (
        torch.rand(3, 4).t(),
        torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.rand(1, 4).expand(6, 4),
        torch.rand(8, 6)[:, 1:4],
        torch.rand(0, 4),
        torch.tensor(1.0),
    ):
        spec = blank([tensor])[0]
        assert isinstance(spec, Blank)
        made = spec.filled("cpu", 1)
        assert (made.shape, made.stride(), made.dtype) == (tensor.shape, tensor.stride(), tensor.dtype)
        assert made.numel() == 0 or (made.min() > 0 and made.max() <= 1)


def test_whole_numbers_stay_below_what_they_count() -> None:
    drawn = Blank((1000,), (1,), torch.int64).filled("cpu", 7)
    assert set(drawn.tolist()) == set(range(7))
    assert not Blank((10,), (1,), torch.int64).filled("cpu", 1).any()
    assert not Blank((10,), (1,), torch.bool).filled("cpu", 5).any()


def test_dropout_state_that_the_host_reads_stays_with_the_host() -> None:
    backward = torch.ops.aten._scaled_dot_product_efficient_attention_backward.default
    seed, block = Blank((), (), torch.int64), Blank((2, 2), (2, 1), torch.float32)
    filled = Call(backward, (block, seed), {}, 2, 0).filled("meta")
    assert [each.device.type for each in filled.args] == ["meta", "cpu"]


def trained(model: nn.Module, shape: tuple[int, ...], precision: Any = "fp32", device: Any = "cpu") -> Trace:
    return trace_step(
        lambda: model,
        lambda model, batch: (model(batch["x"]).float().square().sum(), 1),
        {"x": (shape, "float32")},
        precision=precision,
        optimizer=optim.by_name("adamw"),
        device=device,
    )


def test_a_call_of_each_kind_is_kept() -> None:
    traced = trained(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), (3, 4))
    assert {op.key for op in traced.ops} <= set(traced.calls)
    assert len(traced.calls) < len(traced.ops)


def test_what_takes_most_is_asked_about_first() -> None:
    traced = trained(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), (3, 4))
    priced = [Priced(op, float(index), 0.0, "") for index, op in enumerate(traced.ops)]
    seconds = Counter[Key]()
    for each in priced:
        seconds[each.op.key] += each.seconds
    keys = list(slowest(traced, priced, share=1.0))
    assert [seconds[key] for key in keys] == sorted((took for took in seconds.values() if took), reverse=True)
    half = list(slowest(traced, priced, share=0.5))
    assert half == keys[: len(half)]
    total = sum(seconds.values())
    assert sum(seconds[key] for key in half[:-1]) < total / 2 <= sum(seconds[key] for key in half)


def test_what_reads_a_workspace_that_a_trace_does_not_know_is_not_asked_about() -> None:
    traced = trace_step(
        lambda: nn.LSTM(8, 8),
        lambda model, batch: (model(batch["x"])[0].sum(), 1),
        {"x": ((4, 2, 8), "float32")},
        precision="fp32",
        optimizer=optim.by_name("adamw"),
    )
    names = {op.name for op in traced.ops}
    asked = {key.name for key in slowest(traced, [Priced(op, 1.0, 0.0, "") for op in traced.ops], share=1.0)}
    assert {"mkldnn_rnn_layer", "mkldnn_rnn_layer_backward"} <= names
    assert names - asked == {"mkldnn_rnn_layer_backward"}


def test_a_step_is_priced_by_what_was_said_of_its_operators() -> None:
    kernels = (
        KernelPoint(
            name="mm", dtype="float32", shapes="8x8,8x8->8x8", layouts="cc>c", tensors=2, moved_bytes=768,
            warm_s=1e-6, cold_s=1e-6, spread=0.0,
        ),
    )  # fmt: skip
    traced = trained(nn.Linear(64, 64), (32, 64))
    before = step_seconds(traced, 1, made_devices.device(kernels=kernels), "fp32")
    said = {key: kernels[0].model_copy(update={**key._asdict(), "warm_s": 1.0, "cold_s": 1.0}) for key in traced.calls}
    after = step_seconds(replace(traced, timed=said), 1, made_devices.device(kernels=kernels), "fp32")
    assert before.value < 1 < len(traced.ops) == pytest.approx(after.value, rel=0.01)
    assert 0.85 * after.value < after.low < after.high < 1.2 * after.value


def test_statistics_of_batch_norm_in_16_bits_can_be_asked_about() -> None:
    block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    traced = trained(block, (2, 3, 8, 8), "bf16")
    (key,) = [key for key in traced.calls if key.name == "native_batch_norm_backward"]
    with torch.no_grad():
        traced.calls[key].filled("cpu").again()


def test_layers_that_are_copied_are_traced_without_a_warning() -> None:
    block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        traced = trace_step(
            lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 3),
            lambda model, batch: (model(batch["x"]).sum(), 1),
            {"x": ((2, 4, 16), "float32")},
            precision="fp32",
            optimizer=optim.by_name("adamw"),
        )
    assert traced.parameters == 3 * sum(each.numel() for each in block.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device that torch can use")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_memory_of_a_gpu_is_foreseen_within_two_per_cent(precision: Any) -> None:
    def build() -> nn.Module:
        block = nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True)
        return nn.Sequential(nn.TransformerEncoder(block, 4), nn.Linear(256, 10))

    def total(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        return model(batch["x"]).float().square().sum(), 1

    traced = trace_step(
        build,
        total,
        {"x": ((64, 128, 256), "float32")},
        precision=precision,
        optimizer=optim.by_name("adamw"),
        device="cuda",
    )
    with Asker("cuda") as asker:
        asker.ask(traced.calls)
        foreseen = peak_bytes(heard(traced, asker), device_kind="cuda")
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model = build().to("cuda").train()
    optimizer = optim.by_name("adamw")(model)
    for _ in range(3):
        x = torch.rand(64, 128, 256).to("cuda")
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            loss, _ = total(model, {"x": x})
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    peak = torch.cuda.max_memory_allocated() - before
    assert foreseen.value == pytest.approx(peak, rel=0.02)
