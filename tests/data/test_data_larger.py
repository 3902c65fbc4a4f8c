"""A set that is larger than the memory there is: prepared all the same, and read from where it lies."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

SIDE, COUNT, SHARD = 512, 512, 128
# a third of the set, as 2 GiB are of 6
ROOM_BYTES = SIDE * SIDE * 3 * COUNT // 3

CHILD = textwrap.dedent(
    """
    import resource, sys
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    import cv2, polars
    from thrifty.api import silent
    from thrifty.data import Batches, prepare
    from thrifty.spec import ImageData

    def own_bytes():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))

    folder, cache, room = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: None, range(64)))  # stacks of threads count from here on
    resource.setrlimit(resource.RLIMIT_DATA, (own_bytes() + room, own_bytes() + room))
    data = ImageData(kind="image", path=folder, size=int(sys.argv[4]), split={"validation": 0.1, "test": 0.1})
    store = prepare(data, seed=0, cache=cache, emit=silent)
    batches = Batches(store, batch=16, micro=4, seed=0)
    seen = sum(len(part["y"]) for step in range(batches.steps_per_epoch) for part in batches.step(step))
    print(sum(store.dataset.counts.values()), seen, store.dataset.stored_bytes)
    """
)


def write_shards(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(256, size=(2 * SIDE, 2 * SIDE, 3), dtype=np.uint8)
    for first in range(0, COUNT, SHARD):
        with tarfile.open(folder / f"noise-{first // SHARD}.tar", "w") as shard:
            for number in range(first, first + SHARD):
                image = noise[number : number + SIDE, 3 * number % SIDE :][:, :SIDE]
                for suffix, raw in (
                    ("bmp", cv2.imencode(".bmp", image)[1].tobytes()),
                    ("cls", b"ab"[number % 2 :][:1]),
                ):
                    member = tarfile.TarInfo(f"{number:04}.{suffix}")
                    member.size = len(raw)
                    shard.addfile(member, io.BytesIO(raw))


@pytest.mark.slow
def test_a_set_of_three_times_the_memory_is_prepared_and_read(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    write_shards(folder)
    command = [sys.executable, "-W", "error", "-c", CHILD, folder, tmp_path / "cache", ROOM_BYTES, SIDE]
    # allocators that keep arenas for each thread take address space that nothing lies in
    environment = os.environ | {"MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    kept, seen, stored = map(int, done.stdout.split())
    assert kept == COUNT and 0.7 * COUNT < seen < 0.9 * COUNT
    assert stored > 2.9 * ROOM_BYTES


ROWS_CHILD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from thrifty.api import silent
    from thrifty.data import prepare
    from thrifty.data.tables import blocks, tape
    from thrifty.data.tables import prepare as tables
    from thrifty.spec import TableData

    # what does not grow with the rows, made small
    blocks.BLOCK_BYTES, tables.MOST_LEARNED_FROM, tape.PART_ROWS = 1 << 18, 20_000, 1 << 14
    data = TableData(kind="table", path=Path(sys.argv[1]), target="y")
    store = prepare(data, seed=0, cache=Path(sys.argv[2]), emit=silent)
    lines = Path("/proc/self/status").read_text().splitlines()
    print(sum(store.dataset.counts.values()), next(int(line.split()[1]) * 1024 for line in lines if "VmHWM" in line))
    """
)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is told by Linux")
def test_rows_of_tables_take_few_bytes_each(tmp_path: Path) -> None:
    draw, peaks = np.random.default_rng(0), {}
    for count in (1_000_000, 2_500_000):
        path = tmp_path / f"{count}.csv"
        columns = {"a": draw.integers(0, 1000, count), "y": draw.integers(0, 10**6, count)}
        pl.DataFrame(columns).with_columns(pl.col("y") / 100).write_csv(path)
        command = [sys.executable, "-W", "error", "-c", ROWS_CHILD, path, tmp_path / "cache"]
        environment = os.environ | {"MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=100)
        assert done.returncode == 0, done.stderr[-2000:]
        kept, peaks[count] = map(int, done.stdout.split())
        assert kept == count
    slope = (peaks[2_500_000] - peaks[1_000_000]) / 1_500_000
    # two numbers of 8 bytes, and a byte each for splits and marks
    assert 8 < slope <= 24, slope
    # so that 60 million rows stay under 2 GiB
    assert peaks[2_500_000] + 57_500_000 * slope < 2 << 30
