"""The figures that tell how good a model is: what people call each, which way it should go, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass

from thrifty.spec.kinds import Task


@dataclass(frozen=True)
class Metric:
    """A figure of validation.

    Attributes:
        says: its name for people.
        rises: more is better.
        share: a part of one, shown in percent.
    """

    says: str
    rises: bool = False
    share: bool = False


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", rises=True, share=True),
    "auc": Metric("area under the ROC curve", rises=True),
    "bits_per_byte": Metric("bits per byte"),
    "cer": Metric("character error rate", share=True),
    "macro_f1": Metric("macro F1", rises=True),
    "micro_f1": Metric("micro F1", rises=True),
    "rmse": Metric("root mean squared error"),
    "mae": Metric("mean absolute error"),
    "r2": Metric("R²", rises=True),
    "loss": Metric("loss"),
    "wer": Metric("word error rate", share=True),
    "whole": Metric("transcripts right", rises=True, share=True),
}

# Those that a job may have as its target, by task; the first is what validation goes by where it names none.
TASK_METRICS: dict[Task, tuple[str, ...]] = {
    "classify": ("accuracy", "auc", "loss"),
    "language": ("bits_per_byte", "loss"),
    "regress": ("rmse", "mae", "r2", "loss"),
    "tag": ("micro_f1", "macro_f1", "loss"),
    "transcribe": ("wer", "cer", "loss"),
    "mask": ("loss", "accuracy"),
}
