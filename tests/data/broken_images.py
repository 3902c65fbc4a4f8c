"""Rows of the table of broken inputs: images in class folders, named by tables, in shards and in arrays."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

import numpy as np
from broken_rows import Broken, Fill, fifo, files, link, put, write
from data_folders import chunk, encoded, image, write_images

GOOD = encoded(image(5, 8, 8))
JPEG = encoded(image(6, 8, 8), ".jpg")
HUGE = (
    b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)) + chunk(b"IEND", b"")
)


def pets(at: Path) -> None:
    write_images(at, {"cat": 4, "dog": 4}, height=8, width=8)


def odd(name: str, content: bytes, says: str) -> Broken:
    """One file that is put aside beside eight good ones."""
    what = f"{name}: {says.split(':')[0]}"
    return Broken("image", what, files(pets, put(f"cat/{name}", content)), offered=9, rejects={f"cat/{name}": says})


def splits(at: Path) -> None:
    for part, more in (("train", 0), ("validation", 1), ("test", 2)):
        for label in ("cat", "dog"):
            for index in range(3):
                write(
                    at,
                    f"{part}/{label}/{index}.png",
                    encoded(image(100 * more + 10 * index + len(label) + (label == "dog"), 8, 8)),
                )


def listed(table: str | bytes, name: str = "all.csv") -> Fill:
    def fill(at: Path) -> None:
        for index in range(12):
            write(at, f"{index}.png", encoded(image(index, 8, 8)))
        write(at, name, table)

    return fill


ROWS = "file,label\n" + "".join(f"{index}.png,{'cat' if index % 2 else 'dog'}\n" for index in range(12))


def shard(at: Path, more: dict[str, bytes], cut: bytes = b"") -> None:
    """Ten good images and some more files; of a name that ends in a bar the same stands there twice."""
    held = {
        f"{n}.{end}": raw
        for n in range(10)
        for end, raw in (("png", encoded(image(n, 8, 8))), ("cls", b"%d" % (n % 2)))
    }
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, raw in [*held.items(), *more.items()]:
            member = tarfile.TarInfo(name.split("|")[0])
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    raw = file.getvalue()
    (at / "a.tar").write_bytes(raw[: raw.index(cut) + 600] if cut else raw)


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


X = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)
Y = np.arange(12) % 2

IMAGES = [
    odd("none.png", b"", "empty"),
    odd("text.png", b"no image at all", "not an image: neither PNG, JPEG, BMP, GIF, WebP nor TIFF by its first bytes"),
    odd("cut.png", GOOD[:-20], "truncated: the PNG has no end chunk"),
    odd("flipped.png", GOOD[:45] + bytes([GOOD[45] ^ 1]) + GOOD[46:], "damaged: wrong checksum in PNG chunk 'IDAT'"),
    odd("cut.jpg", JPEG[:-2], "truncated: the JPEG has no end marker"),
    odd("huge.png", HUGE, "too many pixels: 40000x40000 is over 50,000,000"),
    odd("cut.gif", b"GIF89a\1\0\1\0\0\0\0", "truncated: the GIF has no end mark"),
    odd("cut.bmp", encoded(image(7, 8, 8), ".bmp")[:-9], "truncated: 1133 bytes where the BMP needs 1142"),
    odd("cut.webp", encoded(image(7, 8, 8, 3), ".webp")[:-9], "truncated: 307 bytes where the WebP needs 316"),
    odd("cut.tif", b"II*\0\x08\0\0\0", "truncated: the file ends within its header"),
    odd("sound.png", b"RIFF\x10\0\0\0WAVE", "not an image: a RIFF file that is not WebP"),
    odd("notes.txt", b"labelled by hand", "not an image file"),
    Broken(
        "image",
        "larger than its limit",
        files(pets, put("cat/big.png", GOOD + bytes(3000))),
        offered=9,
        asked={"max_file_bytes": "2kB"},
        rejects={"cat/big.png": "too large: 3.1 KiB, over the limit of 2.0 KiB"},
    ),
    Broken(
        "image",
        "more pixels than the limit",
        files(pets, put("cat/big.png", encoded(image(1, 20, 30)))),
        offered=9,
        asked={"max_pixels": 500},
        rejects={"cat/big.png": "too many pixels: 30x20 is over 500"},
    ),
    Broken(
        "image",
        "beside the class folders",
        files(pets, put("loose.png", GOOD)),
        offered=9,
        rejects={"loose.png": "not in a class folder"},
    ),
    Broken(
        "image",
        "link that leaves",
        files(pets, link("cat/link.png", "../../outside")),
        offered=9,
        rejects={"cat/link.png": "link that leaves the folder"},
    ),
    Broken(
        "image",
        "link to nothing",
        files(pets, link("cat/link.png", "gone.png")),
        offered=9,
        rejects={"cat/link.png": "link to nothing"},
    ),
    Broken(
        "image",
        "link to a folder",
        files(pets, link("cat/link", "../dog")),
        offered=9,
        rejects={"cat/link": "link to a folder"},
    ),
    Broken(
        "image", "pipe", files(pets, fifo("cat/pipe.png")), offered=9, rejects={"cat/pipe.png": "not a regular file"}
    ),
    Broken(
        "image",
        "may not be read",
        pets,
        offered=8,
        unreadable=("cat/0003.png",),
        rejects={"cat/0003.png": "cannot be read: Permission denied"},
    ),
    Broken(
        "image",
        "folder may not be read",
        files(pets, put("cat/more/1.png", GOOD)),
        offered=9,
        unreadable=("cat/more",),
        rejects={"cat/more": "folder cannot be read: Permission denied"},
    ),
    Broken(
        "image",
        "the same twice",
        files(pets, put("cat/again.png", encoded(image(0, 8, 8)))),
        offered=9,
        rejects={"cat/again.png": "duplicate across splits: cat/0000.png"},
    ),
    Broken(
        "image",
        "the same under two labels",
        files(pets, put("dog/again.png", encoded(image(0, 8, 8)))),
        offered=9,
        rejects={
            "cat/0000.png": "same image under labels cat and dog",
            "dog/again.png": "same image under labels cat and dog",
        },
    ),
    Broken(
        "image",
        "of another size",
        files(pets, put("cat/big.png", encoded(image(1, 20, 30)))),
        offered=9,
        asked={"mixed_sizes": "reject"},
        rejects={"cat/big.png": "another size: 30x20, most are 8x8"},
    ),
    Broken(
        "image",
        "changes meanwhile",
        pets,
        after=put("dog/0002.png", GOOD),
        says=(
            "'dog/0002.png' changed while the data was being prepared. Wait until nothing writes "
            "to the data folder, then run again."
        ),
    ),
    Broken(
        "image",
        "goes meanwhile",
        pets,
        after=lambda at: (at / "dog/0002.png").unlink(),
        says=(
            "'dog/0002.png' was there and now cannot be read: No such file or directory. Wait "
            "until nothing writes to the data folder, then run again."
        ),
    ),
    Broken(
        "image",
        "no folder of that name",
        files(pets),
        path="../dat",
        says=(
            "there is no data folder '{at}/../dat'. Did you mean '{at}/../data'? Set data.path to "
            "the folder that holds the data."
        ),
    ),
    Broken(
        "image",
        "a file for a folder",
        files(pets),
        path="cat/0000.png",
        says=("'{at}/cat/0000.png' is a file, not a folder. Set data.path to the folder that holds the data."),
    ),
    Broken(
        "image",
        "no class folders",
        put("1.png", GOOD),
        says=(
            "'{at}' has no class folders (1 images lie directly in it; links to folders are not "
            "followed). Images lie in one folder per class: data/cat/1.png, data/dog/2.png."
        ),
    ),
    Broken(
        "image",
        "nothing at all",
        lambda at: at.mkdir(exist_ok=True),
        says=(
            "'{at}' has no class folders (empty; links to folders are not followed). Images lie "
            "in one folder per class: data/cat/1.png, data/dog/2.png."
        ),
    ),
    Broken(
        "image",
        "a class without images",
        files(pets, lambda at: (at / "owl").mkdir()),
        says="class folder 'owl' in '{at}' is empty. Fill it or remove it.",
    ),
    Broken(
        "image",
        "one class",
        lambda at: write_images(at, {"cat": 5}),
        says=(
            "'{at}' has one class only, 'cat': there is nothing to tell apart. Images lie in one "
            "folder per class: data/cat/1.png, data/dog/2.png."
        ),
    ),
    Broken(
        "image",
        "too few of a class",
        files(pets, put("owl/1.png", GOOD), put("owl/2.png", GOOD[:-9])),
        says=(
            "class 'owl' in '{at}' has 1 usable image; 1 truncated, and needs 3: one for each "
            "split. Add images to it, or remove the folder."
        ),
    ),
    Broken(
        "image",
        "none that can be read",
        files(put("a/1.png", GOOD[:-9]), put("b/1.png", b"")),
        says=(
            "no image in '{at}' can be read (1 truncated, 1 empty). Images are PNG, JPEG, BMP, GIF, WebP or TIFF files."
        ),
    ),
    Broken(
        "image",
        "a label in the test split alone",
        files(splits, put("test/owl/1.png", GOOD)),
        says=(
            "class 'owl' in '{at}' has 0 usable images to train on, and needs 1: one for each "
            "split. Add images to it, or remove the folder."
        ),
    ),
    Broken(
        "image",
        "labels only where they are held out",
        files(splits, lambda at: [p.unlink() for p in (at / "train").rglob("*.png")]),
        says="class folder 'train' in '{at}' is empty. Fill it or remove it.",
    ),
    Broken(
        "image",
        "table: rows that say nothing",
        listed(ROWS + "gone.png,cat\n3.png,\n"),
        offered=14,
        rejects={"all.csv:14": "names no image: 'gone.png'", "all.csv:15": "empty label: of '3.png'"},
    ),
    Broken(
        "image",
        "table: named twice",
        listed(ROWS + "3.png,cat\n"),
        offered=13,
        rejects={"all.csv:14": "named twice: 3.png"},
    ),
    Broken(
        "image",
        "table: two labels",
        listed(ROWS + "3.png,dog\n"),
        offered=14,
        rejects={
            "3.png": "named by no usable row",
            "all.csv:14": "same image under labels cat and dog",
            "all.csv:5": "same image under labels cat and dog",
        },
    ),
    Broken(
        "image",
        "table: ragged rows",
        listed(ROWS + "3.png\n4.png,dog,more\n"),
        offered=14,
        rejects={"all.csv:14": "ragged row: 1 cells, 2 are usual", "all.csv:15": "ragged row: 3 cells, 2 are usual"},
    ),
    Broken(
        "image",
        "table: mixed encodings",
        listed(ROWS.encode() + "größer.png,cat\n".encode("latin-1")),
        offered=13,
        rejects={"all.csv:14": "not UTF-8 at character 3"},
    ),
    Broken(
        "image",
        "table: split by semicolons",
        listed(ROWS.replace(",", ";")),
        says=(
            "'{at}' has no class folders (12 images lie directly in it, and no column of "
            "'all.csv' names most of them; links to folders are not followed). Images lie in one "
            "folder per class: data/cat/1.png, data/dog/2.png. Or a row of a table names each: "
            "cells of .csv are split by commas, of .tsv by tabs."
        ),
    ),
    Broken(
        "image",
        "table: no such column",
        listed(ROWS),
        asked={"label": "lable"},
        says=("'all.csv' has no column 'lable', which the job names. Did you mean 'label'? Columns: file, label."),
    ),
    Broken(
        "image",
        "table: no such group",
        listed(ROWS),
        asked={"split": {"group": "labl"}},
        says=("'all.csv' has no column 'labl', which the job names. Did you mean 'label'? Columns: file, label."),
    ),
    Broken(
        "image",
        "table: an image that no row names",
        files(listed(ROWS), put("more.png", GOOD)),
        offered=13,
        rejects={"more.png": "named by no usable row"},
    ),
    Broken(
        "image",
        "shard: no label",
        lambda at: shard(at, {"x.png": GOOD}),
        offered=11,
        rejects={"a.tar/x.png": "no label beside it"},
    ),
    Broken(
        "image",
        "shard: a label of nothing, and none",
        lambda at: shard(at, {"x.cls": b"1", "y.png": GOOD, "y.cls": b" "}),
        offered=12,
        rejects={"a.tar/x.cls": "label of no image", "a.tar/y.cls": "empty label"},
    ),
    Broken(
        "image",
        "shard: the same name twice",
        lambda at: shard(at, {"3.png|": GOOD}),
        offered=11,
        rejects={"a.tar/3.png": "named twice"},
    ),
    Broken(
        "image",
        "shard: cut off",
        lambda at: shard(at, {"x.png": GOOD, "x.cls": b"1"}, cut=b"x.png"),
        offered=12,
        rejects={
            "a.tar": "damaged shard: after 21 files: unexpected end of data",
            "a.tar/x.png": "truncated: its shard ends within it",
        },
    ),
    Broken(
        "image",
        "arrays: NaN",
        put("a.npz", npz(x=np.where(X == 7, np.nan, X / 255), y=Y)),
        path="a.npz",
        says=("images of 'a.npz:x' hold NaN or infinity. Pixels are numbers from 0 to 1, to 255 or to 65,535."),
    ),
    Broken(
        "image",
        "arrays: infinity",
        put("a.npz", npz(x=np.where(X == 7, np.inf, X / 255), y=Y)),
        path="a.npz",
        says=("images of 'a.npz:x' hold NaN or infinity. Pixels are numbers from 0 to 1, to 255 or to 65,535."),
    ),
    Broken(
        "image",
        "arrays: fewer labels",
        put("a.npz", npz(x=X, y=Y[:9])),
        path="a.npz",
        says="'a.npz:x' has 12 images and 9 labels.",
    ),
    Broken(
        "image",
        "arrays: no labels",
        put("a.npz", npz(x=X)),
        path="a.npz",
        says=(
            "'a.npz' holds the arrays x, and images and labels are to be told by their names. "
            "Name them x_train and y_train, x_test and y_test; or x and y."
        ),
    ),
    Broken(
        "image",
        "arrays: labels that are amounts",
        put("a.npz", npz(x=X, y=Y / 3)),
        path="a.npz",
        says=(
            "labels of 'a.npz:x' have the shape (12,) and the type float64; one whole number or "
            "name for each image is a label."
        ),
    ),
    Broken(
        "image",
        "arrays: cut off",
        put("a.npz", npz(x=X, y=Y)[:500]),
        path="a.npz",
        says="'a.npz' cannot be read as arrays: File is not a zip file.",
    ),
    Broken(
        "image",
        "arrays: a bomb",
        put("a.npz", npz(x=X, y=Y)),
        path="a.npz",
        limits={"images.arrays.MOST_BYTES": 500},
        says="'a.npz' unpacks to 1.1 KiB, over the limit of 500 B.",
    ),
]
