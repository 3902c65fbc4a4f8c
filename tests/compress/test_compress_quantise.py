"""Forms of a small model: each answers as the model does within what its arithmetic allows, and is as small as it says.

Layers that err are found by themselves, and kept.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "export"))
from made_bundles import image_dataset, language_dataset, text_dataset

import thrifty.export.engines.signal_stack as signal_stack
from made_devices import device
from thrifty.compress.measure import size_of
from thrifty.compress.moves import MOVES, Candidate, Context
from thrifty.compress.moves.conversions import converted
from thrifty.compress.moves.layers import errors_by_layer
from thrifty.compress.moves.onnx_layers import errors_by_layer as onnx_errors
from thrifty.compress.moves.torch_int8 import _quantised as quantised_by_torch
from thrifty.compress.moves.torch_int8 import errors_by_layer as torch_errors
from thrifty.models import build, resolve
from thrifty.models.init import initialise
from thrifty.spec import Dataset, Objective
from thrifty.train.signals import asked_to_end

# whether they are installed: to load them takes seconds
LACKING = [name for name in ("openvino", "nncf") if find_spec(name) is None]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(LACKING), reason=f"not installed: {', '.join(LACKING)}")]
needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="not installed: torchao (the extra 'torchao')")
VOCABULARY, LENGTH = 200, 32


def _candidate(name: str, data: Dataset, **sizes: int) -> Candidate:
    plan = resolve(name, data)
    plan = plan.model_copy(update={"arguments": {**plan.arguments, **sizes}})
    model = build(plan)
    initialise(model, "default", 0)
    return Candidate(model.eval().requires_grad_(False), plan)


def _context(data: Dataset, task: str, scratch: Path, objective: Objective = "latency") -> Context:
    draw = np.random.default_rng(0)
    batches = tuple({"x": draw.integers(1, VOCABULARY, (16, LENGTH))} for _ in range(2))
    return Context(
        store=SimpleNamespace(dataset=data), run=SimpleNamespace(task=task), device=device(), calibration=batches,
        objective=objective, batch=1, seconds=math.inf, seed=0, scratch=scratch,
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.fixture(scope="module")
def text() -> Candidate:
    return _candidate("bert-tiny", text_dataset(VOCABULARY, LENGTH))


@pytest.fixture(scope="module")
def kept() -> dict[tuple[int, str], object]:
    """What was converted once is so for all tests here."""
    return {}


def _made(name: str, candidate: Candidate, context: Context) -> tuple[Candidate, float]:
    """The candidate, and how far it is off, as a share of the largest logit."""
    made = MOVES[name].apply(context, candidate)
    x = torch.from_numpy(context.calibration[0]["x"])
    with torch.inference_mode():
        wanted = candidate.model(x)
    apart = float((made.answers(x) - wanted).abs().max() / wanted.abs().max())
    assert made.taken == (name,) and len(made.says) == 1
    assert made.form is not None and size_of(made) == sum(each.stat().st_size for each in made.form.files.iterdir())
    return made, apart


@pytest.mark.parametrize(
    ("name", "most"),
    [("openvino", 1e-4), ("onnx", 1e-4), ("bf16", 0.1), ("int8", 0.3), ("int8_onnx", 0.3), ("int8_dynamic", 0.3)],
    ids=str,
)
def test_forms_of_a_text_model(
    name: str, most: float, text: Candidate, kept: dict[tuple[int, str], object], tmp_path: Path
) -> None:
    context = _context(text_dataset(VOCABULARY, LENGTH), "classify", tmp_path)
    context.kept.update(kept)
    made, apart = _made(name, text, context)
    kept.update(context.kept)
    assert 0 <= apart < most
    if name.startswith("int8"):
        assert size_of(made) < 0.6 * size_of(text)


def test_layers_are_blamed_for_what_they_do_themselves_and_the_worst_are_kept(
    text: Candidate, kept: dict[tuple[int, str], object], tmp_path: Path
) -> None:
    context = _context(text_dataset(VOCABULARY, LENGTH), "classify", tmp_path / "a")
    context.kept.update(kept)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    over = MOVES["int8"].apply(context, text)
    assert over.form is not None
    inputs = [each["x"] for each in context.calibration]
    errors = errors_by_layer(converted(context, text, "openvino"), over.form.made, inputs)
    assert len(errors) >= 8  # products of two layers: four each, and the head
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert all(0 < error < 0.5 for error in errors.values())
    # the last layers stand behind all others, and are not blamed for them
    milder = MOVES["int8"].milder
    assert milder is not None
    second = _context(text_dataset(VOCABULARY, LENGTH), "classify", tmp_path / "b")
    second.kept.update(context.kept)
    made = milder(second, text, over)
    assert made is not None and made.form is not None
    left = errors_by_layer(converted(second, text, "openvino"), made.form.made, inputs)
    assert next(iter(errors)) not in left
    assert len(left) < len(errors)
    assert "that erred most" in made.says[-1]


def test_onnx_runtime_keeps_the_worst_layers_too(
    text: Candidate, kept: dict[tuple[int, str], object], tmp_path: Path
) -> None:
    contexts = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        contexts.append(_context(text_dataset(VOCABULARY, LENGTH), "classify", tmp_path / name))
        contexts[-1].kept.update(kept)
    first, second, third = (replace(each, kept=contexts[0].kept) for each in contexts)
    move = MOVES["int8_onnx"]
    assert move.milder is not None
    over = move.apply(first, text)
    assert over.form is not None
    inputs = [each["x"] for each in first.calibration]
    plain = first.kept[id(text.model), "onnx before int8"]
    errors = onnx_errors(plain, over.form.made, inputs)
    assert len(errors) >= 8
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert all(0 < error < 0.5 for error in errors.values())
    made = move.milder(second, text, over)
    assert made is not None and made.form is not None and "that erred most" in made.says[-1]
    left = onnx_errors(plain, made.form.made, inputs)
    count = round(len(errors) / 8)
    assert set(errors) - set(left) == set(list(errors)[:count])
    fewer = move.milder(third, text, over)
    assert fewer is not None and fewer.form is not None
    assert len(onnx_errors(plain, fewer.form.made, inputs)) < len(left)


def test_onnx_runtime_keeps_layers_of_convolutions_too(tmp_path: Path) -> None:
    data = image_dataset(side=16)
    model = _candidate("resnet8", data)
    draw = np.random.default_rng(0)
    rows = tuple({"x": draw.normal(size=(8, 3, 16, 16)).astype(np.float32)} for _ in range(2))
    context = replace(_context(data, "classify", tmp_path / "a"), calibration=rows)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    move = MOVES["int8_onnx"]
    assert move.milder is not None
    over = move.apply(context, model)
    assert over.form is not None
    x = torch.from_numpy(rows[0]["x"])
    with torch.inference_mode():
        wanted = model.model(x)
    assert 0 < float((over.answers(x) - wanted).abs().max() / wanted.abs().max()) < 0.3
    assert size_of(over) < 0.5 * size_of(model)
    inputs, plain = [each["x"] for each in rows], context.kept[id(model.model), "onnx before int8"]
    errors = onnx_errors(plain, over.form.made, inputs)
    convolutions = {node.name for node in plain.graph.node if node.op_type == "Conv"}
    assert len(convolutions) >= 7 and convolutions <= set(errors)
    assert all(0 < error < 0.2 for error in errors.values())
    made = move.milder(replace(context, scratch=tmp_path / "b"), model, over)
    assert made is not None and made.form is not None
    assert next(iter(errors)) not in onnx_errors(plain, made.form.made, inputs)


def test_dynamic_ranges_get_a_scale_for_each_output_once(
    text: Candidate, kept: dict[tuple[int, str], object], tmp_path: Path
) -> None:
    context = _context(text_dataset(VOCABULARY, LENGTH), "classify", tmp_path)
    context.kept.update(kept)
    move = MOVES["int8_dynamic"]
    assert move.milder is not None
    over = move.apply(context, text)
    made = move.milder(context, text, over)
    assert made is not None and "a scale for each output" in made.says[-1]
    x = torch.from_numpy(context.calibration[0]["x"])
    with torch.inference_mode():
        wanted = text.model(x)
    errors = [float((each.answers(x) - wanted).square().mean()) for each in (over, made)]
    assert 0 < errors[1] < errors[0]
    assert move.milder(context, text, over) is None


def test_a_layer_whose_input_spreads_most_errs_most() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)).eval()
    with torch.no_grad():
        for each, scales in zip(model, (1.0, 1000.0, 1.0), strict=True):
            torch.nn.init.orthogonal_(each.weight)
            # one of a layer's outputs is so large that the next one's input has few steps left for the others
            each.weight[0] *= scales
            each.bias.zero_()
        model[2].weight[:, 0] = 0
    x = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    errors = torch_errors(model, [x, x])
    assert set(errors) == {"0", "1", "2"} and next(iter(errors)) == "2"
    assert 0 < errors["0"] < 0.02 < errors["2"]
    assert not model[0]._forward_hooks


@needs_torchao
def test_torch_keeps_what_it_is_told_to(text: Candidate, tmp_path: Path) -> None:
    context = _context(text_dataset(VOCABULARY, LENGTH), "classify", tmp_path)
    whole = quantised_by_torch(context, text)
    layers = torch_errors(text.model, [each["x"] for each in context.calibration])
    assert len(layers) >= 8
    part = quantised_by_torch(context, text, tuple(layers)[:2])

    def rounded(program: Any) -> int:
        return sum("dequantize_per_channel" in str(node.target) for node in program.graph.nodes)

    assert rounded(part) == rounded(whole) - 2
    x = torch.from_numpy(context.calibration[0]["x"])
    with torch.no_grad():
        wanted = text.model(x)
        apart = [float((each.module()(x) - wanted).abs().max() / wanted.abs().max()) for each in (whole, part)]
    assert 0 < apart[1] < 0.3 and 0 < apart[0] < 0.3


def test_weights_of_a_language_model_alone(tmp_path: Path) -> None:
    data = language_dataset(VOCABULARY, LENGTH)
    model = _candidate("gpt-nano", data)
    context = _context(data, "language", tmp_path)
    sizes = {}
    for bits, most in ((8, 0.1), (4, 0.5)):
        name = f"weights_int{bits}"
        assert "keys and values" in str(MOVES[name].applies(context, model))
        own = tmp_path / name
        own.mkdir()
        another = _context(data, "language", own, "size")
        another.kept.update(context.kept)
        assert MOVES[name].applies(another, model) is None
        made, apart = _made(name, model, another)
        context.kept.update(another.kept)
        assert apart < most
        sizes[bits] = size_of(made)
    assert sizes[4] < sizes[8] < 0.4 * size_of(model)


def test_four_bits_are_rounded_by_rows_then_fewer_of_them(tmp_path: Path) -> None:
    data = language_dataset(VOCABULARY, LENGTH)
    model = _candidate("gpt-nano", data, layers=2, width=64, heads=2)
    whole = _context(data, "language", tmp_path, "size")

    def apart(made: Candidate) -> float:
        """Of the logits of the calibration rows, as a share of theirs, by mean squares."""
        squares, wanted = 0.0, 0.0
        for batch in whole.calibration:
            with torch.inference_mode():
                right = model.model(x := torch.from_numpy(batch["x"]))
                squares += float((made.answers(x) - right).square().sum())
                wanted += float(right.square().sum())
        return math.sqrt(squares / wanted)

    move = MOVES["weights_int4"]
    assert move.milder is not None
    found: list[Candidate] = []
    for number in range(5):
        own = tmp_path / str(number)
        own.mkdir()
        context = _context(data, "language", own, "size")
        context.kept.update(whole.kept)
        made = move.milder(context, model, found[-1]) if found else move.apply(context, model)
        whole.kept.update(context.kept)
        if made is None:
            break
        found.append(made)
    nearest, *rounded = found
    assert len(rounded) == 3
    assert "GPTQ" not in nearest.says[-1] and all("AWQ, GPTQ" in each.says[-1] for each in rounded)
    errors, sizes = [apart(each) for each in found], [size_of(each) for each in found]
    assert errors[1] < 0.9 * errors[0]
    assert sorted(errors[1:], reverse=True) == errors[1:]
    assert sizes[1] < sizes[2] < sizes[3] < 0.4 * size_of(model)


def test_what_does_not_apply_says_why(text: Candidate, tmp_path: Path) -> None:
    context = _context(text_dataset(VOCABULARY, LENGTH), "classify", tmp_path)
    assert "language models" in str(MOVES["weights_int4"].applies(context, text))
    assert "bf16" in str(MOVES["bf16"].applies(context, text))  # the made-up device has AVX2 alone
    assert MOVES["openvino"].applies(context, text) is None


def test_what_quantises_leaves_signals_a_stack_to_be_handled_on(
    text: Candidate, kept: dict[tuple[int, str], object], tmp_path: Path
) -> None:
    before = signal_stack.address()
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        context = _context(text_dataset(VOCABULARY, LENGTH), "classify", tmp_path / str(number))
        context.kept.update(kept)
        MOVES["int8"].apply(context, text)
    gc.collect()
    assert signal_stack.address() == before
    with asked_to_end() as asked:
        os.kill(os.getpid(), signal.SIGUSR1)
    assert asked.signal == signal.SIGUSR1
