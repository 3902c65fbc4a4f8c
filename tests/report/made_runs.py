"""A run as the report sees it: handwritten digits, a small ResNet, stopped at its target."""

from __future__ import annotations

import math
import random
from typing import Any

import cv2
import numpy as np

from thrifty.data.shown import picture, sound
from thrifty.ledger import Entry, StageEntry, add_spent
from thrifty.report import Left
from thrifty.spec import (
    BatchPlan,
    Cleaning,
    Cost,
    Dataset,
    Decision,
    Device,
    Interval,
    ModelPlan,
    OptimPlan,
    Plan,
    Quantity,
    Spent,
    StopPlan,
)
from thrifty.spec.answering import Answering
from thrifty.spec.beside import Beside
from thrifty.spec.events import Evaluated, StepDone
from thrifty.spec.mistakes import Calibration, Mistake, Mistakes
from thrifty.spec.proposal import Timeline
from thrifty.spec.traced import Traced

DIGITS = tuple(str(digit) for digit in range(10))
ENERGY = "declared 60 to 120 W at the processor share used; this machine has no energy counter"
PRICE = "c7i.large on demand, 0.0893 USD an hour, 2026-11-01, https://aws.amazon.com/ec2/pricing/on-demand/"
STEPS, STOPPED_AT, PER_EPOCH = 1_350, 1_125, 45


def make_cost() -> Cost:
    return Cost(
        seconds=Interval.around(112.0, 0.12, "5 probed steps of 78 ms, and a validation of 0.4 s an epoch"),
        peak_bytes=Interval.around(612 * 2**20, 0.1, "traced activations, weights and moments, and the loader"),
        joules=Interval.around(11_160, 0.15, "predicted time at 99 W"),
        usd=Interval.around(112 * 0.0893 / 3600, 0.12, "predicted time at the price of the machine"),
        flops=Interval(low=9.9e12, value=9.9e12, high=9.9e12, method="traced step times the steps"),
    )


def make_entry(**changes: Any) -> Entry:
    share = STOPPED_AT / STEPS

    def spent(wall: float, cpu: float, peak_mib: int, written: int = 0, **more: Any) -> Spent:
        return Spent(
            wall_s=wall, cpu_s=cpu, peak_rss_bytes=peak_mib * 2**20, written_bytes=written, joules=wall * 99,
            joules_method=ENERGY, usd=wall * 0.0893 / 3600, usd_method=PRICE, **more,
        )  # fmt: skip

    stages = [
        ("prepare", spent(1.9, 2.4, 96, 1_900_000)),
        ("plan", spent(4.2, 6.1, 402)),
        ("build", spent(0.21, 0.3, 12)),
        ("initialise", spent(0.004, 0.004, 1)),
        ("train", spent(97.3, 188.0, 588, 3_400_000, flops=9.9e12 * share, peak_share=0.094)),
        ("validate", spent(0.42, 0.8, 71)),
        ("bundle", spent(2.6, 3.9, 188, 1_300_000)),
    ]
    entry = Entry(
        id=7,
        name="digits",
        key="5f0c2ab9d1e47c60b3aa",
        folder="/home/ada/runs/digits",
        status="done",
        started="2026-11-23T22:58:04Z",
        finished="2026-11-23T22:59:51Z",
        attempts=1,
        pid=4242,
        stages=tuple(StageEntry(stage=name, attempt=1, spent=took) for name, took in stages),
        predicted=make_cost(),
        total=add_spent(*(took for _, took in stages)),
        metrics={"accuracy": 0.9861, "loss": 0.0512},
        reason="accuracy reached 0.985",
        code="1c9be2274fd03a55ae10",
        device="Intel Xeon Platinum 8488C",
    )
    return entry.model_copy(update=changes)


def make_plan() -> Plan:
    why = [
        ("model", "resnet8", "the job names it: 78,042 parameters", "job"),
        ("data.size", "8", "the images are 8 pixels wide: no more is in them", "data"),
        ("precision", "bf16", "bf16 multiplies at 9.2 times fp32 here, measured 2026-11-20", "measured"),
        ("batch.size", "32", "45 steps an epoch; the gradient noise scale of small images is near it", "rule"),
        ("batch.micro", "32", "the whole batch fits: 0.6 of 24 GiB", "rule"),
        ("memory_format", "channels_last", "convolutions ran 1.3 times faster so in the probe", "probe"),
        ("optim.learning_rate", "0.002", "AdamW at a batch of 32: 0.001 times the root of 32 over 8", "rule"),
        ("optim.schedule", "cosine", "the job names it", "job"),
        ("checkpoint_seconds", "30", "a checkpoint takes 12 ms: 0.04 % of the time", "rule"),
    ]
    return Plan(
        job="digits", key="5f0c2ab9d1e47c60b3aa", task="classify",
        model=ModelPlan(name="resnet8", family="resnet", arguments={"labels": 10, "channels": 1}), init="he_normal",
        optim=OptimPlan(optimizer="adamw", schedule="cosine", learning_rate=2e-3, momentum=0, betas=(0.9, 0.999),
                        eps=1e-8, weight_decay=0.05, warmup_steps=67, total_steps=STEPS, steps_per_epoch=PER_EPOCH,
                        decay=0.1, plateau_patience=2, clip=1.0),
        batch=BatchPlan(size=32, micro=32, accumulation=1, evaluation=256),
        stop=StopPlan(steps=STEPS, metric="accuracy", higher_is_better=True, target=0.985, patience=0, seconds=1190,
                      joules=math.inf, usd=0.5),
        device="cpu", threads=2, precision="bf16", memory_format="channels_last", evaluate_every=PER_EPOCH,
        checkpoint_seconds=30, seed=0, cost=make_cost(),
        why=tuple(Decision(field=f, value=v, reason=r, source=s) for f, v, r, s in why),
    )  # fmt: skip


def make_dataset(**changes: Any) -> Dataset:
    dataset = Dataset(
        kind="image", key="aa", counts={"train": 1437, "validation": 178, "test": 180}, labels=DIGITS,
        label_counts=dict(zip(DIGITS, (142, 146, 142, 146, 145, 146, 145, 143, 139, 143), strict=True)),
        shape=(1, 8, 8), mean=(0.3053,), std=(0.3763,), crop="center", vocabulary=0, tokens={}, text_bytes={},
        source_bytes=421_000, stored_bytes=116_000,
        cleaning=Cleaning(
            seen=1801, kept=1795, rejected={"not an image": 2, "truncated": 1, "copy of another file": 3},
            duplicates=3, across_splits=1, notes=("label '8' has 5 % fewer samples than the commonest",),
        ),
    )  # fmt: skip
    return dataset.model_copy(update=changes)


def make_device() -> Device:
    def number(value: float, source: str) -> Quantity:
        return Quantity(value=value, source=source)

    measured, sheet = "measured 2026-11-20", "Intel ARK 231730, read 2026-11-01"
    return Device(
        name="Intel Xeon Platinum 8488C", kind="cpu", cores=2, isa=("avx512_vnni", "amx_bf16", "amx_int8"),
        cache_bytes={"L1d": 96 * 2**10, "L2": 4 * 2**20, "L3": 105 * 2**20}, memory_bytes=24 * 2**30,
        memory_source="cgroup limit",
        flops_per_second={"fp32": number(0.168e12, measured), "bf16": number(1.04e12, measured)},
        bytes_per_second=number(27.1e9, measured),
        datasheet_flops_per_second={"fp32": number(0.3e12, sheet), "bf16": number(4.9e12, sheet)},
        datasheet_bytes_per_second={"memory": number(307.2e9, "8 channels of DDR5-4800, of the whole socket")},
        idle_watts=number(60, "declared: two of 48 cores of 350 W, and a share of the machine"),
        busy_watts=number(120, "declared"), usd_per_hour=number(0.0893, PRICE), measured_on="2026-11-20",
    )  # fmt: skip


def make_steps(count: int = STOPPED_AT, seed: int = 0) -> list[StepDone]:
    noise = random.Random(seed)
    steps = []
    for step in range(1, count + 1):
        done = step / STEPS
        warm = min(1.0, step / 67)
        loss = (0.05 + 2.25 * math.exp(-11 * done)) * math.exp(noise.gauss(0, 0.22))
        rate = 2e-3 * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, (step - 67) / (STEPS - 67)))))
        seconds = 0.083 * math.exp(noise.gauss(0, 0.06)) * (6 if step == 1 else 1)
        steps.append(StepDone(step, STEPS, step / PER_EPOCH, loss, rate, 1.0, 32 / seconds, seconds))
    return steps


def make_evaluations() -> list[Evaluated]:
    noise = random.Random(1)
    found, best = [], 0.0
    for step in range(PER_EPOCH, STOPPED_AT + 1, PER_EPOCH):
        accuracy = 0.9895 - 0.75 * math.exp(-9 * step / STEPS) + noise.gauss(0, 0.0035)
        accuracy = 0.9888 if step == STOPPED_AT else min(accuracy, 0.9845)
        better, best = accuracy > best, max(best, accuracy)
        loss = 0.06 + 2 * math.exp(-9 * step / STEPS)
        found.append(Evaluated(step, step / PER_EPOCH, {"accuracy": accuracy, "loss": loss}, better, 1e-3, 0.4))
    return found


def make_confusion() -> tuple[tuple[int, ...], ...]:
    rows = [[18 if truth == answer else 0 for answer in range(10)] for truth in range(10)]
    for truth, answer in ((8, 1), (3, 9)):
        rows[truth][truth] -= 1
        rows[truth][answer] += 1
    return tuple(map(tuple, rows))


def make_mistakes(**changes: Any) -> Mistakes:
    """Two pictures of digits taken for others."""
    pixels = np.zeros((8, 8, 1), np.uint8)
    cv2.line(pixels, (1, 1), (6, 6), 255)
    worst = tuple(
        Mistake(sample=at, loss=4.2 - at, wanted=wanted, said=said, sure=0.97 - at / 10, png=picture(pixels),
                name=f"digits/{wanted}/{at}.png")
        for at, (wanted, said) in enumerate((("8", "1"), ("3", "9")))
    )  # fmt: skip
    counts, sure = (*(0,) * 9, 4, 6, 12, 18, 30, 110), tuple((at + 0.5) / 15 for at in range(15))
    calibration = Calibration(counts=counts, sure=sure, right=tuple(max(0.0, each - 0.04) for each in sure), error=0.04)
    return Mistakes(samples=180, wrong=2, worst=worst, calibration=calibration).model_copy(update=changes)


def make_sound() -> str:
    return sound(np.sin(np.arange(4_000) / 5).astype(np.float32), 8_000)


def make_traced() -> Traced:
    at = tuple(float(number) for number in range(101))
    held = {
        "weights": (3.0e5,) * 101, "optimizer states": (6.0e5,) * 101,
        "activations": tuple(4e7 * math.sin(math.pi * each / 100) ** 2 for each in at),
    }  # fmt: skip
    return Traced(
        peak_at="backward · layer1.0.conv1 · convolution_backward", peak_bytes=612.0 * 2**20,
        holds={"weights": 3e5, "optimizer states": 6e5, "activations": 4e7, "torch and its libraries": 5.5e8},
        modules={"layer1.0.conv1": 2e7, "layer2.0.conv1": 1e7},
        timeline=Timeline(
            says="Memory over one micro-batch, by replay of the traced step; most is alive at aten.mm (layer 2). "
            "Beside it stand 90 MiB of libraries and holes of the heap.",
            axis="per cent of the step's operators", at=at, held=held,
        ),
        seconds_by_module={"layer1.*.conv1": 0.02, "fc": 0.001, "the loss and the optimizer": 0.004},
        seconds_by_op={"convolution": 0.018, "batch norm": 0.004, "pointwise": 0.003},
    )  # fmt: skip


def make_beside(**changes: Any) -> Beside:
    steps = [float(step) for step in range(10, 301, 10)]
    found = Beside(
        name="vit-finetuned", source="transformers.Trainer", steps=300, epochs=6.0, batch=16, seconds=421.0,
        loss=tuple((step, 2.3 * math.exp(-step / 90)) for step in steps),
        learning_rate=tuple((step, 1e-3 * (1 - step / 301)) for step in steps),
        validation={
            "accuracy": tuple((step, 1 - 0.8 * math.exp(-step / 90)) for step in steps[4::5]),
            "loss": tuple((step, 2 * math.exp(-step / 90)) for step in steps[4::5]),
        },
    )  # fmt: skip
    return found.model_copy(update=changes)


def make_left(**changes: Any) -> Left:
    """Everything that a run can leave but a compression."""
    seconds = {1: 0.0009, 2: 0.0010, 4: 0.0013, 8: 0.0019, 16: 0.0033, 32: 0.0062}
    parts: dict[str, Any] = {
        "mistakes": make_mistakes(), "traced": make_traced(), "beside": make_beside(),
        "answerings": [Answering(seconds=seconds, sha256="aa", cores=2)],
    }  # fmt: skip
    return Left(**{**parts, **changes})


REJECTS = [
    {"path": "digits/3/0417.png", "reason": "truncated"},
    {"path": "digits/7/notes.txt", "reason": "not an image"},
    {"path": "digits/7/Thumbs.db", "reason": "not an image"},
    {"path": "digits/1/0093 (copy).png", "reason": "copy of another file"},
    {"path": "digits/1/0094 (copy).png", "reason": "copy of another file"},
    {"path": "digits/5/1120.png", "reason": "copy of another file"},
]
JOB = """\
name: digits
data:   {kind: image, path: digits}
model:  resnet8
target: {accuracy: 0.985}
budget: {time: 20min, money: 0.50USD}
train:  {epochs: 30, schedule: cosine}
"""
