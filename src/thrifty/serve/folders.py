"""Where bundles lie in the folders that a server is told of: a bundle, a run with its own, or one for each version."""

from __future__ import annotations

from pathlib import Path

from thrifty.export.check import INFO

MAX_VERSION = 2**63


def bundle_in(folder: Path) -> Path | None:
    """Find the bundle that a folder is, or has under the name ``bundle``; None for none."""
    return next((each for each in (folder, folder / "bundle") if (each / INFO).is_file()), None)


def versions_in(folder: Path) -> dict[int, Path]:
    """Find the bundles of the folders in this one that are named by a version, a whole number from 1."""
    if not folder.is_dir():
        return {}
    numbered = ((int(each.name), bundle_in(each)) for each in folder.iterdir() if each.name.isdecimal())
    return {version: bundle for version, bundle in numbered if bundle is not None and 0 < version < MAX_VERSION}
