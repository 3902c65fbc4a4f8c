"""What all entrants of a benchmark are to train: plain data, and how it is read."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# of tinyshakespeare, as nanoGPT's data/shakespeare_char/prepare.py has it
TRAIN_SHARE = 0.9


@dataclass(frozen=True)
class Task:
    """A model, its data and a way to train it.

    Attributes:
        kind: ``image``, ``text`` (with a label), ``language``, or ``characters``: of a language model too.
        data: arrays as thrifty prepared them (image, language), a folder of tables (text), a file (characters).
        batch: samples of a step.
        steps: optimizer steps of the whole schedule.
        stop_after: steps after which to end; 0 for all of them.
        rate: the highest learning rate.
        least_rate: the last one, where the schedule ends above zero.
        warmup: steps of linear rise.
        weight_decay, clip: as the optimizer has them; 0 for none.
        model: sizes: ``layers``, ``width``, ``heads``.
        length: tokens of context; 0 where texts have their own.
        vocabulary: file of word pieces (text).
        precision: ``fp32``, or ``bf16`` for autocast.
        flags: switches of one peer alone, such as ``compile``.
        evaluate_every: steps between evaluations of the whole held-out part; 0 for none.
        target: of the held-out figure, at which to stop: the least accuracy, or the most nats a byte; 0 for none.
        flip: half of the images are mirrored as they are trained on.
        crop: pixels of margin that images are cut out of as they are trained on.
        threads: of the matrix products; all cores, which `race.peer` counts.
        device: ``cpu`` or ``cuda``.
    """

    kind: str
    data: str
    batch: int
    steps: int
    rate: float
    stop_after: int = 0
    least_rate: float = 0.0
    warmup: int = 0
    weight_decay: float = 0.0
    clip: float = 0.0
    model: dict[str, int] = field(default_factory=dict)
    length: int = 0
    vocabulary: str = ""
    precision: str = "fp32"
    flags: tuple[str, ...] = ()
    evaluate_every: int = 0
    target: float = 0.0
    seed: int = 0
    flip: bool = False
    crop: int = 0
    threads: int = 2
    device: str = "cpu"

    @property
    def last_step(self) -> int:
        """Steps that are really taken."""
        return self.stop_after or self.steps

    @property
    def json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    def reached(self, figure: float) -> bool:
        """Whether a held-out figure is as good as wanted."""
        if not self.target:
            return False
        return figure >= self.target if self.kind in {"image", "text"} else figure <= self.target


def task_of(arguments: list[str]) -> Task:
    """Read the task that a script was started with."""
    if len(arguments) != 2:
        sys.exit(f"usage: python -m benchmarks.peers.<name> TASK, a task as JSON; got {len(arguments) - 1} arguments")
    values = json.loads(arguments[1])
    return Task(**{**values, "flags": tuple(values.get("flags", ()))})


def cosine(step: int, task: Task) -> float:
    """The share of the highest rate at a step: a linear rise, then half a cosine down to the least rate.

    >>> task = Task("image", "", 1, 10, rate=1.0, warmup=2)
    >>> [round(cosine(step, task), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < task.warmup:
        return (step + 1) / task.warmup
    progress = min((step - task.warmup) / max(task.steps - task.warmup, 1), 1.0)
    least = task.least_rate / task.rate
    return least + (1 - least) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Images:
    """Images [N, C, H, W], float32 and normalised, and labels [N], of what is trained on and what is held out."""

    train_x: np.ndarray
    train_y: np.ndarray
    held_out_x: np.ndarray
    held_out_y: np.ndarray
    classes: int


def images(folder: str, most: int | None = None) -> Images:
    """Read prepared images, all or the first ``most`` of each part; they lie in memory, as they are small."""
    meta = json.loads((Path(folder) / "meta.json").read_bytes())
    mean, std = (np.asarray(meta[name], np.float32) for name in ("mean", "std"))

    def part(split: str) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels = (np.load(Path(folder) / f"{split}.{name}.npy", mmap_mode="r")[:most] for name in "xy")
        scaled = (pixels.astype(np.float32) / 255 - mean) / std
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)), np.array(labels)

    return Images(*part("train"), *part("validation"), classes=len(meta["labels"]))


@dataclass(frozen=True)
class Stream:
    """Tokens of a text in a row: of what is trained on and what is held out.

    ``held_out_bytes`` are of the held-out text.
    """

    train: np.ndarray
    held_out: np.ndarray
    vocabulary: int
    held_out_bytes: int


def stream(task: Task) -> Stream:
    """Read the characters of a file, or the tokens of a prepared store."""
    if task.kind == "characters":
        text = Path(task.data).read_text(encoding="utf-8")
        alphabet = {character: number for number, character in enumerate(sorted(set(text)))}
        tokens = np.array([alphabet[character] for character in text], np.int64)
        cut = int(TRAIN_SHARE * len(text))
        # the first held-out character is predicted too, from the last one before
        return Stream(tokens[:cut], tokens[cut - 1 :], len(alphabet), len(text[cut:].encode()))
    meta = json.loads((Path(task.data) / "meta.json").read_bytes())
    train, held_out = (
        np.load(Path(task.data) / f"{split}.tokens.npy").astype(np.int64) for split in ("train", "validation")
    )
    return Stream(train, held_out, meta["vocabulary"], meta["text_bytes"]["validation"])


def windows(tokens: np.ndarray, starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut out the tokens [b, length] from some places on, and those after each of them."""
    places = starts[:, None] + np.arange(length)
    return tokens[places], tokens[places + 1]


def texts(task: Task) -> dict[str, tuple[list[list[int]], list[int]]]:
    """Read the pieces and labels of the sentences in ``train.tsv`` and ``dev.tsv``, with BERT's two marks."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(task.vocabulary, lowercase=True)
    tokenizer.enable_truncation(task.length or 512)

    def part(split: str) -> tuple[list[list[int]], list[int]]:
        lines = (Path(task.data) / f"{split}.tsv").read_text(encoding="utf-8").split("\n")
        rows = [line.rsplit("\t", 1) for line in lines if line]
        return [each.ids for each in tokenizer.encode_batch([text for text, _ in rows])], [int(y) for _, y in rows]

    return {split: part(split) for split in ("train", "dev")}


def facts(task: Task, **more: Any) -> dict[str, Any]:
    """What a peer says when it is ready: the versions that bear on its speed."""
    import importlib.metadata

    versions = {}
    for name in ("torch", "transformers", "accelerate", "lightning", "keras"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"versions": versions, "flags": list(task.flags), "precision": task.precision, **more}
