"""Which layers of a quantised model err most, each by itself: how far its output is off, given what the plain one has.

A layer is an operator that has a twin of its name in the plain graph and gets something quantised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from thrifty.export.engines.openvino import core, openvino

PRODUCTS = ("MatMul", "Convolution", "GroupConvolution", "ScaledDotProductAttention")


def errors_by_layer(plain: Any, quantised: Any, inputs: Sequence[np.ndarray]) -> dict[str, float]:
    """Return the relative error of each quantised layer's output, the largest first.

    All layers are computed at once: the quantised graph is cut before each, and fed what the plain one has there, so
    that no layer is blamed for what one before it did.

    Args:
        plain, quantised: two ``openvino.Model`` of the same operators.
        inputs: batches to ask with.

    Returns:
        By name of the operator, the root of the squared error over the squared output.
    """
    library = openvino()
    cut, whole = quantised.clone(), plain.clone()
    twins = {each.get_friendly_name(): each for each in whole.get_ordered_ops()}
    layers = [each for each in cut.get_ordered_ops() if each.get_friendly_name() in twins and _is_quantised(each)]
    fed: dict[tuple[str, int], Any] = {}
    made: set[str] = set()
    for layer in layers:
        for entry in layer.inputs():
            source = _twinned(entry.get_source_output(), twins)
            place = (source.get_node().get_friendly_name(), source.get_index())
            if source.get_node().get_type_name() == "Constant" or place[0] in made:
                continue
            fed[place] = library.opset13.parameter(source.get_partial_shape(), source.get_element_type())
            made.add(fed[place].get_friendly_name())
            for target in source.get_target_inputs():
                target.replace_source_output(fed[place].output(0))
    names = [each.get_friendly_name() for each in layers]
    alone = _compiled([each.output(0) for each in layers], list(fed.values()))
    places = [twins[name].output(index) for name, index in fed] + [twins[name].output(0) for name in names]
    reference = _compiled(places, whole.get_parameters())
    wrong, right = np.zeros(len(names)), np.zeros(len(names))
    for x in inputs:
        found = list(reference([x]).values())
        given, wanted = found[: len(fed)], found[len(fed) :]
        for at, (own, other) in enumerate(zip(alone(given).values(), wanted, strict=True)):
            wrong[at] += float(np.square(own.astype(np.float64) - other).sum())
            right[at] += float(np.square(other.astype(np.float64)).sum())
    shares = np.sqrt(wrong / np.maximum(right, 1e-30))
    return {names[at]: float(shares[at]) for at in np.argsort(-shares)}


def _is_quantised(node: Any) -> bool:
    sources = [each.get_source_output().get_node().get_type_name() for each in node.inputs()]
    return "FakeQuantize" in sources and node.get_type_name() in PRODUCTS


def _twinned(output: Any, twins: dict[str, Any]) -> Any:
    """The output before whatever quantising put between it and a layer."""
    while output.get_node().get_friendly_name() not in twins and output.get_node().inputs():
        output = output.get_node().input_value(0)
    return output


def _compiled(outputs: Sequence[Any], parameters: Sequence[Any]) -> Any:
    library = openvino()
    results = [library.opset13.result(each) for each in outputs]
    model = library.Model(results, list(parameters), "layers")
    return core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
