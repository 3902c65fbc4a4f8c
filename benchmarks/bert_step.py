"""A step of a BERT of 6 x 384 on 32 x 128 tokens, forward, backward and AdamW: milliseconds, and the share of the peak.

    python -m benchmarks.bert_step [--quick] [--rounds N] [--resume]

Sentences are made up, each of 128 pieces with its marks, so that every batch has the one shape; the job runs as any
other, and its plan decides the rest. Beside it, for comparison, Hugging Face's BERT in a plain loop with bf16 autocast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import real_data
from benchmarks.figures import WARM_UP, conclude, medians_s, notes, ratios, table
from benchmarks.kept import Kept
from benchmarks.peak import transformer_flops
from benchmarks.peers.task import Task
from benchmarks.race import PEERS, Entrant, Race, asked_of, ours, peak, peer, race, told
from thrifty import hardware

BATCH, LENGTH, SENTENCES = 32, 128, 4_096
MODEL = {"layers": 6, "width": 384, "heads": 6}
EPOCHS = 6
STEPS, QUICK_STEPS = 60, 30
PEER_STEPS = 10


def job() -> dict[str, Any]:
    """The job of our runs."""
    data = {
        "kind": "text",
        "path": str(real_data.sentences(SENTENCES, LENGTH).resolve()),
        "tokenizer": str(real_data.shared("tokenizers/bert-base-uncased-vocab.txt")),
        "length": LENGTH,
    }
    train = {"epochs": EPOCHS, "batch": BATCH, "optimizer": "adamw"}
    return {"name": "bert-step", "data": data, "model": "bert-small", "train": train}


def entrants(steps: int) -> Callable[[int], Sequence[Entrant]]:
    """Who runs in a round."""
    task = Task(
        "text",
        str(real_data.sentences(SENTENCES, LENGTH)),
        BATCH,
        steps=EPOCHS * SENTENCES // BATCH,
        rate=1e-4,
        stop_after=WARM_UP + PEER_STEPS,
        model=MODEL,
        length=LENGTH,
        vocabulary=str(real_data.shared("tokenizers/bert-base-uncased-vocab.txt")),
        precision="bf16",
    )
    plain = [peer("hugging_face_bf16", "plain_torch", task)] if PEERS.exists() else []
    return lambda _: [peak(), ours("ours", job(), stop_after=WARM_UP + steps), *plain]


def work() -> float:
    """Operations of a step."""
    return transformer_flops(MODEL["layers"], MODEL["width"], LENGTH) * BATCH * LENGTH


def figures(found: Race) -> dict[str, list[float]]:
    """The figures of the issue, and what they are computed from."""
    step_s = {name: medians_s(found.of(name)) for name in ("ours", "hugging_face_bf16")}
    peaks = [run.first("peak")["flops_per_second"] for run in found.of("peak")]
    samples = {"peak_tflops": [each / 1e12 for each in peaks]}
    for name, figure in (("ours", "bert_mfu"), ("hugging_face_bf16", "bert_mfu_hugging_face")):
        if step_s[name]:
            samples[f"bert_step_ms_{name}"] = [1e3 * each for each in step_s[name]]
            samples[figure] = ratios([work() / each for each in step_s[name]], peaks)
    return samples


def main() -> int:
    """Race, print the figures, and write the report; returns 1 when a run failed."""
    asked = asked_of(__doc__, rounds=5)
    device = hardware.here(kind="cpu")  # measured alone, before it is asked for
    if not PEERS.exists():
        told("bert_step: there is no environment of the peers, so nothing stands beside our figures (make peers)")
    kept = Kept.of(f"bert_step{'_quick' * asked.quick}", resume=asked.resume)
    found = race(entrants(QUICK_STEPS if asked.quick else STEPS), asked.rounds, kept)
    says = (
        f"{__doc__}\nMedians of {QUICK_STEPS if asked.quick else STEPS} steps after {WARM_UP}. A token counts 6 N + "
        f"12 L C T operations, N the weights of the blocks' products; the step counts {work() / 1e9:.0f} GFLOP. The "
        "share is of the fastest linear layer in bf16, measured in the same round.\n\n"
        f"{table(found, ['ours', 'hugging_face_bf16'])}\n\n{notes(found)}"
    )
    return conclude("bert_step", device, says, figures(found), found, quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
