"""Answers as TensorFlow Serving writes them: errors over several lines, and NaN as a number."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from thrifty.errors import RequestError, ThriftyError
from thrifty.serve.http import TEXT, Reply, json_reply
from thrifty.serve.http import error_reply as plain_error
from thrifty.serve.models import Model


def error_reply(error: ThriftyError) -> Reply:
    """Answer an error as rapidjson's PrettyWriter does."""
    plain = plain_error(error)
    return Reply(plain.status, msgspec.json.format(plain.body, indent=4), close=plain.close, headers=plain.headers)


def by_row(model: Model, answers: Sequence[Mapping[str, Any]]) -> Reply:
    """Predictions row by row; one output goes without its name."""
    columns = _columns(model, answers)
    if len(columns) == 1:
        return _reply({"predictions": next(iter(columns.values()))})
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return _reply({"predictions": rows})


def by_column(model: Model, answers: Sequence[Mapping[str, Any]]) -> Reply:
    """Outputs each as one tensor; one output goes without its name."""
    columns = _columns(model, answers)
    return _reply({"outputs": columns if len(columns) > 1 else next(iter(columns.values()))})


def classified(model: Model, answers: Sequence[Mapping[str, Any]]) -> Reply:
    """Labels with their scores, of each example."""
    return _reply({"results": scored(model, answers)})


def regressed(answers: Sequence[Mapping[str, Any]]) -> Reply:
    """One number of each example."""
    return _reply({"results": told(answers)})


def scored(model: Model, answers: Sequence[Mapping[str, Any]]) -> list[list[tuple[str, float]]]:
    """Of each answer the labels with their scores."""
    labels = model.bundle.info.data.labels
    return [list(zip(labels, row["probabilities"].tolist(), strict=True)) for row in answers]


def told(answers: Sequence[Mapping[str, Any]]) -> list[float]:
    """Of each answer its number."""
    return [float(row["value"]) for row in answers]


def _columns(model: Model, answers: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, (datatype, _) in model.form.outputs.items():
        values = [row[name] for row in answers]
        found[name] = values if datatype == "BYTES" else np.asarray(values).tolist()
    return found


def _reply(value: dict[str, Any]) -> Reply:
    reply = json_reply(value)
    # so msgspec writes what is no number; Python's own writer says NaN and Infinity, as rapidjson does
    return Reply(200, json.dumps(value).encode("utf-8", "replace")) if b"null" in reply.body else reply


def not_allowed(origin: bytes) -> Reply:
    """Answer OPTIONS: 200 to a page that says where it comes from, else 400; both empty."""
    known = origin.lower().startswith((b"http://", b"https://"))
    return Reply(200 if known else 400, b"", TEXT)


def malformed(method: str, path: str) -> RequestError:
    """The error of a path that is none of the protocol's."""
    return RequestError(f"Malformed request: {method} {path}")
