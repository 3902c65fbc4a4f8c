"""The example data: the digits are the bundled ones, the source code is whole, and nothing is written twice."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import cv2
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "write_data.py"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=120)


def state(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.slow
def test_digits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    folder = tmp_path / "deep" / "digits"
    assert "wrote 1,797 files" in run("digits", "--to", folder).stdout
    digits = datasets.load_digits()
    files = sorted(folder.rglob("*.png"), key=lambda path: path.name)
    assert [int(path.parent.name) for path in files] == digits.target.tolist()
    pixels = np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in files])
    assert np.array_equal(np.rint(pixels / (255 / 16)), digits.images)
    before = state(folder)
    assert "complete, 1,797 files" in run("digits", "--to", folder).stdout
    assert state(folder) == before


@pytest.mark.slow
def test_source_code_after_a_run_that_was_cut_short(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    (tmp_path / "code.partial" / "old").mkdir(parents=True)
    assert "wrote" in run("source_code", "--to", folder).stdout
    files = {path.relative_to(folder) for path in folder.rglob("*.py")}
    assert {Path("argparse.py"), Path("json/decoder.py")} <= files
    assert not {part for path in files for part in path.parts} & {"site-packages", "test", "tests", "__pycache__"}
    library = Path(sysconfig.get_path("stdlib"))
    assert (folder / "argparse.py").read_bytes() == (library / "argparse.py").read_bytes()
    assert not (tmp_path / "code.partial").exists()
    assert not (folder / "old").exists()


@pytest.mark.slow
def test_docstrings(tmp_path: Path) -> None:
    folder = tmp_path / "docstrings"
    assert "wrote 1 files" in run("docstrings", "--to", folder).stdout
    header, *rows = (folder / "docstrings.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "label\ttext"
    cells = [row.split("\t") for row in rows]
    assert len(rows) > 1000 and all(len(each) == 2 and all(each) for each in cells)
    assert ["email", "A package for parsing, handling, and generating email messages."] in cells


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    done = run("digits", "--to", tmp_path)
    assert done.returncode == 1
    assert "holds something else" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_set(tmp_path: Path) -> None:
    assert "invalid choice: 'digit'" in run("digit", "--to", tmp_path).stderr
