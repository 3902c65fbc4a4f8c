"""`BundleInfo`: what a served artefact is; the file ``bundle.json`` beside its weights."""

from __future__ import annotations

from thrifty.spec.compression import Compression
from thrifty.spec.cost import Spent
from thrifty.spec.dataset import Dataset
from thrifty.spec.plain import Plain
from thrifty.spec.plan import ModelPlan

BUNDLE_FORMAT = 2
# without an engine: computed by torch
OLDEST_BUNDLE_FORMAT = 1


class BundleInfo(Plain):
    """A trained model with all it needs to answer raw input.

    Attributes:
        format: version of this layout.
        name: the model's name on the server.
        version: a whole number, served as the model version.
        task: ``classify`` or ``language``.
        model: what to build the weights into.
        data: how raw input becomes the model's input (size, colour, statistics, labels, vocabulary).
        metrics: of the held-out test split.
        isa: instruction sets of the machine that made it, and on which its answers were judged.
        files: sha256 of every other file of the bundle, by its name.
        bill: spent on the run that made it.
        created: ISO date and time.
        engine: what computes it: ``torch``, ``openvino``, ``onnx`` or ``aoti``.
        precision: that it computes in: ``fp32``, ``bf16`` or ``int8``.
        compression: how it was made cheaper; None where it is as trained.
    """

    format: int
    name: str
    version: int
    task: str
    model: ModelPlan
    data: Dataset
    metrics: dict[str, float]
    isa: tuple[str, ...]
    files: dict[str, str]
    bill: Spent
    created: str
    engine: str = "torch"
    precision: str = "fp32"
    compression: Compression | None = None
