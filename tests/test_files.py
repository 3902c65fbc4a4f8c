"""Writing safely: whole or not at all, and one process to a folder."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from thrifty.errors import BusyError, DiskFullError, StorageError
from thrifty.files import append, hold, storage_error, write_atomic, write_hashed

WRITER = """
import itertools, sys
from pathlib import Path
from thrifty.files import write_atomic
for number in itertools.count():
    write_atomic(Path(sys.argv[1]), str(number % 10) * 300_000)
    print(number, flush=True)
"""

HOLDER = """
import sys, time
from pathlib import Path
from thrifty.files import hold
with hold(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def half(file: object) -> None:
        file.write(b"ne")  # type: ignore[attr-defined]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match=r"the disk is full: cannot write the bill to '.*file' \(.* free\)"):
        write_atomic(path, half, purpose="the bill")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_told_also_when_torch_hides_it(tmp_path: Path) -> None:
    import torch

    def half(file: BinaryIO) -> None:
        class Full:
            def write(self, data: bytes) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            def flush(self) -> None:
                file.flush()

        torch.save({"weights": torch.zeros(100_000)}, Full())  # type: ignore[arg-type]

    with pytest.raises(StorageError, match="the disk is full: cannot write a checkpoint"):
        write_atomic(tmp_path / "file", half, purpose="a checkpoint")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the Linux device that is always full")
def test_a_device_that_is_really_full_is_told() -> None:
    with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as file:  # noqa: PTH123
        file.write(b"x")
    error = storage_error(caught.value, Path("/dev/full"), "the store")
    assert "the disk is full" in str(error)
    assert error.exit_code == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the Linux device that is always full")
def test_what_cannot_be_added_whole_is_a_full_disk() -> None:
    with pytest.raises(DiskFullError, match="the disk is full: cannot write an event"):
        append(Path("/dev/full"), b"x", purpose="an event")


def test_a_hashed_file_is_what_was_written(tmp_path: Path) -> None:
    def content(file: BinaryIO) -> None:
        file.write(b"one ")
        file.write(memoryview(b"two"))

    sha256, size = write_hashed(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == b"one two"
    assert (sha256, size) == (hashlib.sha256(b"one two").hexdigest(), 7)


def test_a_read_only_folder_is_told() -> None:
    error = storage_error(OSError(errno.EROFS, "Read-only file system"), Path("/x/y"), "the run folder")
    assert "cannot write the run folder: '/x/y' is read-only" in str(error)


@pytest.mark.slow
def test_a_killed_writer_leaves_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(5):
                writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        content = path.read_text()
        assert len(content) == 300_000
        assert len(set(content)) == 1


def test_a_held_folder_names_its_holder(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"is held by process {holder.pid}"), hold(tmp_path, "run"):
            pass
        holder.kill()
        holder.wait()
    with hold(tmp_path, "run"):
        assert (tmp_path / "lock").read_text().strip() == str(os.getpid())
