"""What a model's figures of the held-out test split say, in one line, by what it was to tell."""

from __future__ import annotations

from collections.abc import Callable


def held_out_line(metrics: dict[str, float]) -> str:
    """Say in one line how a model did on the held-out test split, with its 95 % interval where there is one.

    >>> held_out_line({"accuracy": 0.98, "accuracy_low": 0.95, "accuracy_high": 0.99, "loss": 0.1, "samples": 180})
    'accuracy 0.9800 (0.9500 to 0.9900), loss 0.1000 on 180 held-out samples'
    """
    return next(says(metrics) for name, says in _HELD_OUT.items() if name in metrics)


def _classified(metrics: dict[str, float]) -> str:
    low, high = metrics["accuracy_low"], metrics["accuracy_high"]
    auc = f", AUC {metrics['auc']:.4f}" if "auc" in metrics else ""
    figures = f"accuracy {metrics['accuracy']:.4f} ({low:.4f} to {high:.4f}){auc}, loss {metrics['loss']:.4f}"
    return f"{figures} on {metrics['samples']:,.0f} held-out samples"


def _predicted(metrics: dict[str, float]) -> str:
    figures = f"{metrics['bits_per_byte']:.4f} bits per byte, perplexity {metrics['perplexity']:.1f}"
    return f"{figures} on {metrics['tokens']:,.0f} held-out tokens"


def _regressed(metrics: dict[str, float]) -> str:
    figures = f"RMSE {metrics['rmse']:.6g}, MAE {metrics['mae']:.6g}, R² {metrics['r2']:.4f}"
    return f"{figures} on {metrics['samples']:,.0f} held-out samples"


def _told(metrics: dict[str, float]) -> str:
    figures = f"loss {metrics['loss']:.4f}, perplexity {metrics['perplexity']:.1f}, {metrics['accuracy']:.1%} told"
    return f"{figures} of {metrics['words']:,.0f} hidden words"


def _tagged(metrics: dict[str, float]) -> str:
    figures = f"micro F1 {metrics['micro_f1']:.4f}, macro F1 {metrics['macro_f1']:.4f}, loss {metrics['loss']:.4f}"
    return f"{figures} on {metrics['samples']:,.0f} held-out samples"


def _transcribed(metrics: dict[str, float]) -> str:
    figures = f"word error rate {metrics['wer']:.4f}, character error rate {metrics['cer']:.4f}"
    return f"{figures} on {metrics['samples']:,.0f} held-out recordings"


# by the figure that only its task has
_HELD_OUT: dict[str, Callable[[dict[str, float]], str]] = {
    "accuracy_low": _classified,
    "bits_per_byte": _predicted,
    "micro_f1": _tagged,
    "rmse": _regressed,
    "wer": _transcribed,
    "words": _told,
}
