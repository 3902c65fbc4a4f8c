"""Training on one NVIDIA GPU: GPT-2 of 124 M and GPT of 1.3 G parameters, BERT-large and ResNet-50.

    python -m benchmarks.gpu_train [--quick] [--models NAME ...] [--most SECONDS]

For each the share of the measured peak, and how many times as fast as Hugging Face's Trainer as it comes (fp32) and
Lightning with bf16. Data is made up, of the shapes of the real; ours lies as files, and runs as any other job. It ends
itself in time: what does not fit into ``--most`` seconds is left out and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import conclude, notes, rates, ratios, table
from benchmarks.kept import Kept
from benchmarks.peak import transformer_flops
from benchmarks.peers.task import Task
from benchmarks.race import PEERS, Entrant, Race, ours, peak, peer, race, told
from benchmarks.real_data import once
from thrifty import hardware

WARM_UP, STEPS = 3, 12
# as many as a user would take; what is planned pays back over them
WHOLE_STEPS = 20_000
# one entrant at most, and what is kept back for the report
MOST_ONE_S, LEAST_LEFT_S = 150.0, 25.0
GPT_VOCABULARY, BERT_VOCABULARY = 50_257, 30_522
# of an image of 224 pixels: 4.09 G multiply-adds forward (He et al. 2015, table 1, as torchvision counts them), each
# two operations, and twice as many backward
RESNET50_FLOPS = 3 * 2 * 4.09e9


@dataclass(frozen=True)
class Work:
    """A model and its batch.

    Attributes:
        kind: of its data.
        model: its name in thrifty's table.
        batch, length: samples of a step; tokens or pixels of one.
        micro: samples that the peers compute at once.
        flops: of a sample, forward and backward.
        sizes: as the peers take them.
    """

    kind: str
    model: str
    batch: int
    length: int
    micro: int
    flops: float
    sizes: dict[str, int]


def _transformer(model: str, layers: int, width: int, heads: int, length: int, batch: int, micro: int) -> Work:
    text = model.startswith("bert")
    flops = length * transformer_flops(layers, width, length, 0 if text else GPT_VOCABULARY)
    sizes = {"layers": layers, "width": width, "heads": heads, "micro": micro}
    return Work("text" if text else "language", model, batch, length, micro, flops, sizes)


WORKS = {
    "gpt_1300m": _transformer("gpt3-1.3b", 24, 2048, 16, 2048, 8, 4),
    "gpt2_124m": _transformer("gpt2", 12, 768, 12, 1024, 16, 16),
    "bert_large": _transformer("bert-large", 24, 1024, 16, 512, 32, 32),
    "resnet50": Work("image", "resnet50", 256, 224, 256, RESNET50_FLOPS, {"micro": 256}),
}


def words(count: int) -> np.ndarray:
    """Made-up words of 3 to 8 letters, all different."""
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    found = {"".join(generator.choice(letters, size=generator.integers(3, 9))) for _ in range(2 * count)}
    return np.array(sorted(found)[:count])


def language_files() -> Path:
    """Text to train on: 12 MB, with pairs enough for a vocabulary as GPT-2's."""

    def write(draft: Path) -> None:
        generator, known = np.random.default_rng(1), words(60_000)
        for name, size in (("a", 1_700_000), ("b", 30_000), ("c", 30_000)):
            (draft / f"{name}.txt").write_text(" ".join(known[generator.integers(len(known), size=size)]))

    return once("gpu-language", write)


def text_files(length: int) -> Path:
    """Labelled texts of one length each, and a vocabulary of whole words."""

    def write(draft: Path) -> None:
        marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
        known = words(BERT_VOCABULARY - len(marks))
        (draft / "vocabulary").mkdir()
        (draft / "vocabulary" / "vocab.txt").write_text("\n".join([*marks, *known]) + "\n")
        (draft / "texts").mkdir()
        generator = np.random.default_rng(1)
        for name, rows in (("train", 1_024), ("dev", 64), ("test", 64)):
            lines = (
                f"{' '.join(known[generator.integers(len(known), size=length - 2)])}\t{at % 10}\n" for at in range(rows)
            )
            (draft / "texts" / f"{name}.tsv").write_text("".join(lines))

    return once(f"gpu-text-{length}", write)


def image_files(side: int) -> Path:
    """Images of noise in ten classes."""
    import cv2

    def write(draft: Path) -> None:
        generator = np.random.default_rng(1)
        for at in range(1_280):
            folder = draft / f"class-{at % 10}"
            folder.mkdir(exist_ok=True)
            # coarse noise, for fine noise makes large files
            coarse = generator.integers(256, size=(side // 8, side // 8, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{at}.jpg"), cv2.resize(coarse, (side, side)))

    return once(f"gpu-images-{side}", write)


def job(name: str, work: Work) -> dict[str, Any]:
    """The job of our run."""
    data: dict[str, Any]
    if work.kind == "language":
        split = {"validation": 0.02, "test": 0.02}
        data = {"kind": "language", "path": str(language_files().resolve()), "split": split, "length": work.length}
        data["vocabulary"] = GPT_VOCABULARY
    elif work.kind == "text":
        folder = text_files(work.length).resolve()
        data = {"kind": "text", "path": str(folder / "texts"), "length": work.length}
        data["tokenizer"] = str(folder / "vocabulary" / "vocab.txt")
    else:
        data = {"kind": "image", "path": str(image_files(work.length).resolve()), "size": work.length}
    train = {"steps": WHOLE_STEPS, "batch": work.batch, "evaluations": 1}
    return {"name": name.replace("_", "-"), "data": data, "model": work.model, "train": train}


def entrants(names: list[str], python: Path | None, steps: int) -> Iterator[Entrant]:
    """Who runs, what the issue asks first before the rest."""
    yield peak("cuda")
    for name in names:
        yield ours(f"{name}_ours", job(name, WORKS[name]), stop_after=WARM_UP + steps, most_s=MOST_ONE_S)
        if python is not None:
            yield _peer(name, "trainer", python, steps)
    if python is not None:
        for name in names:
            yield _peer(name, "lightning", python, steps)


def _peer(name: str, tool: str, python: Path, steps: int) -> Entrant:
    work = WORKS[name]
    task = Task(
        work.kind,
        "",
        work.batch,
        steps=WARM_UP + steps,
        rate=1e-4,
        model=work.sizes,
        length=work.length,
        precision="fp32" if tool == "trainer" else "bf16",
        flags=(tool,),
        device="cuda",
    )
    return peer(f"{name}_{tool}", "gpu_steps", task, python=python, most_s=MOST_ONE_S)


def _alone(entrant: Entrant, _: int) -> list[Entrant]:
    return [entrant]


def peers_python() -> Path | None:
    """An interpreter that has the peers: their environment, or this one."""
    if PEERS.exists():
        return PEERS
    here = all(importlib.util.find_spec(name) for name in ("transformers", "accelerate", "lightning"))
    return Path(sys.executable) if here else None


def figures(found: Race, names: list[str]) -> dict[str, list[float]]:
    """The share of the peak of each model, and the ratios to the peers."""
    samples: dict[str, list[float]] = {}
    peaks = [run.first("peak")["flops_per_second"] for run in found.of("peak")]
    samples["gpu_peak_tflops"] = [each / 1e12 for each in peaks]
    for name in names:
        speed = {who: rates(found.of(f"{name}_{who}"), warm_up=WARM_UP) for who in ("ours", "trainer", "lightning")}
        for who, values in speed.items():
            if values:
                samples[f"{name}_samples_per_second_{who}"] = values
                samples[f"{name}_mfu" if who == "ours" else f"{name}_mfu_{who}"] = ratios(
                    [WORKS[name].flops * each for each in values], peaks
                )
            if values and speed["ours"] and who != "ours":
                samples[f"{name}_speedup_{who}"] = ratios(speed["ours"], values)
    return {figure: values for figure, values in samples.items() if values}


def main() -> int:
    """Run what there is time for, print the figures, and write the report; returns 1 when a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="GPT-2 of 124 M and half the steps")
    parser.add_argument("--models", nargs="+", choices=WORKS, default=list(WORKS), help="some of them")
    parser.add_argument("--most", type=float, default=540.0, help="seconds in all (540)")
    asked = parser.parse_args()
    began = time.monotonic()
    import torch

    if not torch.cuda.is_available():
        sys.exit("gpu_train needs an NVIDIA GPU that torch can use; there is none here")
    python = peers_python()
    if python is None:
        told(
            "gpu_train: neither .venv-peers nor this environment has transformers, accelerate and lightning: ours alone"
        )
    device = hardware.here(kind="cuda")
    names = ["gpt2_124m"] if asked.quick else asked.models
    found, left_out = Race(), []
    for entrant in entrants(names, python, STEPS // 2 if asked.quick else STEPS):
        left_s = asked.most - (time.monotonic() - began) - LEAST_LEFT_S
        if left_s < min(LEAST_LEFT_S, entrant.most_s):
            left_out.append(entrant.name)
            continue
        cut = Entrant(entrant.name, entrant.command, min(entrant.most_s, left_s))
        race(partial(_alone, cut), 1, Kept(), into=found)
    samples = figures(found, names)
    missing = f"\n\nLeft out for want of time: {', '.join(left_out)}." if left_out else ""
    who = [f"{name}_{each}" for name in names for each in ("ours", "trainer", "lightning")]
    shape = found.of("peak")[-1].first("peak")["shape"] if found.of("peak") else "which failed"
    says = (
        f"{__doc__}\nSteady steps after {WARM_UP}. A token counts 6 N + 12 L C T operations, N the weights of "
        f"products, the head's among them; an image of ResNet-50 {RESNET50_FLOPS / 1e9:.1f} G. The share is of the "
        f"fastest linear layer in bf16, {shape}.{missing}\n\n"
        f"{table(found, who)}\n\n{notes(found)}"
    )
    return conclude("gpu_train", device, says, samples, found, quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
