"""Evaluate: a model and held-out data in, the metrics of the task out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from thrifty.errors import DataError
from thrifty.evaluate.classified import Classified, wilson
from thrifty.evaluate.figures import Evaluation, Kept, Measure, OneByOne
from thrifty.evaluate.hidden import Hidden
from thrifty.evaluate.predicted import Predicted
from thrifty.evaluate.regressed import Regressed
from thrifty.evaluate.tagged import Tagged
from thrifty.evaluate.transcribed import Transcribed
from thrifty.models.inputs import to_tensors
from thrifty.models.precision import autocasting
from thrifty.spec import Task

__all__ = ["MEASURES", "Evaluation", "Measure", "OneByOne", "evaluate", "wilson"]

# What is counted for each task; it is told the bytes of the raw text, where there is any, the labels, and the unit.
MEASURES: dict[Task, Callable[[int, Sequence[str], float], Measure]] = {
    "classify": lambda text_bytes, labels, unit: Classified(),
    "language": lambda text_bytes, labels, unit: Predicted(text_bytes),
    "regress": lambda text_bytes, labels, unit: Regressed(unit),
    "tag": lambda text_bytes, labels, unit: Tagged(),
    "transcribe": lambda text_bytes, labels, unit: Transcribed(labels),
    "mask": lambda text_bytes, labels, unit: Hidden(),
}


def evaluate(
    model: nn.Module,
    batches: Iterable[Mapping[str, np.ndarray]],
    task: Task,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    memory_format: str = "contiguous",
    text_bytes: int = 0,
    labels: Sequence[str] = (),
    unit: float = 1.0,
    add_up: Callable[[np.ndarray], np.ndarray] = lambda sums: sums,
    inference: bool = True,
    one_by_one: bool = False,
) -> Evaluation:
    """Run a model over batches in ``eval`` mode; it is left in the mode it was in.

    Args:
        model: already on the device.
        batches: of ``x`` and ``y``, as for training; one without ``y`` is computed and not counted.
        task: of `MEASURES`.
        device: ``cpu`` or ``cuda``.
        precision: as in a `Plan`.
        memory_format: of images.
        text_bytes: bytes of the raw text that the tokens stand for; 0 when not known.
        labels: of the data set; of transcripts, what tokens stand for.
        unit: of numbers to tell, what one deviation is.
        add_up: sums over the ranks that measure a part each; all get the figures of the whole.
        inference: whether tensors made here are never trained with; weights that ranks gather are kept and may be.
        one_by_one: keep every answer too; of one process, and of tasks that answer samples.

    Raises:
        DataError: there was nothing to evaluate.
    """
    measured = MEASURES[task](text_bytes, labels, unit)
    kept = measured.kept = Kept() if one_by_one else None
    training = model.training
    model.eval()
    try:
        # in this order: where it is off, inference mode turns gradients on
        with torch.inference_mode(inference), torch.no_grad(), autocasting(device, precision):
            for arrays in batches:
                measured.add(model, to_tensors(arrays, device, memory_format))
    finally:
        model.train(training)
    measured.take(add_up(measured.sums()))
    if not measured.count:
        raise DataError("there are no samples to evaluate on", mend="Hold out more: data.split.")
    found = measured.evaluation()
    return found if kept is None else replace(found, one_by_one=kept.found())
