"""The dataset of a job that declares the size of its text: counts alone, enough to plan with."""

from __future__ import annotations

from thrifty.spec import Cleaning, Dataset, DeclaredData

# What is held out of declared text to validate on: a twentieth, but no more than a million tokens.
HELD_OUT_SHARE, HELD_OUT_TOKENS = 0.05, 1_000_000


def declared_dataset(data: DeclaredData) -> Dataset:
    """Make the dataset that a declaration stands for.

    >>> data = DeclaredData(kind="language", tokens=2_048_000, vocabulary=512, length=1024)
    >>> declared_dataset(data).counts["train"]
    2000
    """
    held_out = min(round(data.tokens * HELD_OUT_SHARE), HELD_OUT_TOKENS)
    tokens = {"train": data.tokens, "validation": held_out, "test": held_out}
    return Dataset(
        kind="language",
        key="declared",
        counts={split: max(1, count // data.length) for split, count in tokens.items()},
        labels=(),
        label_counts={},
        shape=(data.length,),
        mean=(),
        std=(),
        crop="none",
        vocabulary=data.vocabulary,
        tokens=tokens,
        text_bytes={},
        source_bytes=0,
        stored_bytes=0,
        cleaning=Cleaning(seen=0, kept=0, rejected={}, duplicates=0, across_splits=0),
    )
