"""What the control groups of this process allow it: memory in bytes, processors as a (fractional) count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Version 1 writes "no limit" as the largest page-aligned signed number; no machine has an exbibyte.
_NO_LIMIT_BYTES = 1 << 60


def memory_limit(root: Path = Path("/")) -> tuple[int, str] | None:
    """Return the smallest memory limit on the way from this process's group up to the top, and where it stands.

    Args:
        root: folder that holds ``proc`` and ``sys``.

    Returns:
        ``(bytes, source)``, or None when no group limits memory.
    """
    limits = []
    for version, folder in _folders(root, "memory"):
        text = read(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        if text.isdigit() and int(text) < _NO_LIMIT_BYTES:
            limits.append((int(text), f"cgroup v{version} limit"))
    return min(limits, default=None)


def memory_left(root: Path = Path("/")) -> int | None:
    """Return the bytes that may be taken yet before a group on the way up reaches its limit; None without a limit.

    Cached files that nobody has used of late count as free: the kernel drops them first.

    Args:
        root: folder that holds ``proc`` and ``sys``.
    """
    left = []
    for version, folder in _folders(root, "memory"):
        limit = read(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        used = read(folder / ("memory.current" if version == 2 else "memory.usage_in_bytes"))
        if limit.isdigit() and used.isdigit() and int(limit) < _NO_LIMIT_BYTES:
            idle = "inactive_file" if version == 2 else "total_inactive_file"
            counted = dict(line.split() for line in read(folder / "memory.stat").splitlines() if line.count(" ") == 1)
            left.append(int(limit) - int(used) + int(counted.get(idle, 0)))
    return max(0, min(left)) if left else None


def cpu_quota(root: Path = Path("/")) -> tuple[float, str] | None:
    """Return the smallest processor quota on the way up, in processors (1.5 is one and a half), and where it stands.

    Returns:
        ``(processors, source)``, or None when no group limits them.
    """
    quotas = []
    for version, folder in _folders(root, "cpu"):
        if version == 2:
            quota, _, period = read(folder / "cpu.max").partition(" ")
        else:
            quota, period = read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0:
            quotas.append((int(quota) / int(period), f"cgroup v{version} quota"))
    return min(quotas, default=None)


def _folders(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Walk from the process's own group to the top of each hierarchy that may hold the controller."""
    for line in read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            version = 2
        elif controller in controllers.split(","):
            version = 1
        else:
            continue
        for mount, top in _mounts(root, version, controller):
            yield from ((version, folder) for folder in _upward(mount, top, group))


def _upward(mount: Path, top: str, group: str) -> Iterator[Path]:
    # Inside a container the mount shows a part of the hierarchy (top), while the group may be named from the whole.
    below = PurePosixPath(group)
    inside = below.relative_to(top) if below.is_relative_to(top) else below.relative_to("/")
    folder = mount / inside if ".." not in inside.parts else mount
    while True:
        yield folder
        if folder == mount:
            return
        folder = folder.parent


def _mounts(root: Path, version: int, controller: str) -> list[tuple[Path, str]]:
    """Where the hierarchy is mounted, from mountinfo (see proc(5)); the usual places without one."""
    found = []
    for line in read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if (version == 2 and kind[0] == "cgroup2") or (
            version == 1 and kind[0] == "cgroup" and controller in kind[2].split(",")
        ):
            found.append((root / fields[4].lstrip("/"), fields[3]))
    usual = root / "sys/fs/cgroup" / ("" if version == 2 else controller)
    return found or [(usual, "/")]


def read(path: Path) -> str:
    """Return what a small system file says, stripped; an empty string when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
