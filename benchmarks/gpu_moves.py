"""What moves gain on one NVIDIA GPU: step time and memory with and without, and texts written, predicted beside it.

    python -m benchmarks.gpu_moves [--quick] [--rounds N] [--only PART ...] [--most SECONDS]

- ``words``: words that fill the vocabulary of GPT-2 of 124 M up, as the model was made and with its blocks compiled;
- ``fp8``: linear layers in fp8, of the same model and of GPT of 1.3 G;
- ``offload``: AdamW's states in the processor's memory;
- ``images``: batches made beside the steps of a ResNet-18, images changed by chance;
- ``texts``: BERT-base on texts as long as SST-2's sentences: padded, by length, packed;
- ``writing``: sixteen texts written at once by a model of GPT-2's size, by the server's writer and by transformers;
- ``static``: by transformers with a static cache, whose steps it compiles. Everybody has written as much before.

Each case is a process of its own, in rounds, every other one backwards; what does not fit into ``--most`` seconds is
left out and named. Data is made up. Nothing predicted is fitted to these cases.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.figures import conclude, notes, ratios
from benchmarks.generate import PROMPT, STREAMS, TOKENS, same
from benchmarks.generate_ours import write_models
from benchmarks.gpu_train import peers_python
from benchmarks.kept import Kept
from benchmarks.race import Entrant, Race, cores, race, told
from thrifty import hardware
from thrifty.planner.offload import offload_here
from thrifty.spec.folders import cache_folder

MIB = 1 << 20
MOST_ONE_S, LEAST_LEFT_S = 100.0, 15.0
FLIPS = {"flip": True, "crop": 4}
AUGMENTS = {"flips": FLIPS, "randaugment": {**FLIPS, "randaugment": {"changes": 2, "magnitude": 9}}}
_AS_MADE = {"case": "steps", "model": "gpt2_124m", "micro": 16, "compile": "none", "precision": "bf16"}
AS_MADE: dict[str, Any] = {**_AS_MADE, "filled_up": True, "offload": False, "foresee": False}
LARGE = AS_MADE | {"model": "gpt_1300m", "micro": 8, "compile": "blocks"}
# by part: cases by their names; the first of each part is what the others are held against
STEPS: dict[str, dict[str, dict[str, Any]]] = {
    "words": {
        "odd": AS_MADE | {"filled_up": False, "foresee": True},
        "filled": AS_MADE | {"foresee": True},
        "odd_compiled": AS_MADE | {"filled_up": False, "compile": "blocks"},
        "filled_compiled": AS_MADE | {"compile": "blocks"},
    },
    "fp8": {
        "fp8": AS_MADE | {"precision": "fp8"},
        "fp8_compiled": AS_MADE | {"precision": "fp8", "compile": "blocks"},
        "large_compiled": LARGE,
        "large_fp8_compiled": LARGE | {"precision": "fp8"},
    },
    "offload": {"kept": AS_MADE, "offload": AS_MADE | {"offload": True}},
    "images": {"images": {"case": "images", "side": 64, "batch": 256, "turns": 3, "half_s": 1.0, "augments": AUGMENTS}},
    "texts": {"texts": {"case": "texts", "turns": 3, "at_once": [64, 512]}},
}
# of which a round is enough: they differ by more than rounds do, and take long to make
ONCE = ("fp8", "large_compiled", "large_fp8_compiled", "images", "texts", "transformers_static")
WRITERS = ("ours", "transformers", "transformers_static")
PARTS = (*STEPS, "writing", "static")
# what is compared: a figure, who is slower or larger, and who is not
PAIRS = (
    ("words_gain", "odd", "filled"),
    ("words_gain_compiled", "odd_compiled", "filled_compiled"),
    ("compile_gain", "filled", "filled_compiled"),
    ("fp8_gain", "filled", "fp8"),
    ("fp8_gain_compiled", "filled_compiled", "fp8_compiled"),
    ("fp8_gain_large_compiled", "large_compiled", "large_fp8_compiled"),
    ("offload_gain", "kept", "offload"),
)


def entrants(parts: Sequence[str], number: int) -> list[Entrant]:
    """Who runs in a round of this number."""
    found = [each for each in _entrants(parts, number) if not (number and each.name in ONCE)]
    return found[::-1] if number % 2 else found


def _entrants(parts: Sequence[str], number: int) -> Iterator[Entrant]:
    for part in parts:
        for name, work in STEPS.get(part, {}).items():
            # what is said of a step stays the same
            yield _python(name, "gpu_moves_run", work | ({"foresee": False} if number and "foresee" in work else {}))
    if "writing" in parts or "static" in parts:
        folder = str(write_models(cache_folder() / "benchmarks" / "generate-gpt2"))
        work = {"folder": folder, "precision": "bf16", "threads": cores(), "device": "cuda"}
        work |= {"streams": STREAMS, "prompt": PROMPT, "tokens": TOKENS, "warm": TOKENS}
        peers = peers_python()
        if "writing" in parts:
            yield _python("ours", "generate_ours", work)
        if "writing" in parts and peers is not None:
            yield _python("transformers", "peers.hf_generate", work, str(peers))
        if "static" in parts and peers is not None:
            yield _python("transformers_static", "peers.hf_generate", work | {"cache": "static"}, str(peers))


def _python(name: str, script: str, work: dict[str, Any], python: str = sys.executable) -> Entrant:
    return Entrant(name, (python, "-W", "ignore", "-m", f"benchmarks.{script}", json.dumps(work)), MOST_ONE_S)


def said_by(found: Race, name: str) -> list[dict[str, Any]]:
    """What a case told of each of its runs."""
    return [run.first("measured") for run in found.of(name)]


def figures(found: Race) -> dict[str, list[float]]:
    """The figures of all that ran; times in ms, memory in MiB, gains as ratios of times."""
    samples: dict[str, list[float]] = {}
    medians: dict[str, list[float]] = {}
    for cases in STEPS.values():
        for name, work in cases.items():
            if work["case"] == "steps":
                said = said_by(found, name)
                medians[name] = [statistics.median(each["step_s"]) for each in said]
                samples[f"{name}_step_ms"] = [1e3 * each for each in medians[name]]
                samples[f"{name}_gpu_mib"] = [each["gpu_bytes"] / MIB for each in said]
                samples |= _foreseen(name, said)
    for figure, slow, fast in PAIRS:
        samples[figure] = ratios(medians[slow], medians[fast])
    samples |= _offload(said_by(found, "offload"), medians["kept"])
    for each in said_by(found, "images"):
        for key, values in each.items():
            if key.endswith("_ms"):
                samples[f"images_{key}"] = values
    for each in said_by(found, "texts"):
        for name in [key.removesuffix("_s") for key in each if key.endswith("_s") and key != "at_s"]:
            samples[f"texts_{name}_step_ms"] = [1e3 * seconds for seconds in each[f"{name}_s"]]
            samples[f"texts_{name}_tokens"] = [each[f"{name}_tokens"]]
            samples[f"texts_{name}_gpu_mib"] = [each[f"{name}_bytes"] / MIB]
    return {name: values for name, values in (samples | _writing(found)).items() if values}


def _foreseen(name: str, said: list[dict[str, Any]]) -> dict[str, list[float]]:
    heard = [each for each in said if "foreseen_s" in each]
    return {
        f"{name}_foreseen_ms": [1e3 * each["foreseen_s"][1] for each in heard],
        f"{name}_foreseen_mib": [each["foreseen_bytes"] / MIB for each in heard],
    }


def _offload(said: list[dict[str, Any]], without_s: list[float]) -> dict[str, list[float]]:
    added = [statistics.median(each["step_s"]) - before for each, before in zip(said, without_s, strict=False)]
    foreseen = [offload_here(each["parameters"]).value for each in said]
    down, up = ([statistics.median(each[way]) for each in said] for way in ("down_s", "up_s"))
    return {
        "offload_added_ms": [1e3 * each for each in added],
        "offload_added_foreseen_ms": [1e3 * each for each in foreseen],
        "offload_optimizer_ms": [1e3 * statistics.median(each["optimizer_s"]) for each in said],
        "offload_down_gb_per_second": [each["bytes"] / seconds / 1e9 for each, seconds in zip(said, down, strict=True)],
        "offload_up_gb_per_second": [each["bytes"] / seconds / 1e9 for each, seconds in zip(said, up, strict=True)],
    }


def _writing(found: Race) -> dict[str, list[float]]:
    told = {name: [run.first("written") for run in found.of(name)] for name in WRITERS}
    speed = {name: [each["tokens"] / each["seconds"] for each in runs] for name, runs in told.items()}
    samples = {f"writing_tokens_per_second_{name}": values for name, values in speed.items()}
    samples["writing_first_token_s"] = [each["first_s"] for each in told["ours"]]
    for peer in WRITERS[1:]:
        samples[f"writing_speedup_over_{peer}"] = ratios(speed["ours"], speed[peer])
    theirs = [each["texts"] for each in told["transformers"]][:1]
    samples["writing_same_tokens"] = [same(each["texts"], theirs[0]) for each in told["ours"] if theirs]
    return samples


def table(found: Race, parts: Sequence[str]) -> str:
    """Write what each case of steps took, of the parts that were asked for."""
    rows = [
        "| case | runs | ms a step | foreseen | GPU, MiB | foreseen | compiling, s | last loss |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for part in parts:
        for name, work in STEPS.get(part, {}).items():
            if work["case"] == "steps":
                rows.append(_row(name, said_by(found, name)))
    return "\n".join(rows)


def _row(name: str, said: list[dict[str, Any]]) -> str:
    if not said:
        return f"| {name} | 0 | failed or left out | | | | | |"
    times = [1e3 * each for run in said for each in run["step_s"]]
    step_ms, low, high = statistics.median(times), min(times), max(times)
    heard = [each for each in said if "foreseen_s" in each][:1]
    foreseen_ms = "".join(
        f"{value * 1e3:.1f} ({low_s * 1e3:.1f} to {high_s * 1e3:.1f})"
        for low_s, value, high_s in (each["foreseen_s"] for each in heard)
    )
    foreseen_mib = "".join(f"{each['foreseen_bytes'] / MIB:.0f}" for each in heard)
    last = said[0]["losses"][min(len(each["losses"]) for each in said) - 1]
    return (
        f"| {name} | {len(said)} | {step_ms:.2f} ({low:.2f} to {high:.2f}) | {foreseen_ms} | "
        f"{statistics.median(each['gpu_bytes'] for each in said) / MIB:.0f} | {foreseen_mib} | "
        f"{max(each['compile_s'] for each in said):.1f} | {last:.4f} |"
    )


def main() -> int:
    """Run what there is time for, print the figures, and write the report; returns 1 when a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=2, help="of all cases (2)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--most", type=float, default=420.0, help="seconds in all (420)")
    asked = parser.parse_args()
    began = time.monotonic()
    import torch

    if not torch.cuda.is_available():
        sys.exit("gpu_moves needs an NVIDIA GPU that torch can use; there is none here")
    device = hardware.here(kind="cuda")
    found, left_out = Race(), []
    for number in range(1 if asked.quick else asked.rounds):
        for entrant in entrants(asked.only, number):
            left_s = asked.most - (time.monotonic() - began) - LEAST_LEFT_S
            if left_s < LEAST_LEFT_S:
                left_out.append(f"{entrant.name} of round {number + 1}")
                continue
            cut = replace(entrant, most_s=min(entrant.most_s, left_s))
            race(partial(_alone, cut), 1, Kept(), into=found)
    told(f"gpu_moves: {time.monotonic() - began:.0f} s")
    missing = f"\n\nLeft out for want of time: {', '.join(left_out)}." if left_out else ""
    says = (
        f"{__doc__}\nTimes are medians of settled steps, with the quickest and the slowest of all runs; memory is what "
        f"torch.cuda.max_memory_allocated says of them.{missing}\n\n{table(found, asked.only)}\n\n{notes(found)}"
    )
    name = "_".join(["gpu_moves", *([] if set(asked.only) == set(PARTS) else asked.only)])
    return conclude(name, device, says, figures(found), found, quick=asked.quick)


def _alone(entrant: Entrant, _: int) -> list[Entrant]:
    return [entrant]


if __name__ == "__main__":
    sys.exit(main())
