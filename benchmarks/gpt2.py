"""English novels by GPT-2 of 124 M parameters at 1,024 tokens: tokens a second, and the share of the measured peak.

    python -m benchmarks.gpt2 [--quick] [--rounds N] [--resume]

Against Hugging Face's Trainer with bf16, its GPT-2 as it comes. The same tokens, prepared by thrifty, and the same four
windows of 1,024 in each step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import real_data
from benchmarks.figures import conclude, notes, rates, ratios, table
from benchmarks.kept import Kept
from benchmarks.peak import transformer_flops
from benchmarks.peers.task import Task
from benchmarks.race import Entrant, Race, asked_of, need_peers, ours, peak, peer, race, told
from thrifty import hardware
from thrifty.api import silent
from thrifty.data import Store, prepare
from thrifty.spec import parse_job, raw_data
from thrifty.spec.folders import cache_folder

LENGTH, BATCH = 1_024, 4
MODEL = {"layers": 12, "width": 768, "heads": 12}
VOCABULARY = 50_257
STEPS = {"ours": 10, "trainer": 5}
QUICK_STEPS = {"ours": 5, "trainer": 3}
# of the plan, which runs are ended before
WHOLE_STEPS = 1_000


def job() -> dict[str, Any]:
    """The job of our runs."""
    data = {
        "kind": "language",
        "path": str(real_data.novels().resolve()),
        "split": {"validation": 0.01, "test": 0.01},
        "vocabulary": VOCABULARY,
        "length": LENGTH,
    }
    return {"name": "gpt2", "data": data, "model": "gpt2", "train": {"steps": WHOLE_STEPS, "batch": BATCH}}


def prepared() -> Store:
    """The novels as tokens: a tokenizer trained on them, once."""
    wanted = parse_job(job())
    return prepare(raw_data(wanted), seed=wanted.train.seed, cache=cache_folder(), emit=silent)


def entrants(store: Store, steps: dict[str, int]) -> Callable[[int], Sequence[Entrant]]:
    """Who runs in a round, the measurement of the peak among them."""

    def entrants(_: int) -> list[Entrant]:
        task = Task(
            "language",
            str(store.folder),
            BATCH,
            steps=WHOLE_STEPS,
            rate=6e-4,
            warmup=50,
            stop_after=1 + steps["trainer"],
            model=MODEL,
            length=LENGTH,
            precision="bf16",
        )
        return [peak(), ours("ours", job(), stop_after=1 + steps["ours"]), peer("trainer", "hf_trainer", task)]

    return entrants


def figures(found: Race, vocabulary: int) -> dict[str, list[float]]:
    """The figures of the issue, and what they are computed from."""
    speed = {name: rates(found.of(name), "tokens", warm_up=1) for name in STEPS if found.of(name)}
    samples = {f"gpt2_tokens_per_second_{name}": values for name, values in speed.items()}
    peaks = [run.first("peak")["flops_per_second"] for run in found.of("peak")]
    samples["peak_tflops"] = [each / 1e12 for each in peaks]
    if len(speed) == 2:
        samples["gpt2_speedup"] = ratios(speed["ours"], speed["trainer"])
    a_token = transformer_flops(MODEL["layers"], MODEL["width"], LENGTH, vocabulary)
    for name, figure in (("ours", "gpt2_mfu"), ("trainer", "gpt2_mfu_trainer")):
        if name in speed and peaks:
            samples[figure] = ratios([a_token * each for each in speed[name]], peaks)
    return samples


def main() -> int:
    """Race, print the figures, and write the report; returns 1 when a run failed."""
    asked = asked_of(__doc__, rounds=3)
    need_peers()
    real_data.shared("english_novels_94")
    device = hardware.here(kind="cpu")  # measured alone, before it is asked for
    told("gpt2: preparing the novels")
    store = prepared()
    kept = Kept.of(f"gpt2{'_quick' * asked.quick}", resume=asked.resume)
    steps = QUICK_STEPS if asked.quick else STEPS
    found = race(entrants(store, steps), asked.rounds, kept)
    vocabulary = store.dataset.vocabulary
    says = (
        f"{__doc__}\nSpeed is of steady training, without the first step. A token counts 6 N + 12 L C T operations: N "
        f"the weights of the blocks' products and of the head over {vocabulary:,} tokens, attention over every pair. "
        "The share is of the fastest linear layer in bf16, measured in the same round: "
        f"{found.of('peak')[-1].first('peak')['shape'] if found.of('peak') else 'it failed'}.\n\n"
        f"{table(found, list(STEPS), 'tokens')}\n\n{notes(found)}"
    )
    return conclude("gpt2", device, says, figures(found, vocabulary), found, quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
