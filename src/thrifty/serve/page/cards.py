"""What each served model is, for people: its card of facts, and what the form to try it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from thrifty.serve.models import Model, Models
from thrifty.spec import BundleInfo, Compression, Dataset
from thrifty.spec.kinds import KINDS
from thrifty.spec.metrics import METRICS
from thrifty.spec.table import Column
from thrifty.spec.units import format_bytes, format_joules, format_seconds, format_usd

_MOST_VALUES, _MOST_LABELS, _SHOWN_LABELS = 200, 2000, 8
_DOES = {
    "classify": "tells which of {labels} {sample} is",
    "language": "goes on with a text",
    "mask": "fills in hidden words of a text",
    "regress": "tells {target} of a row",
    "tag": "tells which of {labels} a text has",
    "transcribe": "writes down what is said in a recording",
}
_SAMPLE = {"audio": "a recording", "image": "an image", "language": "a text", "table": "a row", "text": "a text"}
# a day as the dates of a column are written
_LIKE = datetime(2026, 1, 31, 12, 30)
_HELD = {"within": "within what was allowed", "over": "more than was allowed", "unproven": "not proven to be allowed"}


def cards(models: Models) -> dict[str, Any]:
    """Describe all models by name, each version with its facts and the inputs of its form, the latest first."""
    names = sorted({model.name for model in models})
    return {"models": [{"name": name, "versions": [_card(each) for each in models.versions(name)]} for name in names]}


def _card(model: Model) -> dict[str, Any]:
    info = model.bundle.info
    return {
        "label": model.label,
        "version": model.version,
        "does": _does(info),
        "facts": [[name, text] for name, text in _facts(info, model.bundle.folder).items() if text],
        "form": _form(model),
        "labels": list(info.data.labels[:_MOST_LABELS]) if info.task in ("classify", "tag") else [],
        "target": info.data.table.target if info.data.table and not info.data.labels else "",
    }


def _does(info: BundleInfo) -> str:
    data = info.data
    target = data.table.target if data.table else ""
    says = _DOES.get(info.task, info.task)
    return says.format(labels=f"{len(data.labels):,} labels", sample=_SAMPLE[data.kind], target=target)


def _facts(info: BundleInfo, folder: Path) -> dict[str, str]:
    data, bill = info.data, info.bill
    spent = [
        format_seconds(bill.wall_s) if bill.wall_s else "",
        format_joules(bill.joules) if bill.joules else "",
        format_usd(bill.usd) if bill.usd else "",
    ]
    return {
        "Task": f"{info.task}, of {KINDS[data.kind].samples}",
        "Model": info.model.name,
        "Labels": ", ".join(data.labels[:_SHOWN_LABELS]) + ("" if len(data.labels) <= _SHOWN_LABELS else ", …"),
        "Computed by": f"{info.engine} in {info.precision}",
        "Size": _size(info, folder),
        "Trained on": _learned_from(data),
        "Held-out data": figures(info.metrics),
        "Training took": ", ".join(filter(None, spent)),
        "Compressed": "" if info.compression is None else verdict(info.compression),
        "Made": info.created[:16].replace("T", " "),
    }


def _size(info: BundleInfo, folder: Path) -> str:
    try:
        return format_bytes(sum((folder / name).stat().st_size for name in info.files))
    except OSError:  # its folder is gone, and it still answers
        return ""


def _learned_from(data: Dataset) -> str:
    counts = data.counts
    held_out = counts.get("validation", 0) + counts.get("test", 0)
    tokens = f" ({data.tokens['train']:,} tokens)" if KINDS[data.kind].tokenized and "train" in data.tokens else ""
    return f"{counts.get('train', 0):,} {KINDS[data.kind].samples}{tokens}; {held_out:,} more were held out"


def figures(metrics: Mapping[str, float]) -> str:
    """Say the figures of held-out data in a line, with the interval of those that have one.

    >>> figures({"accuracy": 0.98, "accuracy_low": 0.95, "accuracy_high": 0.99, "loss": 0.1, "samples": 180})
    'accuracy 98.0 % (95.0 % to 99.0 %), loss 0.1; 180 samples'
    """
    said = []
    for name, metric in METRICS.items():
        if name in metrics:
            interval = [metrics[f"{name}_{end}"] for end in ("low", "high") if f"{name}_{end}" in metrics]
            more = f" ({' to '.join(_figure(name, each) for each in interval)})" if len(interval) == 2 else ""
            said.append(f"{metric.says} {_figure(name, metrics[name])}{more}")
    counted = [f"{metrics[name]:,.0f} {name}" for name in ("samples", "tokens", "words") if name in metrics]
    return "; ".join(filter(None, (", ".join(said), ", ".join(counted))))


def _figure(name: str, value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    return f"{100 * value:.1f} %" if name in METRICS and METRICS[name].share else f"{value:.4g}"


def verdict(made: Compression) -> str:
    """Say how a bundle was made cheaper, and what the guard found of its answers."""
    found = made.test or made.validation
    name = METRICS[found.metric].says if found.metric in METRICS else found.metric
    change = f"{name} {_figure(found.metric, found.reference)} before, {_figure(found.metric, found.candidate)} after"
    held = _HELD[(made.validation if found.held != "over" else found).held]
    return f"{' + '.join(made.moves) or 'as trained'}: {change}, on {found.rows:,} {found.split} rows; {held}"


def _form(model: Model) -> dict[str, Any]:
    """What a form to try a model asks for; ``writes`` where it streams by OpenAI's protocol."""
    data, form = model.bundle.info.data, model.form
    asks: dict[str, Any] = {"input": model.input, "kind": data.kind, "says": form.says}
    if data.kind == "table" and data.table is not None:
        asks["columns"] = [_column(each) for each in data.table.columns]
    if data.kind == "text":
        asks |= {"pair": bool(data.separator), "hides": model.bundle.info.task == "mask"}
    if data.kind == "language":
        # prompt and answer share the model's context
        asks |= {"writes": model.writer is not None, "most_tokens": min(model.limits.max_tokens, data.length)}
    return asks


def _column(column: Column) -> dict[str, Any]:
    low, high = (column.edges[0], column.edges[-1]) if column.edges and column.kind == "number" else (None, None)
    usual = f"{low:g} to {high:g}" if low is not None and high is not None else _LIKE.strftime(column.format)
    return {"name": column.name, "kind": column.kind, "values": list(column.values[:_MOST_VALUES]), "usual": usual}
