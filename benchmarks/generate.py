"""Sixteen texts written at once by a model of GPT-2's size on this processor: tokens a second, prompts included.

    python -m benchmarks.generate [--quick] [--rounds N] [--resume]

Against ``transformers.generate`` with all sixteen in one batch, in fp32 as it comes and in bf16, and against
openvino-genai where `make genai` made its environment. The same random weights in everybody's own files, the same
prompts, greedy, to the same length. Ours is the server's own writer, which tells each token of each text; in bf16 on
processors that multiply it, in int8 (weights and rows), and in fp32.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import conclude, notes, ratios, spread
from benchmarks.generate_ours import write_models
from benchmarks.kept import Kept
from benchmarks.race import PEERS, ROOT, Entrant, Race, asked_of, cores, need_peers, race, told
from thrifty import hardware
from thrifty.spec.folders import cache_folder

GENAI = ROOT / ".venv-genai" / "bin" / "python"
STREAMS, PROMPT = 16, 64
TOKENS, QUICK_TOKENS = 128, 24
OURS = ("ours", "ours_int8", "ours_fp32")
THEIRS = ("transformers", "transformers_bf16", "genai")


def entrants(folder: Path, tokens: int) -> Callable[[int], Sequence[Entrant]]:
    """Who writes in a round."""

    def work(precision: str) -> str:
        asked: dict[str, Any] = {"folder": str(folder), "precision": precision, "threads": cores()}
        return json.dumps({**asked, "streams": STREAMS, "prompt": PROMPT, "tokens": tokens})

    def one(name: str, python: str, script: str, precision: str) -> Entrant:
        return Entrant(name, (python, "-W", "ignore", "-m", f"benchmarks.{script}", work(precision)), 1800.0)

    def entrants(_: int) -> list[Entrant]:
        found = [
            one("ours", sys.executable, "generate_ours", "bf16"),
            one("ours_int8", sys.executable, "generate_ours", "int8"),
            one("ours_fp32", sys.executable, "generate_ours", "fp32"),
            one("transformers", str(PEERS), "peers.hf_generate", "fp32"),
            one("transformers_bf16", str(PEERS), "peers.hf_generate", "bf16"),
        ]
        return [*found, one("genai", str(GENAI), "peers.genai_generate", "")] if GENAI.exists() else found

    return entrants


def figures(found: Race) -> dict[str, list[float]]:
    """The figures of the issue, and what they are computed from."""
    told = {name: [run.first("written") for run in found.of(name)] for name in (*OURS, *THEIRS)}
    speed = {name: [each["tokens"] / each["seconds"] for each in runs] for name, runs in told.items()}
    samples = {f"generate_tokens_per_second_{name}": values for name, values in speed.items()}
    samples["generate_speedup"] = ratios(speed["ours"], speed["transformers"])
    samples["generate_speedup_fp32"] = ratios(speed["ours_fp32"], speed["transformers"])
    samples["generate_speedup_int8"] = ratios(speed["ours_int8"], speed["transformers"])
    samples["generate_speedup_both_bf16"] = ratios(speed["ours"], speed["transformers_bf16"])
    samples["generate_share_of_genai"] = ratios(speed["ours"], speed["genai"])
    samples["generate_share_of_genai_int8"] = ratios(speed["ours_int8"], speed["genai"])
    reference: list[list[int]] = next((each["texts"] for each in told["transformers"]), [])
    for name in (*OURS, "genai"):
        samples[f"generate_same_tokens_{name}"] = [same(each["texts"], reference) for each in told[name] if reference]
    return samples


def same(mine: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> float:
    """The share of tokens up to the first that differs, over all texts; all that follows one is another text.

    >>> same([[1, 2, 3, 4]], [[1, 2, 9, 4]])
    0.5
    """
    alike = total = 0
    for one, other in zip(mine, theirs, strict=True):
        total += len(other)
        alike += next(
            (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
        )
    return alike / total


def table(found: Race) -> str:
    """Write what each did."""
    rows = [
        "| who | runs | tokens/s | to the first token, s | processors, s | peak, MiB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in (*OURS, *THEIRS):
        runs = found.of(name)
        told = [run.first("written") for run in runs]
        cells = [
            spread(each["tokens"] / each["seconds"] for each in told),
            spread(each["first_s"] for each in told if "first_s" in each) if any("first_s" in x for x in told) else "",
            spread(each["cpu_s"] for each in told),
            spread(run.peak_bytes / 2**20 for run in runs),
        ]
        rows.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> int:
    """Race, print the figures, and write the report; returns 1 when a run failed."""
    asked = asked_of(__doc__, rounds=3)
    need_peers()
    device = hardware.here(kind="cpu")
    tokens = QUICK_TOKENS if asked.quick else TOKENS
    told("generate: writing the model in everybody's own files")
    folder = write_models(cache_folder() / "benchmarks" / "generate-gpt2")
    kept = Kept.of(f"generate{'_quick' * asked.quick}", resume=asked.resume)
    found = race(entrants(folder, tokens), asked.rounds, kept)
    samples = figures(found)
    bar = statistics.median(samples["generate_speedup"]) if samples["generate_speedup"] else 0.0
    says = (
        f"{__doc__}\n{STREAMS} prompts of {PROMPT} tokens, {tokens} new tokens each. The bars: three times "
        f"transformers.generate (here {bar:.2f}), nine tenths of openvino-genai. Random weights make logits that "
        "differ little, so a rounding changes a token sooner than in a trained model: `generate_same_tokens` is the "
        f"share of tokens before the first that differs from those of transformers in fp32.\n\n{table(found)}\n\n"
        f"{notes(found)}"
    )
    return conclude("generate", device, says, samples, found, quick=asked.quick, optional="genai")


if __name__ == "__main__":
    sys.exit(main())
