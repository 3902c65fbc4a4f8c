"""Labels of versions, as TensorFlow Serving has them: ``stable`` stands for version 3, of one model or of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from thrifty.errors import JobError

# (name of a model, or None for all; label) to version
Labels = Mapping[tuple[str | None, str], int]


def parse_labels(texts: Iterable[str]) -> Labels:
    """Read labels as they are given on a command line.

    Raises:
        JobError: one is not LABEL=VERSION or MODEL:LABEL=VERSION.

    >>> parse_labels(["stable=3", "pets:canary=4"])
    {(None, 'stable'): 3, ('pets', 'canary'): 4}
    """
    found: dict[tuple[str | None, str], int] = {}
    for text in texts:
        left, _, version = text.partition("=")
        name, colon, label = left.rpartition(":")
        if not label or (colon and not name) or "/" in label or not version.isdecimal() or len(version) > 18:
            raise JobError(
                f"label '{text}' cannot be read", mend="Write LABEL=VERSION, or MODEL:LABEL=VERSION, such as stable=3."
            )
        found[name or None, label] = int(version)
    return found


def check_labels(labels: Labels, versions: Mapping[str, Iterable[int]]) -> None:
    """Check that each label stands for a version that is served.

    Args:
        labels: to check.
        versions: served, by the names of their models.

    Raises:
        JobError: one does not.
    """
    for (name, label), version in labels.items():
        served = [version in each for model, each in versions.items() if name in (None, model)]
        if not any(served):
            which = "any model" if name is None else f"model '{name}'"
            raise JobError(
                f"label '{label}' stands for version {version}, which is not served of {which}",
                mend=f"Served are: {', '.join(f'{model} {sorted(each)}' for model, each in versions.items())}.",
            )
