"""Which sample goes to which split: decided by a hash of each, so that adding one does not reshuffle the rest."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from thrifty.data.inputs import Reject
from thrifty.errors import DataError
from thrifty.spec import Split

AnySample = TypeVar("AnySample", str, int)
HELD_OUT = ("test", "validation")
NOT_A_SPLIT = "not named after a split"
# what files and folders of published data sets are called after the split that they hold
SPLIT_NAMES = {
    "train": "train", "training": "train", "dev": "validation", "val": "validation", "valid": "validation",
    "validation": "validation", "test": "test", "testing": "test",
}  # fmt: skip
_NAMED_AFTER_SPLIT = re.compile(rf"({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?:[-_.0-9].*)?")


def split_of(name: str) -> str:
    """Tell the split that a file is named after, else a folder it lies in; an empty string for none.

    >>> split_of("sst2/dev.tsv"), split_of("train-00001.jsonl"), split_of("test/a.csv"), split_of("testimonials.csv")
    ('validation', 'train', 'test', '')
    """
    path = PurePosixPath(name.lower())
    for part in (path.stem, *reversed(path.parent.parts)):
        if found := _NAMED_AFTER_SPLIT.fullmatch(part):
            return SPLIT_NAMES[found[1]]
    return ""


def split_by_words(name: str) -> str:
    """As `split_of`, and by any word of a file's name: what is packed is often named after its data set first.

    >>> split_by_words("pets-train-000.tar"), split_by_words("train-00000-of-00002.parquet"), split_by_words("a.tar")
    ('train', 'train', '')
    """
    words = re.split(r"[^a-z]+", PurePosixPath(name).stem.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), split_of(name))


def splits_by_name(
    path: Path, names: Iterable[str], tell: Callable[[str], str] = split_of, *, example: str
) -> tuple[dict[str, str], list[Reject]]:
    """Tell the split of each file to read; an empty string for all where no name says one.

    Args:
        path: of the data, for the error.
        names: of its files.
        tell: returns the split that a name says.
        example: a file to train on, for the error.

    Returns:
        The splits, and the files that are not named after one beside others that are.

    Raises:
        DataError: files are named after splits, and none to train on.
    """
    named = {name: tell(name) for name in names}
    if not any(named.values()):
        return named, []
    given = {name: part for name, part in named.items() if part}
    if "train" not in given.values():
        raise DataError(
            f"'{path}' has files for {' and '.join(sorted(set(given.values())))} and none to train on",
            mend=f"Name one {example}, or give the path of a single file to be split.",
        )
    return given, [Reject(name, NOT_A_SPLIT) for name, part in named.items() if not part]


def rank(seed: int, sha256: str, name: str) -> bytes:
    """Return a sample's place in the seeded order: a hash of seed, content and name."""
    return hashlib.sha256(f"{seed}\0{sha256}\0{name}".encode()).digest()


def split_by_count(
    ranks: Mapping[AnySample, bytes], split: Split, held_out: Sequence[str] = HELD_OUT
) -> dict[AnySample, str]:
    """Deal the samples of one label: the lowest ranks to test, the next to validation, the rest to training.

    Each split gets the nearest whole number to its exact share, and at least one sample.

    Args:
        ranks: place in the seeded order of each sample, by its name or number; at least one for each split.
        split: shares held out.
        held_out: the splits to deal to beside training.

    Returns:
        The split of each sample.

    >>> dealt = split_by_count({str(i): rank(0, "", str(i)) for i in range(20)}, Split())
    >>> sorted(dealt.values()).count("train")
    16
    """
    order = sorted(ranks, key=ranks.__getitem__)
    assert len(order) > len(held_out)
    names: list[str] = []
    for still, part in zip(range(len(held_out), 0, -1), held_out, strict=True):
        room = len(order) - len(names) - still
        names += [part] * min(max(1, _nearest(len(order) * getattr(split, part))), room)
    return dict(zip(order, names + ["train"] * (len(order) - len(names)), strict=True))


def split_by_bytes(
    ranks: Mapping[str, bytes], sizes: Mapping[str, int], split: Split, held_out: Sequence[str] = HELD_OUT
) -> dict[str, str]:
    """Deal whole documents so that each split's bytes come near its share.

    In the seeded order, a document goes to the first held-out split that it brings nearer to its share; a document
    too large for that is trained on. A split left empty takes the smallest document that another can spare.

    Args:
        ranks: place in the seeded order of each document; at least one for each split.
        sizes: bytes of each.
        split: shares held out.
        held_out: the splits to deal to beside training.

    Returns:
        The split of each document.
    """
    assert len(ranks) > len(held_out)
    total = sum(sizes.values())
    wanted = {part: getattr(split, part) * total for part in held_out}
    filled = dict.fromkeys(wanted, 0)
    dealt: dict[str, str] = {}
    for name in sorted(ranks, key=ranks.__getitem__):
        size = sizes[name]
        dealt[name] = next((part for part in held_out if filled[part] + size / 2 <= wanted[part]), "train")
        if dealt[name] != "train":
            filled[dealt[name]] += size
    for part in (*held_out, "train"):
        if part not in dealt.values():
            dealt[_spare(dealt, ranks, sizes, largest=part == "train")] = part
    return dealt


def _spare(dealt: Mapping[str, str], ranks: Mapping[str, bytes], sizes: Mapping[str, int], *, largest: bool) -> str:
    """Choose a document that its split can do without, of training where that has more than one."""
    counts = Counter(dealt.values())
    spare = [name for name in dealt if counts[dealt[name]] > 1]
    chosen = [name for name in spare if dealt[name] == "train"] or spare
    return (max if largest else min)(chosen, key=lambda name: (sizes[name], ranks[name]))


def _nearest(count: float) -> int:
    return int(count + 0.5)
