"""Makes small real data folders and stores for the tests of this room."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from thrifty.data.draft import drafting
from thrifty.data.store import Store
from thrifty.spec import LENGTH_MULTIPLE, SPLITS, Cleaning, Dataset


def image(seed: int, height: int = 12, width: int = 12, channels: int = 1) -> np.ndarray:
    """An image of random pixels; another for each seed."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    """The pixels as a file; colours in cv2's order: blue, green, red."""
    return bytes(cv2.imencode(suffix, pixels)[1].tobytes())


def write_images(folder: Path, counts: dict[str, int], **shape: int) -> Path:
    """Class folders with so many different images each."""
    for number, (label, count) in enumerate(counts.items()):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (folder / label / f"{index:04d}.png").write_bytes(encoded(image(1000 * number + index, **shape)))
    return folder


def write_texts(folder: Path, texts: dict[str, str | bytes]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def novel(seed: int, words: int = 400) -> str:
    """Made-up prose whose words repeat, so that a tokenizer finds pairs."""
    generator = np.random.default_rng(seed)
    known = ["the", "lamp", "water", "slowly", "gärtner", "ran", "under", "old", "bridge", "again.\n", "She", "42"]
    return " ".join(known[i] for i in generator.integers(0, len(known), words)) + "\n"


def png(width: int, height: int, bits: int, color: int, rows: list[bytes], extra: bytes = b"") -> bytes:
    """A PNG of any colour type, which cv2 does not write."""
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + body + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def gif(*pictures: np.ndarray, hole: int | None = None) -> bytes:
    """A GIF of gray pictures [H, W], of levels 0 to 127 that come out doubled; one of them may be see-through."""
    height, width = pictures[0].shape
    made = b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF6, 0, 0)
    made += b"".join(bytes([2 * level] * 3) for level in range(128))
    for picture in pictures:
        # with a clear code before every hundred pixels no code is longer than a byte
        levels = picture.tobytes()
        codes = b"".join(b"\x80" + levels[start : start + 100] for start in range(0, len(levels), 100)) + b"\x81"
        blocks = [codes[start : start + 255] for start in range(0, len(codes), 255)]
        made += b"!\xf9\x04" + struct.pack("<BHB", hole is not None, 0, hole or 0) + b"\0"
        made += b"," + struct.pack("<HHHHBB", 0, 0, width, height, 0, 7)
        made += b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    return made + b";"


def exif(orientation: int) -> bytes:
    """A TIFF block that holds an orientation and nothing else."""
    entry = struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + b"\0\0\0\0"


def image_store(cache: Path, count: int) -> Store:
    """A store whose training images are 2x2, numbered in their label, with pixels that follow from it."""
    with drafting(cache, f"images{count}") as draft:
        for split in SPLITS:
            with draft.rows(split, "x", np.dtype(np.uint8), (2, 2, 1)) as file:
                file.append((np.arange(count) % 256).astype(np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2))
            with draft.rows(split, "y", np.dtype(np.int64), ()) as file:
                file.append(np.arange(count))
        values = {"counts": dict.fromkeys(SPLITS, count), "shape": (1, 2, 2), "labels": tuple(map(str, range(count)))}
        return draft.publish(_dataset("image", values))


def token_store(cache: Path, tokens: int, length: int) -> Store:
    """A store whose stream is 0, 1, 2, … so that a token tells its place."""
    with drafting(cache, f"tokens{tokens}-{length}") as draft:
        for split in SPLITS:
            with draft.rows(split, "tokens", np.dtype(np.uint16), ()) as file:
                file.append(np.arange(tokens + 1))
        values = {
            "counts": dict.fromkeys(SPLITS, -(-tokens // length)),
            "tokens": dict.fromkeys(SPLITS, tokens),
            "shape": (length,),
        }
        return draft.publish(_dataset("language", values))


def text_store(cache: Path, lengths: tuple[int, ...], labels: int = 2) -> Store:
    """A store whose text number n, of so many tokens, holds n + 1 alone, and has n for its label, round and round."""
    most = -(-max(lengths) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    with drafting(cache, f"texts{hashlib.sha256(repr((lengths, labels)).encode()).hexdigest()[:16]}") as draft:
        for split in SPLITS:
            arrays = {
                "tokens": np.repeat(np.arange(1, len(lengths) + 1), lengths).astype(np.uint16),
                "starts": np.cumsum((0, *lengths)),
                "y": np.arange(len(lengths)) % labels,
            }
            for name, array in arrays.items():
                with draft.rows(split, name, array.dtype, ()) as file:
                    file.append(array)
        values = {
            "counts": dict.fromkeys(SPLITS, len(lengths)),
            "labels": tuple(map(str, range(labels))),
            "shape": (most,),
            "tokens": dict.fromkeys(SPLITS, sum(lengths)),
            "vocabulary": len(lengths) + 1,
        }
        return draft.publish(_dataset("text", values))


def reviews(count: int, seed: int = 0, labels: tuple[str, ...] = ("bad", "good")) -> list[tuple[str, str]]:
    """Made-up reviews, all different, each with its label; a word of the label's own stands in most."""
    generator = np.random.default_rng(seed)
    common = ["the", "film", "was", "a", "story", "of", "its", "actors", "and", "music"]
    own = {label: [f"{label}{end}" for end in ("ly", "ness", "ish")] for label in labels}
    rows = []
    for number in range(count):
        label = labels[number % len(labels)]
        # the longest is one to train on
        count = generator.integers(2, 20) if number or seed else 24
        words = [*generator.choice(common, count), str(generator.choice(own[label]))]
        rows.append((f"{' '.join(generator.permutation(words))} x{seed}{number}", label))
    return rows


def write_tables(folder: Path, parts: dict[str, list[tuple[str, str]]]) -> Path:
    """Files of rows ``text<TAB>label`` without header, each under its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        (folder / name).write_text("".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    return folder


def _dataset(kind: str, values: dict[str, object]) -> Dataset:
    blank = {
        "kind": kind, "key": "k", "labels": (), "label_counts": {}, "mean": (0.5,), "std": (0.25,), "crop": "none",
        "vocabulary": 0, "tokens": {}, "text_bytes": {}, "source_bytes": 0, "stored_bytes": 0,
        "cleaning": Cleaning(seen=0, kept=0, rejected={}, duplicates=0, across_splits=0),
    }  # fmt: skip
    return Dataset.model_validate({**blank, **values})
