"""Memory of a device under a layout: formulas of the papers, published peaks, and what must hold for any layout."""

from __future__ import annotations

import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from thrifty.cost.activations import block_bytes, in_flight
from thrifty.cost.sharded_memory import device_bytes, fits
from thrifty.cost.stacks import STACKS, parameter_bytes
from thrifty.cost.stage_parameters import stage_layers, stage_parameters
from thrifty.errors import JobError
from thrifty.hardware.cluster import find_device
from thrifty.spec.layout import Layout
from thrifty.spec.transformer import TransformerShape

GIB = 2**30
A100 = find_device("a100-80g")
MEGATRON = STACKS["megatron"]


def gpt(layers: int, hidden: int, heads: int, *, vocabulary: int = 51200, length: int = 2048) -> TransformerShape:
    """A GPT as Megatron trains it."""
    return TransformerShape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        ffn=4 * hidden,
        vocabulary=vocabulary,
        length=length,
    )


GPT3 = gpt(96, 12288, 96)
LLAMA = TransformerShape(
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    ffn=14336,
    vocabulary=128256,
    length=8192,
    gated=True,
    learned_positions=False,
    biases=False,
    tied=False,
)
MIXTRAL = LLAMA.model_copy(
    update={"experts": 8, "active_experts": 2, "expert_ffn": 14336, "vocabulary": 32000, "length": 4096}
)


def kept(layout: Layout, *, dropout: bool = True) -> float:
    """Bytes a layer of GPT-3 keeps, over s b h."""
    block = block_bytes(GPT3, layout, MEGATRON, dropout=dropout, mixture=False)
    return block.kept / GPT3.hidden


# Table 2 of Korthikanti et al. 2022 (arXiv 2205.05198), in units of s b h; 5 a s / h of GPT-3 is 80.
@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (Layout(flash=False), 34 + 80),
        (Layout(flash=False, tensor=8), 10 + (24 + 80) / 8),
        (Layout(flash=False, tensor=8, sequence_parallel=True), (34 + 80) / 8),
        (Layout(flash=False, tensor=8, checkpointing="selective"), 10 + 24 / 8),
        (Layout(flash=False, tensor=8, sequence_parallel=True, checkpointing="selective"), 34 / 8),
        (Layout(flash=False, tensor=8, checkpointing="full"), 2),
    ],
)
def test_activations_are_those_of_korthikanti(layout: Layout, expected: float) -> None:
    assert kept(layout) == pytest.approx(expected)


def test_flash_attention_keeps_no_scores_but_their_sums() -> None:
    assert kept(Layout()) == pytest.approx(34 + 4 * 96 / 12288)


def test_fp32_keeps_twice_as_much_but_the_masks() -> None:
    assert kept(Layout(precision="fp32", flash=False), dropout=False) == pytest.approx(
        2 * kept(Layout(flash=False), dropout=False)
    )


def test_grouped_queries_and_gates() -> None:
    block = block_bytes(LLAMA, Layout(), MEGATRON, dropout=False, mixture=False)
    # norms and residual 8 h; q, context 4 h; k and v 2 x h / 4 each; gate, up and product 6 f; log-sum-exp 4 a
    assert block.kept == 8 * 4096 + 4 * 4096 + 2 * 2 * 1024 + 6 * 14336 + 4 * 32


# Megatron-LM's README, "Distributed Optimizer"; d = 8.
@pytest.mark.parametrize(
    ("precision", "undivided", "shared"),
    [("fp16", 20, 4 + 16 / 8), ("bf16", 18, 6 + 12 / 8), ("fp32", 16, 8 + 8 / 8)],
)
def test_bytes_a_parameter_are_megatrons(precision: str, undivided: float, shared: float) -> None:
    for zero, expected in ((0, undivided), (1, shared)):
        layout = Layout.model_validate({"precision": precision, "data": 8, "zero": zero})
        each = parameter_bytes(MEGATRON, layout, 8)
        assert each.weights + each.gradients + each.states + each.step == pytest.approx(expected)


@pytest.mark.parametrize(("zero", "expected"), [(0, 16), (1, 4 + 12 / 64), (2, 2 + 14 / 64), (3, 16 / 64)])
def test_zero_shares_as_its_paper_says(zero: int, expected: float) -> None:
    # figure 1 of arXiv 1910.02054, K = 12, N = 64, fp16: 120, 31.4, 16.6, 1.9 GB for 7.5 B parameters
    each = parameter_bytes(MEGATRON, Layout.model_validate({"precision": "fp16", "data": 64, "zero": zero}), 64)
    assert each.weights + each.gradients + each.states == pytest.approx(expected)


def test_small_states_and_offload() -> None:
    eight = parameter_bytes(MEGATRON, Layout(state_bytes=1), 1)
    assert eight.states == pytest.approx(4 + 2, rel=0.01)
    away = parameter_bytes(MEGATRON, Layout(offload=True), 1)
    assert (away.states, away.host) == (0, 12)


def test_gpt3_has_175_billion_parameters() -> None:
    whole = stage_parameters(GPT3, tensor=1, pipeline=1, expert=1, stage=0, pad_vocabulary=1)
    assert whole.total == pytest.approx(174.6e9, rel=0.003)
    assert stage_parameters(LLAMA, tensor=1, pipeline=1, expert=1, stage=0, pad_vocabulary=1).total == 8030261248


def test_mixtral_has_46_7_billion_and_experts_are_shared_out() -> None:
    whole = stage_parameters(MIXTRAL, tensor=1, pipeline=1, expert=1, stage=0, pad_vocabulary=1)
    assert whole.total == pytest.approx(46.7e9, rel=0.002)
    eighth = stage_parameters(MIXTRAL, tensor=1, pipeline=1, expert=8, stage=0, pad_vocabulary=1)
    assert eighth.experts == pytest.approx(whole.experts / 8)
    assert eighth.dense == whole.dense


@given(st.integers(1, 130), st.integers(1, 16), st.integers(1, 8))
def test_stages_hold_the_whole_model(layers: int, stages: int, tensor: int) -> None:
    assume(layers % stages == 0)
    shape = gpt(layers, 512, 8).model_copy(update={"tied": False})
    parts = [
        stage_parameters(shape, tensor=1, pipeline=stages, expert=1, stage=each, pad_vocabulary=1).total
        for each in range(stages)
    ]
    whole = stage_parameters(shape, tensor=1, pipeline=1, expert=1, stage=0, pad_vocabulary=1).total
    assert sum(parts) == pytest.approx(whole)
    assert stage_layers(layers, stages) == (layers // stages,) * 3


def test_micro_batches_in_flight() -> None:
    one = Layout(pipeline=8, accumulation=64)
    assert [in_flight(one, stage, MEGATRON) for stage in (0, 3, 7)] == [8, 5, 1]
    assert in_flight(one.model_copy(update={"accumulation": 2}), 0, MEGATRON) == 2
    # section 4.2 of Korthikanti et al.: interleaving takes 1 + (p - 1) / (p v) of it
    interleaved = in_flight(one.model_copy(update={"virtual_stages": 4}), 0, MEGATRON)
    assert interleaved == pytest.approx(8 * (1 + 7 / (8 * 4)))


def test_llama_on_eight_gpus_as_torchtitan_measured_it() -> None:
    # torchtitan PR 3975: Llama 3 8B, FSDP over 8 H100, full checkpointing, one sequence of 8,192: 32.07 GiB reserved
    found = device_bytes(LLAMA, Layout(data=8, zero=3, checkpointing="full"), find_device("h100"), stack="fsdp")
    # compiled, it may spare some copies of the logits, which are half of this
    assert found.allocated.value == pytest.approx(32.07 * GIB, rel=0.05)
    assert found.allocated.low <= 32.07 * GIB <= found.reserved.high
    assert found.moment == "loss"


def test_bert_large_as_hugging_face_measured_it() -> None:
    # transformers docs perf_train_gpu_one: fp32, one sequence of 512, full checkpointing, by nvml on a V100
    bert = gpt(24, 1024, 16, vocabulary=30522, length=512)
    layout = Layout(precision="fp32", checkpointing="full", flash=False, accumulation=4)
    found = device_bytes(bert, layout, find_device("v100-16g"), logits=False)
    assert found.device_used.value == pytest.approx(6775 * 2**20, rel=0.05)


def test_gpt3_does_not_fit_on_one_device_and_does_on_many() -> None:
    assert not fits(device_bytes(GPT3, Layout(checkpointing="full"), A100), A100)
    spread = Layout(data=16, tensor=8, pipeline=8, accumulation=12, zero=1, checkpointing="full")
    assert fits(device_bytes(GPT3, spread, A100), A100)


def test_a_step_of_the_optimizer_can_be_the_peak() -> None:
    found = device_bytes(GPT3, Layout(tensor=8, pipeline=16, precision="fp16"), A100, stack="megatron_deepspeed")
    assert found.moment == "step"
    assert found.activations == 0
    assert found.step > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensor": 7}, "tensor 7 does not divide 96 attention heads"),
        ({"pipeline": 64, "virtual_stages": 2}, "64 stages of 2 chunks for 96 layers"),
        ({"context": 3}, "context 3 does not divide 2048 tokens"),
        ({"data": 4, "expert": 2}, "expert 2 does not divide 0 experts"),
    ],
)
def test_degrees_that_do_not_divide_are_told(change: dict[str, int], message: str) -> None:
    with pytest.raises(JobError, match=message):
        device_bytes(GPT3, Layout.model_validate(change), A100)


def test_wrong_names_are_told() -> None:
    with pytest.raises(JobError, match=r"unknown training stack 'megatorn'. Did you mean 'megatron'"):
        device_bytes(GPT3, Layout(tensor=8), A100, stack="megatorn")
    with pytest.raises(JobError, match="stage 8 of a pipeline of 8"):
        device_bytes(GPT3, Layout(pipeline=8), A100, stage=8)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Any layout that fits the shapes below."""
    pipeline = draw(st.sampled_from([1, 2, 4, 8]))
    data = draw(st.sampled_from([1, 2, 8]))
    return Layout(
        data=data,
        tensor=draw(st.sampled_from([1, 2, 8])),
        pipeline=pipeline,
        context=draw(st.sampled_from([1, 2])),
        virtual_stages=draw(st.sampled_from([1, 2])) if pipeline > 1 else 1,
        zero=draw(st.sampled_from([0, 1, 2, 3])),
        sequence_parallel=draw(st.booleans()),
        micro_batch=draw(st.sampled_from([1, 3])),
        accumulation=draw(st.sampled_from([1, 5])),
        precision=draw(st.sampled_from(["fp32", "bf16", "bf16_weights", "fp16", "fp8"])),
        checkpointing=draw(st.sampled_from(["none", "selective", "full"])),
        state_bytes=draw(st.sampled_from([1, 2, 4])),
        offload=draw(st.booleans()),
        flash=draw(st.booleans()),
    )


SHAPES = st.sampled_from([gpt(16, 1024, 16), LLAMA, MIXTRAL])
NAMES = st.sampled_from([None, *STACKS])


@settings(deadline=None, max_examples=200)
@given(SHAPES, layouts(), NAMES)
def test_parts_add_up_and_counters_are_in_order(shape: TransformerShape, layout: Layout, stack: str | None) -> None:
    found = device_bytes(shape, layout, A100, stack=stack)
    states = found.parameters + found.gradients + found.optimizer
    swept = found.activations + found.logits + found.gathered + found.working + found.step
    assert found.allocated.value == pytest.approx(states + swept)
    assert found.total.value == pytest.approx(states + swept + found.slack + found.context)
    assert 0 < found.allocated.value <= found.reserved.value
    assert found.device_used.value <= A100.memory_bytes
    assert (found.host > 0) == layout.offload
    worst = max(
        device_bytes(shape, layout, A100, stack=stack, stage=each).total.value for each in range(layout.pipeline)
    )
    assert found.total.value == pytest.approx(worst, rel=1e-9)


@settings(deadline=None, max_examples=150)
@given(SHAPES, layouts(), NAMES, st.data())
def test_more_work_never_takes_less(
    shape: TransformerShape, layout: Layout, stack: str | None, data: st.DataObject
) -> None:
    found = device_bytes(shape, layout, A100, stack=stack)
    change = data.draw(
        st.sampled_from(
            [
                {"micro_batch": layout.micro_batch + 1},
                {"flash": False},
                {"zero": max(0, layout.zero - 1)},
                {"accumulation": layout.accumulation + 1},
            ]
        )
    )
    more = device_bytes(shape, layout.model_copy(update=change), A100, stack=stack)
    # Sharing less takes a library's other road, which may spare its buffers. Where scores are computed again, flash
    # attention still keeps sums of them, and its result in bf16 where the layer after it keeps one byte of fp8: less
    # than a tenth of a block, whose six other tensors of a token take two bytes each.
    flash = 1.1 if layout.precision == "fp8" else 1.01
    allowed = 1.6 if "zero" in change else flash if "flash" in change else 1 + 1e-9
    assert found.allocated.value <= more.allocated.value * allowed


def test_it_is_fast_enough_to_search_with() -> None:
    plans = [
        Layout(data=data, tensor=tensor, pipeline=pipeline, micro_batch=micro, accumulation=8, zero=1)
        for data in (1, 2, 4, 8, 16)
        for tensor in (1, 2, 4, 8)
        for pipeline in (1, 2, 4, 8, 16)
        for micro in (1, 2)
    ]
    for plan in plans:
        device_bytes(GPT3, plan, A100)
    start = time.process_time()
    for plan in plans:
        device_bytes(GPT3, plan, A100)
    # 0.06 ms on two cores of an EPYC; the limit leaves room for a loaded machine
    assert (time.process_time() - start) / len(plans) < 0.5e-3
