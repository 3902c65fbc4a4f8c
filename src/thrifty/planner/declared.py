"""The dataset of a job that declares the size of its data: counts alone, enough to plan with."""

from __future__ import annotations

from thrifty.spec import Cleaning, Dataset, Declared, DeclaredData, DeclaredImages

# What is held out to validate on: a twentieth, but no more than a million tokens, or 50,000 images as ImageNet has.
HELD_OUT_SHARE, HELD_OUT_TOKENS, HELD_OUT_IMAGES = 0.05, 1_000_000, 50_000
_NOTHING_CLEANED = Cleaning(seen=0, kept=0, rejected={}, duplicates=0, across_splits=0)


def declared_dataset(data: Declared) -> Dataset:
    """Make the dataset that a declaration stands for.

    >>> data = DeclaredData(kind="language", tokens=2_048_000, vocabulary=512, length=1024)
    >>> declared_dataset(data).counts["train"]
    2000
    >>> declared_dataset(DeclaredImages(kind="image", images=1_281_167, classes=1000, size=224)).shape
    (3, 224, 224)
    """
    return _images(data) if isinstance(data, DeclaredImages) else _text(data)


def _images(data: DeclaredImages) -> Dataset:
    held_out = max(1, min(round(data.images * HELD_OUT_SHARE), HELD_OUT_IMAGES))
    counts = {"train": data.images, "validation": held_out, "test": held_out}
    channels = {"gray": 1, "rgb": 3}[data.color]
    return Dataset(
        kind="image",
        task="classify",
        key="declared",
        counts=counts,
        labels=tuple(map(str, range(data.classes))),
        label_counts={},
        shape=(channels, data.size, data.size),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        crop="center",
        vocabulary=0,
        tokens={},
        text_bytes={},
        source_bytes=0,
        stored_bytes=sum(counts.values()) * channels * data.size**2,
        cleaning=_NOTHING_CLEANED,
    )


def _text(data: DeclaredData) -> Dataset:
    held_out = min(round(data.tokens * HELD_OUT_SHARE), HELD_OUT_TOKENS)
    tokens = {"train": data.tokens, "validation": held_out, "test": held_out}
    return Dataset(
        kind="language",
        task="language",
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
        cleaning=_NOTHING_CLEANED,
    )
