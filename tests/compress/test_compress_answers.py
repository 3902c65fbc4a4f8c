"""What rows say of a metric adds up to what evaluation says of all of them, whatever the task."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "export"))
from made_bundles import language_dataset, sound_dataset, table_dataset

from thrifty.compress.answers import tally
from thrifty.data import Batch
from thrifty.evaluate import evaluate
from thrifty.spec import TASK_METRICS, Dataset, Task

ROWS, TOKENS, VOCABULARY, LABELS = 24, 6, 3, 3


def _batches(task: Task) -> tuple[nn.Module, list[Batch], Dataset]:
    draw = np.random.default_rng(0)
    torch.manual_seed(0)
    data = language_dataset(VOCABULARY).model_copy(update={"text_bytes": {"test": 500}, "labels": ("a", "b")})
    if task in {"language", "mask"}:
        x = draw.integers(0, VOCABULARY, (ROWS, TOKENS))
        y = np.where(draw.random(x.shape) < 0.5, -100, draw.integers(0, VOCABULARY, x.shape))
        model: nn.Module = nn.Embedding(VOCABULARY, VOCABULARY)
    elif task == "transcribe":
        data = sound_dataset("transcribe")
        x, y = draw.normal(size=(ROWS, TOKENS, 4)), draw.integers(1, VOCABULARY, (ROWS, 2))
        model = nn.Linear(4, VOCABULARY)
    else:
        x = draw.normal(size=(ROWS, 4))
        y = {"classify": draw.integers(0, 2, ROWS), "tag": draw.integers(0, 2, (ROWS, LABELS)).astype(np.float32)}.get(
            task, draw.normal(size=ROWS).astype(np.float32)
        )
        model = nn.Linear(4, {"classify": 2, "tag": LABELS}.get(task, 1))
        if task == "regress":
            data = table_dataset(())
    x = x if x.dtype.kind == "i" else x.astype(np.float32)
    return model, [{"x": x[at : at + 10], "y": y[at : at + 10]} for at in range(0, ROWS, 10)], data


@pytest.mark.parametrize(
    ("task", "metric"), [(task, metric) for task, metrics in TASK_METRICS.items() for metric in metrics], ids=str
)
def test_rows_add_up_to_the_metric_of_evaluation(task: Task, metric: str) -> None:
    model, batches, data = _batches(task)
    unit = data.table.deviation if data.table is not None else 1.0
    wanted = evaluate(model, batches, task, text_bytes=data.text_bytes.get("test", 0), labels=data.labels, unit=unit)
    found = tally(model, batches, task, metric, data, "test")
    assert len(found.sums) == ROWS
    # the area of evaluation puts log odds into bins
    assert found.value == pytest.approx(wanted.metrics[metric], rel=1e-3 if metric == "auc" else 1e-5)
    half = tally(model, [{name: each[:10] for name, each in batches[0].items()}], task, metric, data, "test")
    weights = np.zeros(ROWS)
    weights[:10] = 1
    if metric not in {"auc", "bits_per_byte"}:
        assert float(found.figure(weights @ found.sums)) == pytest.approx(half.value, rel=1e-6)
