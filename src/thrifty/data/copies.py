"""Puts aside what must not be learned from twice: copies, images under several labels, odd sizes; deals the splits."""

from __future__ import annotations

from collections import Counter, defaultdict

from thrifty.data.inputs import DUPLICATE, DUPLICATE_ACROSS, Reject, count_reasons
from thrifty.data.labels import in_order, label_of
from thrifty.data.split import HELD_OUT, split_by_count
from thrifty.data.survey import Seen
from thrifty.errors import DataError
from thrifty.spec import SPLITS, ImageData


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


def find_copies(seen: list[Seen]) -> tuple[list[Seen], list[Reject], list[tuple[Seen, Seen]]]:
    """Group images of equal pixels: those to keep, those under several labels, and (copy, kept one) for the rest.

    Of equal images the lowest rank is kept, which is the one furthest towards the held-out splits.
    """
    groups: dict[bytes, list[Seen]] = defaultdict(list)
    for image in seen:
        groups[image.digest].append(image)
    kept, rejects, copies = [], [], []
    for group in groups.values():
        labels = in_order({label_of(image.name) for image in group})
        if len(labels) > 1:
            reason = f"same image under labels {', '.join(labels[:-1])} and {labels[-1]}"
            rejects += [Reject(image.name, reason) for image in group]
            continue
        first = min(group, key=lambda image: image.rank)
        kept.append(first)
        copies += [(image, first) for image in group if image is not first]
    return sorted(kept, key=lambda image: image.row), rejects, copies


def deal(data: ImageData, kept: list[Seen], labels: tuple[str, ...], rejects: list[Reject]) -> dict[str, str]:
    """Give every kept image its split, label by label.

    Raises:
        DataError: a label has fewer images than there are splits.
    """
    by_label: dict[str, dict[str, bytes]] = {label: {} for label in labels}
    for image in kept:
        by_label[label_of(image.name)][image.name] = image.rank
    splits: dict[str, str] = {}
    for label, ranks in by_label.items():
        if len(ranks) < len(SPLITS):
            reasons = count_reasons(r for r in rejects if label_of(r.name) == label and "/" in r.name)
            found = "".join(f"; {count} {reason}" for reason, count in reasons.items())
            usable = f"{len(ranks)} usable image" + "s" * (len(ranks) != 1)
            raise DataError(
                f"class '{label}' in '{data.path}' has {usable}{found}, and needs {len(SPLITS)}: one for each split",
                mend="Add images to it, or remove the folder.",
            )
        splits |= split_by_count(ranks, data.split)
    return splits


def reject_copies(copies: list[tuple[Seen, Seen]], kept: list[Seen], splits: dict[str, str]) -> list[Reject]:
    """Tell the copies that would have stood in their original's own split from those in another."""
    ends: dict[tuple[str, str], bytes] = {}
    for image in kept:
        place = (label_of(image.name), splits[image.name])
        ends[place] = max(ends.get(place, b""), image.rank)
    rejects = []
    for copy, original in copies:
        label = label_of(copy.name)
        own = next((part for part in HELD_OUT if copy.rank <= ends[label, part]), "train")
        reason = DUPLICATE if own == splits[original.name] else DUPLICATE_ACROSS
        rejects.append(Reject(copy.name, reason, f": {original.name}"))
    return rejects
