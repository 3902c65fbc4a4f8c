"""Puts aside what must not be learned from twice: copies, samples under several labels, odd sizes; deals the splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from thrifty.data.images.survey import Seen
from thrifty.data.inputs import DUPLICATE, DUPLICATE_ACROSS, Reject
from thrifty.data.labels import in_order
from thrifty.data.split import HELD_OUT, split_by_count
from thrifty.data.together import split_together
from thrifty.errors import DataError
from thrifty.spec import AudioData, ImageData


class Sample(Protocol):
    """What is known of a sample that was read: ``row`` is its place among all, ``digest`` stands for its content."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def row(self) -> int: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def rank(self) -> bytes: ...


AnySample = TypeVar("AnySample", bound=Sample)


def reject_odd_sizes(seen: list[Seen]) -> tuple[list[Seen], list[Reject]]:
    """Keep the images of the commonest width and height; reject the rest."""
    counts = Counter((image.width, image.height) for image in seen)
    common = max(counts, key=lambda size: (counts[size], size), default=(0, 0))
    kept = [image for image in seen if (image.width, image.height) == common]
    return kept, [
        Reject(i.name, "another size", f": {i.width}x{i.height}, most are {common[0]}x{common[1]}")
        for i in seen
        if (i.width, i.height) != common
    ]


def find_copies(
    seen: Sequence[AnySample], what: str = "image"
) -> tuple[list[AnySample], list[Reject], list[tuple[AnySample, AnySample]]]:
    """Group samples of equal content: those to keep, those under several labels, and (copy, kept one) for the rest.

    Of equal ones the one furthest towards the held-out splits is kept, and of those the one of lowest rank.
    """
    groups: dict[bytes, list[AnySample]] = defaultdict(list)
    for image in seen:
        groups[image.digest].append(image)
    kept: list[AnySample] = []
    rejects: list[Reject] = []
    copies: list[tuple[AnySample, AnySample]] = []
    for group in groups.values():
        if len(group) == 1:
            kept += group
            continue
        labels = in_order({image.label for image in group})
        if len(labels) > 1:
            reason = f"same {what} under labels {', '.join(labels[:-1])} and {labels[-1]}"
            rejects += [Reject(image.name, reason) for image in group]
            continue
        first = min(group, key=lambda image: (image.split not in HELD_OUT, image.split != HELD_OUT[0], image.rank))
        kept.append(first)
        copies += [(image, first) for image in group if image is not first]
    return sorted(kept, key=lambda image: image.row), rejects, copies


def not_given(seen: Iterable[Sample]) -> tuple[str, ...]:
    """Return the held-out splits that no sample was given to."""
    given = {image.split for image in seen}
    return tuple(part for part in HELD_OUT if part not in given)


def deal(
    data: AudioData | ImageData,
    kept: Sequence[Sample],
    labels: tuple[str, ...],
    rejected: Mapping[str, str],
    what: str = "image",
) -> dict[str, str]:
    """Give every kept sample its split, label by label: the one it was given to, or one that nobody was.

    Args:
        data: for the shares.
        kept: what is dealt.
        labels: of all samples.
        rejected: what was put aside of each label, in words.
        what: a sample is called.

    Raises:
        DataError: a label has fewer samples to train on than there are splits to deal them to.
    """
    missing = not_given(kept)
    by_label: dict[str, dict[str, bytes]] = {label: {} for label in labels}
    splits = {image.name: image.split for image in kept if image.split in HELD_OUT}
    for image in kept:
        if image.name not in splits:
            by_label[image.label][image.name] = image.rank
    for label, ranks in by_label.items():
        if len(ranks) <= len(missing):
            usable = (
                f"{len(ranks)} usable {what}"
                + "s" * (len(ranks) != 1)
                + " to train on" * (len(missing) < len(HELD_OUT))
            )
            raise DataError(
                f"class '{label}' in '{data.path}' has {usable}{rejected.get(label, '')}, and needs "
                f"{len(missing) + 1}: one for each split",
                mend=f"Add {what}s to it, or remove the folder.",
            )
        splits |= split_by_count(ranks, data.split, missing)
    return splits


def deal_together(
    data: AudioData | ImageData,
    kept: Sequence[Sample],
    labels: tuple[str, ...],
    keys: Mapping[str, str],
    seed: int,
    what: str = "image",
) -> dict[str, str]:
    """Give every kept sample its split, those of one group or moment the same, where it was not given to one.

    Args:
        data: for the shares.
        kept: what is dealt.
        labels: of all samples.
        keys: group or moment of each sample.
        seed: of the order of groups.
        what: a sample is called.

    Raises:
        DataError: there are fewer groups than splits, or a label is nowhere in the training split.
    """
    missing = not_given(kept)
    splits = {image.name: image.split for image in kept if image.split in HELD_OUT}
    free = {image.name: keys[image.name] for image in kept if image.name not in splits}
    splits |= split_together(free, data.split, seed=seed, held_out=missing) if missing else dict.fromkeys(free, "train")
    trained = {image.label for image in kept if splits[image.name] == "train"}
    if untrained := [label for label in labels if label not in trained]:
        raise DataError(
            f"labels {', '.join(untrained[:5])} of '{data.path}' have no {what} in the training split, since all of "
            "theirs belong together with what is held out",
            mend="Take another seed or smaller shares, or name another column in data.split.",
        )
    return splits


def reject_copies(
    copies: Sequence[tuple[Sample, Sample]],
    kept: Sequence[Sample],
    splits: Mapping[str, str],
    keys: Mapping[str, str],
) -> list[Reject]:
    """Tell the copies that would have stood in their original's own split from those in another.

    Args:
        copies: each with its original.
        kept: the originals.
        splits: of each of them.
        keys: group or moment of each sample; empty where each was dealt by itself.
    """
    together = {keys[image.name]: splits[image.name] for image in kept if keys}
    missing = not_given(kept)
    ends: dict[tuple[str, str], bytes] = {}
    for image in kept:
        place = (image.label, splits[image.name])
        ends[place] = max(ends.get(place, b""), image.rank)
    rejects = []
    for copy, original in copies:
        own = copy.split
        if own not in HELD_OUT and keys:
            own = together.get(keys[copy.name], "train")
        elif own not in HELD_OUT:
            own = next((part for part in missing if copy.rank <= ends[copy.label, part]), "train")
        reason = DUPLICATE if own == splits[original.name] else DUPLICATE_ACROSS
        rejects.append(Reject(copy.name, reason, f": {original.name}"))
    return rejects
