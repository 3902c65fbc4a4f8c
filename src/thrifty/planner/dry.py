"""A plan's steps taken on memory alone before it runs: what its heap grows to, beside what the libraries take."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from thrifty.cost import HeapPeak, heap_peak
from thrifty.hardware.pages import keeping
from thrifty.hardware.runtime import runtime_bytes
from thrifty.models.inputs import MEMORY_FORMATS
from thrifty.models.losses import LOSSES
from thrifty.planner.learning import Learning
from thrifty.planner.lengths import PackedShape, largest_shape, shorter_shapes
from thrifty.planner.remembered import hearsay
from thrifty.planner.search import Settings
from thrifty.planner.steps import batch_of, built, stepper_of
from thrifty.spec import Dataset

# lengths of texts beside the longest that a dry run takes steps of; what more of them leave goes on as these do
LENGTHS_TRIED = 6
# what peft and transformers, which it loads, add when they are imported: 58 and 20 MiB of versions 0.21 and 5.24
PEFT_BYTES = 78 << 20
# what polars 2.1, with the threads and heap that reading rows takes, leaves resident of a table of 20,640 rows: where
# the data were prepared in this process it stays, and a run that finds them prepared does without
POLARS_BYTES = 72 << 20


@dataclass(frozen=True)
class Held:
    """What was found of a plan's memory before it runs; None where this machine does not tell.

    Attributes:
        heap: of a dry run.
        runtime: bytes of each part of the libraries, measured.
    """

    heap: HeapPeak | None = None
    runtime: Mapping[str, int] | None = None


def dry_run(
    learning: Learning,
    dataset: Dataset,
    settings: Settings,
    evaluation: int,
    *,
    share: int,
    cores: int,
    release: bool,
) -> Held:
    """Take the steps of a way on a processor, a validation after them.

    Args:
        learning, dataset: what is planned.
        settings: the way.
        evaluation: samples of a batch of the validation.
        share: samples of a step that are computed here.
        cores: of the processor.
        release: parameters are stepped in the backward pass.
    """
    micro = settings["micro_batch"]
    dry = functools.partial(
        heap_peak,
        lambda: built(learning, settings["checkpointing"]),
        LOSSES[learning.task],
        batch_of(dataset, micro, largest_shape(dataset, settings, batch=learning.size)),
        precision=settings["precision"],
        optimizer=stepper_of(learning, dataset, settings["precision"]),
        accumulation=math.ceil(share / micro),
        evaluation_batch=batch_of(dataset, evaluation, _evaluated(dataset, settings, evaluation)),
        memory_format=MEMORY_FORMATS[settings["memory_format"]],
        keeping=keeping("cpu", settings["checkpointing"]),
        release=release,
    )
    shorter = shorter_shapes(dataset, settings, batch=learning.size)
    with hearsay(learning) as told:
        heap = dry(told=told)
        if heap is not None and shorter:
            tried = shorter[:: -(-len(shorter) // LENGTHS_TRIED)]
            others = dry(told=told, others=[batch_of(dataset, micro, length) for length in tried])
            assert others is not None
            heap = _grown(heap, others, len(shorter) / len(tried))
    runtime = runtime_bytes(cores)
    if learning.adapt.kind != "none" and runtime.get("imports"):
        runtime = {**runtime, "imports": runtime["imports"] + PEFT_BYTES}
    if dataset.kind == "table" and "polars" in sys.modules:
        runtime = {**runtime, "polars": POLARS_BYTES}
    return Held(heap, runtime)


def _evaluated(dataset: Dataset, settings: Settings, evaluation: int) -> PackedShape | None:
    """Texts are validated padded, and documents apart as they are learned."""
    if dataset.kind != "language":
        return None
    return largest_shape(dataset, {**settings, "micro_batch": evaluation}, batch=evaluation)


def _grown(one: HeapPeak, some: HeapPeak, share: float) -> HeapPeak:
    """The heap after steps of all lengths, from that of one and of some: each leaves about as much as any other."""

    def line(one: int, some: int) -> int:
        return max(one, round(one + (some - one) * share))

    return HeapPeak(step=line(one.step, some.step), evaluation=line(one.evaluation, some.evaluation))
