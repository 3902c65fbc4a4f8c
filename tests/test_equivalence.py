"""One gradient, however a step is computed: every model and task, any cut into micro-batches, any way of batching.

The reference is the mean loss over the whole step at once, written out here, in float64. Models are in training mode
without dropout. Batch norm is held at fixed statistics: its own are those of the samples computed at once, so that a
step of it does depend on the cut, and no weighting of losses can mend that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thrifty.data.order import deal
from thrifty.data.texts.packing import pack, places_of
from thrifty.data.texts.word_pieces import pad
from thrifty.models.bert import BERT
from thrifty.models.bert_original import OriginalBERT
from thrifty.models.fast_convnet import FastConvNet
from thrifty.models.gpt import GPT
from thrifty.models.init import initialise
from thrifty.models.mlp import MLP
from thrifty.models.ngrams import NGrams
from thrifty.models.packed import Packed
from thrifty.models.resnet import ResNet
from thrifty.models.speech import PADDING
from thrifty.models.vit import ViT
from thrifty.models.wav2vec2 import Wav2Vec2
from thrifty.spec import BatchPlan, Cost, Interval, ModelPlan, OptimPlan, Plan, StopPlan
from thrifty.train.step import take_step

SAMPLES, CLASSES, VOCABULARY, LENGTH, IGNORED = 11, 3, 17, 24, -100
NOTHING = Interval(low=0, value=0, high=0, method="a test")

Batch = dict[str, np.ndarray]


class Words(nn.Module):
    """A model of a user's own: the mean of its words' vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x_BT: Tensor) -> Tensor:
        real_BT1 = (x_BT != 0).double().unsqueeze(-1)
        logits: Tensor = self.head((self.table(x_BT) * real_BT1).sum(1) / real_BT1.sum(1))
        return logits


class Double(nn.Module):
    """A model in float64; images come as float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.double()

    def forward(self, x: Tensor | Packed) -> Tensor:
        pixels = isinstance(x, Tensor) and x.is_floating_point()
        out: Tensor = self.model(x.double() if pixels else x)  # type: ignore[union-attr]
        return out


@dataclass(frozen=True)
class Case:
    """A model with samples: arrays ``x`` and ``y`` of images or windows, or texts of their own lengths."""

    build: Callable[[], nn.Module]
    task: str
    samples: Callable[[], Batch | tuple[list[list[int]], np.ndarray]]


def images() -> Batch:
    generator = np.random.default_rng(0)
    return {
        "x": generator.standard_normal((SAMPLES, 1, 8, 8)).astype(np.float32),
        "y": generator.integers(0, CLASSES, SAMPLES),
    }


def waves() -> Batch:
    """Waves of their own lengths, filled up."""
    generator = np.random.default_rng(3)
    x = generator.standard_normal((SAMPLES, 6, 20)).astype(np.float32)
    ends = generator.integers(1, 121, SAMPLES)
    x[np.arange(120).reshape(6, 20) >= ends[:, None, None]] = PADDING
    return {"x": x, "y": generator.integers(0, CLASSES, SAMPLES)}


def windows() -> Batch:
    """Windows of tokens, some of whose answers are not counted: none of one window, all but one of another."""
    generator = np.random.default_rng(1)
    x, y = (generator.integers(0, VOCABULARY, (SAMPLES, LENGTH)) for _ in "xy")
    y[generator.random(y.shape) < 0.2] = IGNORED
    y[4, 1:], y[7] = IGNORED, IGNORED
    return {"x": x, "y": y}


def texts() -> tuple[list[list[int]], np.ndarray]:
    generator = np.random.default_rng(2)
    lengths = generator.integers(2, LENGTH + 1, SAMPLES)
    rows = [[int(n) for n in generator.integers(1, VOCABULARY, length)] for length in lengths]
    return rows, generator.integers(0, CLASSES, SAMPLES)


CASES = {
    "mlp": Case(lambda: MLP(inputs=64, classes=CLASSES, widths=(12,)), "classify", images),
    "resnet": Case(
        lambda: ResNet(
            channels=1, classes=CLASSES, stem="cifar", block="basic", shortcut="pad", blocks=(1, 1), widths=(4, 8)
        ),
        "classify",
        images,
    ),
    "fast convnet": Case(
        lambda: FastConvNet(channels=1, classes=CLASSES, widths=(4, 8), scale=0.5), "classify", images
    ),
    "vit": Case(
        lambda: ViT(channels=1, side=8, classes=CLASSES, patch=4, layers=2, width=16, heads=2), "classify", images
    ),
    "wav2vec2": Case(
        lambda: Wav2Vec2(
            channels=(4, 4),
            kernels=(10, 4),
            strides=(5, 4),
            norm="group",
            bias=False,
            window=4,
            groups=2,
            layers=2,
            width=16,
            heads=2,
            stable=False,
            projected=8,
            outputs=CLASSES,
            transcribes=False,
        ),
        "classify",
        waves,
    ),
    "gpt": Case(lambda: GPT(vocabulary=VOCABULARY, length=LENGTH, layers=2, width=16, heads=2), "language", windows),
    "bert": Case(
        lambda: BERT(vocabulary=VOCABULARY, length=LENGTH, layers=2, width=16, heads=2, classes=CLASSES),
        "classify",
        texts,
    ),
    "bert, original": Case(
        lambda: OriginalBERT(vocabulary=VOCABULARY, length=LENGTH, layers=2, width=16, heads=2, classes=CLASSES),
        "classify",
        texts,
    ),
    # dropped runs are drawn for a whole micro-batch
    "ngrams": Case(
        lambda: NGrams(longest=3, buckets=127, width=4, power=0.5, gain=1.0, classes=CLASSES, dropout=0.0),
        "classify",
        texts,
    ),
    "own": Case(Words, "classify", texts),
}
# samples computed at once: all, one, two and three whose last is alone or a pair, more than there are
CUTS = (SAMPLES, 1, 2, 3, 5, 20)


@pytest.mark.parametrize("micro", CUTS)
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_of_a_step_does_not_depend_on_its_cut(name: str, micro: int) -> None:
    case = CASES[name]
    model = made(case)
    expected = reference(model, case)
    worst = apart(step_gradients(model, case, parts_of(case, micro)), expected)
    assert worst < 1e-6, f"micro-batches of {micro} move the gradient by {worst:.1e}"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.samples is texts])
def test_the_gradient_of_texts_does_not_depend_on_who_they_are_padded_with(name: str) -> None:
    """Dealt by length, in turn, or all padded to the longest there may be."""
    case = CASES[name]
    model = made(case)
    expected = reference(model, case)
    rows, y = texts()
    order = np.random.default_rng(3).permutation(SAMPLES)
    in_turn = [batch_of_texts(part, rows, y) for part in np.array_split(order, 4)]
    whole = [{"x": np.pad(pad(rows, LENGTH), ((0, 0), (0, LENGTH)))[:, :LENGTH], "y": y}]
    for parts in (in_turn, whole):
        assert apart(step_gradients(model, case, parts), expected) < 1e-6


@pytest.mark.parametrize("micro", CUTS)
@pytest.mark.parametrize("name", ["bert", "bert, original"])
def test_the_gradient_of_packed_texts_is_that_of_each_alone(name: str, micro: int) -> None:
    """Weighted by texts: what fills a row up has none."""
    case = CASES[name]
    model = made(case)
    rows, y = texts()
    parts = deal(np.arange(SAMPLES), micro, np.array([len(row) for row in rows]))
    packed = [packed_texts([rows[at] for at in part], y[part]) for part in parts]
    assert any((each["y"] == IGNORED).any() for each in packed), "some rows are filled up"
    assert apart(step_gradients(model, case, packed), reference(model, case)) < 1e-6


def test_uneven_micro_batches_weigh_by_what_they_hold() -> None:
    """A mean of means would be another gradient: this table would not pass with it."""
    case = CASES["gpt"]
    model = made(case)
    parts = parts_of(case, 3)
    counted = [part for part in parts if (part["y"] != IGNORED).any()]
    means = [gradients(model, lambda part=part: mean_loss(model, part)) for part in counted]
    mixed = {key: sum(each[key] for each in means) / len(means) for key in means[0]}
    assert apart(mixed, reference(model, case)) > 1e-3


def made(case: Case) -> Double:
    model = case.build()
    initialise(model, "xavier_normal", 0)
    double = Double(model).train()
    for module in double.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
        assert not (isinstance(module, nn.Dropout) and module.p)
    return double


def parts_of(case: Case, micro: int) -> list[Batch]:
    """A step's micro-batches as `Batches` makes them."""
    samples = case.samples()
    if isinstance(samples, tuple):
        rows, y = samples
        lengths = np.array([len(row) for row in rows])
        return [batch_of_texts(part, rows, y) for part in deal(np.arange(SAMPLES), micro, lengths)]
    return [{key: each[part] for key, each in samples.items()} for part in deal(np.arange(SAMPLES), micro)]


def batch_of_texts(part: np.ndarray, rows: list[list[int]], y: np.ndarray) -> Batch:
    return {"x": pad([rows[at] for at in part], LENGTH), "y": y[part]}


def packed_texts(rows: list[list[int]], y: np.ndarray) -> Batch:
    order, lengths = pack(np.array([len(row) for row in rows]))
    lie = [rows[n] if n < len(rows) else [0] * size for n, size in zip(order, lengths, strict=True)]
    return {"x": np.concatenate(lie)[None], "y": np.append(y, IGNORED)[order], **places_of(lengths)}


def reference(model: Double, case: Case) -> dict[str, Tensor]:
    """The gradient of the mean over all that is counted; of texts one by one, without padding."""
    samples = case.samples()
    if not isinstance(samples, tuple):
        return gradients(model, lambda: mean_loss(model, samples))
    rows, y = samples
    alone = [{"x": np.array([row]), "y": y[at : at + 1]} for at, row in enumerate(rows)]
    return gradients(model, lambda: sum(mean_loss(model, each) for each in alone) / SAMPLES)  # type: ignore[arg-type]


def mean_loss(model: Double, batch: Batch) -> Tensor:
    logits = model(torch.from_numpy(batch["x"]))
    return F.cross_entropy(logits.flatten(0, -2), torch.from_numpy(batch["y"]).flatten(), ignore_index=IGNORED)


def gradients(model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    loss().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def step_gradients(model: Double, case: Case, parts: list[Batch]) -> dict[str, Tensor]:
    """The gradient by which the loop's own step moves the weights, which are put back after it."""
    model.zero_grad()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    take_step(plan(case), model, torch.optim.SGD(model.parameters(), lr=1.0), parts, 1.0)
    moved = {name: before[name] - p.detach() for name, p in model.named_parameters()}
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(before[name])
    return moved


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of a parameter's gradient, relative to its norm."""
    assert one.keys() >= other.keys()
    return max(float((one[key] - each).norm() / each.norm().clamp(min=1e-9)) for key, each in other.items())


def plan(case: Case) -> Plan:
    return Plan(
        job="test", key="test", task=case.task, model=ModelPlan(name="test", family="test", arguments={}),
        init="default",
        optim=OptimPlan(
            optimizer="sgd", schedule="fixed", learning_rate=1.0, momentum=0.0, betas=(0.9, 0.999), eps=1e-8,
            weight_decay=0.0, warmup_steps=0, total_steps=1, steps_per_epoch=1, decay=1.0, plateau_patience=0,
            clip=math.inf,
        ),
        stop=StopPlan(
            steps=1, metric="loss", higher_is_better=False, target=-math.inf, patience=0, seconds=math.inf,
            joules=math.inf, usd=math.inf,
        ),
        batch=BatchPlan(size=SAMPLES, micro=1, accumulation=1, evaluation=1), device="cpu", threads=1, precision="fp32",
        memory_format="contiguous", evaluate_every=1, checkpoint_seconds=1.0, seed=0,
        cost=Cost(seconds=NOTHING, peak_bytes=NOTHING, joules=NOTHING, usd=NOTHING, flops=NOTHING), why=(),
    )  # fmt: skip
