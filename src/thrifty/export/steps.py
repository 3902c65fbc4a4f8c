"""A traced program as steps that another library can take: JSON that names operators and values, tensors beside it.

``steps.json`` has ``inputs`` and ``outputs`` by name, ``weights`` (a value's name to its tensor's in
``weights.safetensors``) and ``steps`` in order, each with its operator's name, its arguments, and type and sizes of
what it gives; sizes that are open are null. An argument is a number, text, truth value, null, a list of such,
``{"value": name}`` for what a step gave, or ``{"type": name}`` for a type of numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from thrifty.errors import BundleError
from thrifty.export.program import quiet

STEPS, WEIGHTS = "steps.json", "weights.safetensors"
# where and how torch keeps a tensor
_KEEPING = {"device", "layout", "memory_format", "non_blocking", "pin_memory"}


def write_steps(program: ExportedProgram, folder: Path, *, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Write a program, broken down to torch's core operators, as the steps that its outputs need.

    Args:
        program: traced; its open sizes stay open.
        folder: there already.
        inputs, outputs: names, in the program's order.

    Raises:
        BundleError: an argument is of a kind that has no form here.
    """
    with quiet():
        core = program.run_decompositions()
    places = {each.arg.name: each for each in core.graph_signature.input_specs}
    named = dict(zip((name for name, each in places.items() if each.kind == InputKind.USER_INPUT), inputs, strict=True))
    *_, last = core.graph.nodes
    nodes = _needed(core.graph.nodes)
    weights = {node.name: str(places[node.name].target) for node in nodes if node.name in places.keys() - named}
    said = {
        "inputs": [
            {"name": named[node.name], "value": node.name, **_meta(node)}
            for node in core.graph.nodes
            if node.name in named
        ],
        "weights": weights,
        "steps": [_step(node) for node in nodes if node.op == "call_function"],
        "outputs": dict(zip(outputs, map(_argument, last.args[0]), strict=True)),
    }
    (folder / STEPS).write_text(json.dumps(said), encoding="utf-8")
    tensors = {**core.state_dict, **core.constants}
    # a file of its own holds no tensor that is part of another
    kept = {name: tensors[name].detach().contiguous().clone() for name in sorted(set(weights.values()))}
    save_file(kept, folder / WEIGHTS)


def _needed(graph: Iterable[fx.Node]) -> list[fx.Node]:
    """Leave out what no output hangs on: the tracer's checks of sizes."""
    nodes = list(graph)
    wanted = {nodes[-1]}
    for node in reversed(nodes):
        if node in wanted:
            wanted.update(node.all_input_nodes)
    return [node for node in nodes if node in wanted]


def _step(node: fx.Node) -> dict[str, Any]:
    return {
        "value": node.name,
        "operator": operator_name(node.target),
        "arguments": [_argument(each) for each in node.args],
        "options": {name: _argument(each) for name, each in node.kwargs.items() if name not in _KEEPING},
        **_meta(node),
    }


def operator_name(target: Any) -> str:
    """Return the name that an operator goes by: of torch's, or a function of Python on sizes.

    >>> operator_name(torch.ops.aten.add.Tensor), operator_name(torch.sym_max)
    ('aten.add.Tensor', 'torch.sym_max')
    """
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return f"{target.__module__.removeprefix('_')}.{target.__name__}"


def _meta(node: fx.Node) -> dict[str, Any]:
    """Type and sizes of one tensor; nothing of what is none."""
    found = node.meta.get("val")
    if not isinstance(found, Tensor):
        return {}
    return {"type": _type(found.dtype), "sizes": [size if isinstance(size, int) else None for size in found.shape]}


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _argument(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"value": value.name}
    if isinstance(value, list | tuple):
        return [_argument(each) for each in value]
    if isinstance(value, torch.dtype):
        return {"type": _type(value)}
    if isinstance(value, torch.device | torch.layout | torch.memory_format):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise BundleError(f"an argument {str(value)[:80]!r} of {type(value).__name__} has no form for other libraries")
