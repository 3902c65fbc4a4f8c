"""Writes a small real data set to try thrifty on; nothing is downloaded.

    python examples/write_data.py digits         1,797 handwritten digits, 8x8 gray, from scikit-learn
    python examples/write_data.py source_code    the Python standard library's own source files
    python examples/write_data.py docstrings     what its packages say of themselves, a label for each package

Into ``examples/data/<set>`` unless ``--to FOLDER`` says otherwise. A set that is complete is left as it is.

digits: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998; CC BY 4.0), the test part
that scikit-learn ships. source_code and docstrings: the running interpreter's library (PSF licence), tests and data
left out.
"""

from __future__ import annotations

import argparse
import ast
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
MARKER = ".complete"
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
PACKAGES = ("asyncio", "email", "importlib", "multiprocessing", "unittest", "xml")


def write_digits(folder: Path) -> int:
    """Write each digit as ``<label>/<index>.png``, its 17 grey levels spread over 0 to 255; return how many."""
    import cv2
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    for index, (image, label) in enumerate(zip(images, digits.target, strict=True)):
        path = folder / str(label) / f"{index:04d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return len(images)


def write_source_code(folder: Path) -> int:
    """Copy the standard library's ``.py`` files under their own names, tests left out; return how many."""
    library = Path(sysconfig.get_path("stdlib"))
    count = 0
    for source in sorted(library.rglob("*.py")):
        name = source.relative_to(library)
        if LEFT_OUT.isdisjoint(name.parts):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            count += 1
    return count


def write_docstrings(folder: Path) -> int:
    """Write the first paragraph of each docstring beside its package, ``label<TAB>text``; return how many files."""
    library = Path(sysconfig.get_path("stdlib"))
    rows = ["label\ttext"]
    for package in PACKAGES:
        for source in sorted((library / package).rglob("*.py")):
            if LEFT_OUT.isdisjoint(source.relative_to(library).parts):
                rows += [f"{package}\t{text}" for text in first_paragraphs(source.read_bytes())]
    (folder / "docstrings.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return 1


def first_paragraphs(source: bytes) -> list[str]:
    """Return the first paragraph of each docstring of a module, on one line."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    texts = [" ".join(text.split("\n\n")[0].split()) for text in found]
    return [text for text in texts if text]


SETS: dict[str, Callable[[Path], int]] = {
    "digits": write_digits,
    "source_code": write_source_code,
    "docstrings": write_docstrings,
}


def write(name: str, folder: Path) -> str:
    """Write a set into a folder unless it is complete there; return a line that says what was done.

    The marker that says so is written last, so a run that was cut short is begun anew. A folder that holds something
    else is not touched.
    """
    marker = folder / MARKER
    if marker.is_file():
        return f"{folder}: complete, {marker.read_text(encoding='utf-8').strip()}"
    partial = folder.with_name(folder.name + ".partial")
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"'{folder}' holds something else. Give another folder: --to FOLDER.")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    count = SETS[name](partial)
    size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    says = f"{count:,} files, {size:,} bytes"
    (partial / MARKER).write_text(says + "\n", encoding="utf-8")
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    return f"{folder}: wrote {says}"


def main() -> None:
    """Read the command line, write the set, print what was done."""
    parser = argparse.ArgumentParser(description="Write a small real data set to try thrifty on.")
    parser.add_argument("set", choices=sorted(SETS), help="which one")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where to (default: examples/data/<set>)")
    arguments = parser.parse_args()
    print(write(arguments.set, arguments.to or HERE / "data" / arguments.set))


if __name__ == "__main__":
    main()
