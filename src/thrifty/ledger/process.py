"""Whether a process that wrote its number down still runs: the number alone can belong to another by now."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def identity(pid: int) -> str:
    """Name a running process so that no later process with the same number has the same name.

    Host, boot and start time; where there is no ``/proc`` the host alone, so that a reused number is not told
    apart there. Empty when no such process runs.

    >>> identity(os.getpid()) == identity(os.getpid()) != ""
    True
    """
    if not Path("/proc/self/stat").exists():
        return f"{socket.gethostname()}//" if _answers(pid) else ""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    # proc(5): the name in brackets may hold anything; the state is field 3, the start in ticks since boot field 22
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else f"{socket.gethostname()}/{boot}/{fields[19]}"


def still_runs(pid: int, name: str) -> bool:
    """Say whether the process that had this `identity` still runs; one on another host is believed to.

    >>> still_runs(os.getpid(), identity(os.getpid()))
    True
    """
    host = name.partition("/")[0]
    return host != socket.gethostname() or identity(pid) == name


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
