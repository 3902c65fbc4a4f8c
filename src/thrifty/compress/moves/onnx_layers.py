"""Which layers of a graph that ONNX Runtime quantised err most, each by itself: given what the plain graph has there.

A layer is a product that has a twin of its name in the plain graph and whose weight was rounded. In such a graph a
tensor is rounded by QuantizeLinear and given back by DequantizeLinear, and keeps its name before the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

PRODUCTS = ("Conv", "MatMul", "Gemm")
_ROUND, _BACK = "QuantizeLinear", "DequantizeLinear"
_FED = "fed/"


def errors_by_layer(plain: Any, quantised: Any, inputs: Sequence[np.ndarray]) -> dict[str, float]:
    """Return the relative error of each quantised layer's output, the largest first.

    All layers are computed at once: the quantised graph is cut before what rounds their inputs, and fed what the plain
    one has there, so that no layer is blamed for what one before it did.

    Args:
        plain, quantised: two ``onnx.ModelProto``, of the same layers by their names.
        inputs: batches to ask with.

    Returns:
        By name of the node, the root of the squared error over the squared output.
    """
    twins = {node.name: node for node in plain.graph.node if node.op_type in PRODUCTS}
    cut = _Cut(quantised)
    for node in quantised.graph.node:
        if node.name in twins and cut.rounds(node):
            cut.take(node)
    if not cut.layers:
        return {}
    names = [node.name for node in cut.layers]
    wanted = [twins[name].output[0] for name in names]
    source = plain.graph.input[0].name
    asked = sorted({*cut.fed, *wanted} - {source})
    alone, whole = _session(cut.model()), _session(_telling(plain, asked))
    wrong, right = np.zeros(len(names)), np.zeros(len(names))
    for x in inputs:
        have = dict(zip(asked, whole.run(asked, {source: x}), strict=True)) | {source: x}
        found = alone.run([node.output[0] for node in cut.layers], {f"{_FED}{name}": have[name] for name in cut.fed})
        for at, (own, name) in enumerate(zip(found, wanted, strict=True)):
            other = have[name].astype(np.float64)
            wrong[at] += float(np.square(own - other).sum())
            right[at] += float(np.square(other).sum())
    shares = np.sqrt(wrong / np.maximum(right, 1e-30))
    return {names[at]: float(shares[at]) for at in np.argsort(-shares, kind="stable")}


class _Cut:
    """Layers of a quantised graph with what rounds their inputs, and nothing before.

    Attributes:
        layers: nodes that were taken.
        fed: tensors of the plain graph that they are given.
    """

    def __init__(self, quantised: Any) -> None:
        self._model = quantised
        self._makers = {output: node for node in quantised.graph.node for output in node.output}
        self._constants = {each.name for each in quantised.graph.initializer}
        self._nodes: dict[str, Any] = {}
        self.layers: list[Any] = []
        self.fed: list[str] = []

    def rounds(self, node: Any) -> bool:
        """Say whether a node's weight was rounded; its input may be, for the sake of another one that reads it."""
        makers = [self._makers.get(name) for name in node.input]
        return any(each is not None and each.op_type == _BACK and each.input[0] in self._constants for each in makers)

    def take(self, node: Any) -> None:
        """Take a layer."""
        self.layers.append(self._copy(node))

    def model(self) -> Any:
        """Return the layers as a model of their own."""
        from onnx import TensorProto, helper

        def told(names: Sequence[str]) -> list[Any]:
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]

        nodes = [*self._nodes.values(), *self.layers]
        used = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            "layers",
            told([f"{_FED}{name}" for name in self.fed]),
            told([node.output[0] for node in self.layers]),
            [each for each in self._model.graph.initializer if each.name in used],
        )
        imports = self._model.opset_import
        return helper.make_model(graph, opset_imports=imports, ir_version=self._model.ir_version)

    def _copy(self, node: Any) -> Any:
        copied = type(node)()
        copied.CopyFrom(node)
        copied.input[:] = [self._given(name) for name in node.input]
        return copied

    def _given(self, name: str) -> str:
        """The name of an input in the cut graph: of a constant its own, else of what is fed or rounded."""
        maker = self._makers.get(name)
        if not name or name in self._constants:
            return name
        if maker is not None and maker.op_type in (_ROUND, _BACK, "Constant"):
            if name not in self._nodes:
                # what comes before it is taken first: nodes stand in the order of computing
                copied = self._copy(maker)
                self._nodes[name] = copied
            return name
        if name not in self.fed:
            self.fed.append(name)
        return f"{_FED}{name}"


def _telling(model: Any, names: Sequence[str]) -> Any:
    """A model that gives these tensors beside its outputs."""
    from onnx import TensorProto, helper

    copied = type(model)()
    copied.CopyFrom(model)
    has = {each.name for each in copied.graph.output}
    for name in sorted({*names} - has):
        copied.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return copied


def _session(model: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone: its warnings go to stderr past Python
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
