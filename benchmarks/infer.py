"""Rows a second of our bundles beside torch, ONNX Runtime and OpenVINO as they come: the same trained model, all cores.

    python -m benchmarks.infer [bert resnet] [--quick] [--rounds N]

BERT of 6 x 384 on sentences (SST-2) and ResNet-18 on pictures of 32 x 32 (CIFAR-10), each trained by its job, or taken
from an earlier run of it. Ours is what ``thrifty compress --objective throughput --max-drop 0.5%`` makes of the run.
Beside it: ``torch``, the model as trained, eager, fp32; ``ort``, what ``onnxruntime.quantization.quantize_dynamic``
makes of its ONNX form; ``openvino``, its fp32 form compiled with what optimum-intel asks of OpenVINO, a hint of
latency and no precision, where OpenVINO chooses one for the processor; ``bf16``, our own bundle in bf16 by OpenVINO,
which no search is needed for. All get the same requests of 1, 8 and 32 rows, filled up to their longest, in turn in one
process; rows a second are those of each one's best size. Preprocessing is left out, for it is the same.

Each is judged by our guard on the test split. What is over the drop is no match, however fast it is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.compress import answers_of, trained
from benchmarks.race import told
from benchmarks.record import record
from thrifty import api, hardware
from thrifty.compress.answers import Answers
from thrifty.compress.guard import Guard, parse_drop
from thrifty.compress.measure import measure, requests
from thrifty.data import prepare
from thrifty.export.bundle import Bundle, load_bundle, rewrite_bundle, torch_model
from thrifty.export.engines import ENGINES
from thrifty.export.engines.openvino import core
from thrifty.spec import Dataset, Measured, Verdict, raw_data
from thrifty.spec.folders import cache_folder

MAX_DROP = "0.5%"
# how many times as fast as each of them our bundle is to be
BARS = {"torch": 6.0, "ort": 1.5, "openvino": 1.1}
MODELS = ("bert", "resnet")
# of a request that bounds nothing here: what counts is the best of several sizes
BATCH = 32


def ort_dynamic(model: nn.Module, data: Dataset, place: Path) -> Answers:
    """ONNX Runtime's own dynamic quantisation of a model, by its defaults."""
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    plain, small = place / "plain.onnx", place / "dynamic.onnx"
    plain.write_bytes(ENGINES["onnx"].convert(model, data).SerializeToString())
    quantize_dynamic(plain, small)
    session = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def answers(x: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(session.run(None, {name: x.numpy()})[0], np.float32))

    return answers


def compared(name: str, *, quick: bool, rounds: int, budget: str) -> tuple[dict[str, list[float]], str]:
    """Make a model's bundle and its rivals, measure them in turn, and judge all; return figures and a table."""
    run = trained(name, quick=quick)
    folder = run.folder / "infer"
    made = api.compress(
        run.folder, max_drop=MAX_DROP, objective="throughput", batch=BATCH, budget=budget, folder=folder,
        runs=run.folder.parent,
    )  # fmt: skip
    job, plan = run.job(), run.plan()
    store = prepare(raw_data(job), seed=job.train.seed, cache=cache_folder(), emit=lambda event: None)
    source = load_bundle(run.bundle)
    model = torch_model(source)
    with tempfile.TemporaryDirectory() as place:
        candidates: dict[str, Answers] = {
            "ours": load_bundle(folder).model,
            "bf16": _in_bf16(source, Path(place) / "bf16").model,
            "torch": model,
            "ort": ort_dynamic(model, store.dataset, Path(place)),
            "openvino": answers_of(
                core().compile_model(
                    ENGINES["openvino"].convert(model, store.dataset), "CPU", {"PERFORMANCE_HINT": "LATENCY"}
                )
            ),
        }
        guard = Guard(store, plan, "test", parse_drop(MAX_DROP), model)
        verdicts = {each: guard.judge(answers) for each, answers in candidates.items() if each != "torch"}
        sittings = [
            measure(
                candidates,
                requests(store, BATCH, seed=number),
                dict.fromkeys(candidates, 0),
                hardware.here(kind="cpu"),
                batch=BATCH,
                rounds=3 if quick else 7,
            )
            for number in range(rounds)
        ]
    figures: dict[str, list[float]] = defaultdict(list)
    for found in sittings:
        for who, each in found.items():
            figures[f"infer_{name}_rows_per_second_{who}"].append(each.rows_per_s.value)
        for rival in BARS:
            figures[f"infer_{name}_speedup_{rival}"].append(
                found["ours"].rows_per_s.value / found[rival].rows_per_s.value
            )
    figures[f"infer_{name}_search_cpu_s"] = [made.spent.cpu_s]
    title = f"**{name}** ({plan.model.name}): ours is {' + '.join(made.moves) or 'as trained'}."
    return dict(figures), f"{title}\n\n{_table(sittings[-1], verdicts)}"


def _in_bf16(source: Bundle, folder: Path) -> Bundle:
    rewrite_bundle(folder, source, engine="openvino", precision="bf16")
    return load_bundle(folder)


def _table(found: dict[str, Measured], verdicts: dict[str, Verdict]) -> str:
    rows = ["| who | rows/s | at once | mJ a row | drop on test (upper bound) | |", "|---|---:|---:|---:|---:|---|"]
    for who, each in sorted(found.items(), key=lambda pair: -pair[1].rows_per_s.value):
        verdict = verdicts.get(who)
        judged = f"{verdict.drop:+.2g} ({verdict.high:+.2g}) | {verdict.held}" if verdict else "0 | as trained"
        joules = f"{1e3 * each.joules_a_row.value:.3g}"
        rows.append(f"| {who} | {each.rows_per_s.value:.4g} | {each.best_batch} | {joules} | {judged} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help=", ".join(MODELS))
    parser.add_argument("--quick", action="store_true", help="smaller models, an epoch each")
    parser.add_argument("--rounds", type=int, default=5, help="sittings, each with requests of its own (5)")
    parser.add_argument("--budget", default="10min", help="of the search (10min)")
    asked = parser.parse_args(arguments)
    unknown = sorted({*asked.models} - {*MODELS})
    if unknown:
        parser.error(f"no model {', '.join(unknown)}; there are {', '.join(MODELS)}")
    samples: dict[str, list[float]] = {}
    told_of = []
    for name in asked.models or MODELS:
        rounds, budget = (1, "2min") if asked.quick else (asked.rounds, asked.budget)
        figures, line = compared(name, quick=asked.quick, rounds=rounds, budget=budget)
        told(line)
        samples.update(figures)
        told_of.append(line)
    bars = ", ".join(f"{bar:g} x {rival}" for rival, bar in BARS.items())
    says = "\n\n".join([str(__doc__), f"The bars: {bars}. The tables are of the last sitting.", *told_of])
    told(str(record(f"infer{'_quick' * asked.quick}", hardware.here(kind="cpu"), says, samples)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
