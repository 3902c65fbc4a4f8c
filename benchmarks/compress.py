"""Compression against NNCF with accuracy control on its own: the same trained model, data, guard and machine.

    python -m benchmarks.compress [MODEL …] [--quick] [--max-drop 0.5%] [--batch 8] [--budget 10min]

Each model is trained by its job, or taken from an earlier run of it. Ours is `thrifty.api.compress`; the peer converts
the same model to OpenVINO, calls ``nncf.quantize_with_accuracy_control`` with the same calibration rows, the same
validation rows and the drop that our guard allows, and compiles what it gets as OpenVINO does by itself. Both are then
measured in turn in one process, and both judged by our guard on the test split. ``compress_<model>_speedup`` is the
peer's time of a request over ours, of the language model, whose objective is size, its bytes over ours; so is
``_size_ratio`` of all. A peer that ends in an error is measured as the
plain OpenVINO model that a user would be left with.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from benchmarks import real_data
from benchmarks.precision import digits, pictures
from benchmarks.race import told
from benchmarks.record import record
from thrifty import api, hardware
from thrifty.compress.answers import tally
from thrifty.compress.compress import calibration
from thrifty.compress.guard import BATCH, Guard, parse_drop
from thrifty.compress.measure import measure, requests
from thrifty.compress.moves.quantise import nncf
from thrifty.data import Store, prepare, sweep
from thrifty.export.bundle import load_bundle, torch_model
from thrifty.export.engines import ENGINES
from thrifty.export.engines.openvino import core, openvino
from thrifty.runs import RunFolder
from thrifty.spec import METRICS, Measured, Verdict, raw_data
from thrifty.spec.folders import cache_folder

Job = dict[str, Any]


def _shakespeare() -> Job:
    path, split = real_data.shakespeare()
    return {"kind": "language", "path": str(path), "split": split, "vocabulary": 512, "length": 128}


# data and job of each model; in a quick run another model and fewer epochs
JOBS: dict[str, Callable[[], Job]] = {
    "bert": lambda: {
        "data": {"kind": "text", "path": str(real_data.shared("sst2"))}, "model": "bert-small",
        "train": {"epochs": 4, "batch": 32},
    },
    "resnet": lambda: {
        "data": {"kind": "image", "path": str(pictures(1500)), "split": {"validation": 0.15, "test": 0.15}},
        "model": "resnet18", "train": {"epochs": 8, "batch": 64},
    },
    "speech": lambda: {
        "data": {"kind": "audio", "path": str(real_data.shared("fsdd")), "split": {"validation": 0.2, "test": 0.2}},
        "task": "classify", "model": "speech-small", "train": {"epochs": 8, "batch": 32},
    },
    "gpt": lambda: {"data": _shakespeare(), "model": "gpt-mini", "train": {"epochs": 2, "batch": 16}},
    "mlp": lambda: {
        "data": {"kind": "image", "path": str(digits()), "split": {"validation": 0.2, "test": 0.2}},
        "model": "mlp-small", "train": {"epochs": 6, "batch": 64},
    },
}  # fmt: skip
QUICK: dict[str, Job] = {
    "bert": {"model": "bert-tiny"}, "resnet": {"model": "resnet8"}, "speech": {"model": "speech-tiny"},
    "gpt": {"model": "gpt-nano"}, "mlp": {"model": "mlp-small"},
}  # fmt: skip


def trained(name: str, *, quick: bool) -> RunFolder:
    """Train a model by its job; a run that is done already is taken as it is."""
    folder = cache_folder() / "benchmarks" / "compress"
    folder.mkdir(parents=True, exist_ok=True)
    job = {"name": f"{name}-quick" if quick else name, **JOBS[name]()}
    if quick:
        job = {**job, **QUICK[name], "train": {**job["train"], "epochs": 1}}
    path = folder / f"{job['name']}.yaml"
    path.write_text(yaml.safe_dump(job), encoding="utf-8")
    return RunFolder(api.run(path, runs=folder / "runs").folder)


class Peer:
    """NNCF with accuracy control, as its documentation has it, and what came of it.

    Attributes:
        cpu_s: processor seconds of conversion and search.
        says: what came of it.
        size: bytes of its files.
    """

    def __init__(self, run: RunFolder, store: Store, model: nn.Module, most: float) -> None:
        library, plan, began = nncf(), run.plan(), time.process_time()
        plain = ENGINES["openvino"].convert(model, store.dataset)
        sign = 1 if METRICS[plan.stop.metric].rises else -1

        def validated(compiled: Any, batches: Sequence[dict[str, np.ndarray]]) -> tuple[float, None]:
            found = tally(answers_of(compiled), batches, plan.task, plan.stop.metric, store.dataset, "validation")
            return sign * found.value, None

        rows = [np.asarray(each["x"]) for each in calibration(store, seed=run.job().train.seed)]
        held_out = list(sweep(store, "validation", BATCH))
        attends = any("attention" in type(each).__name__.lower() for each in model.modules())
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                made = library.quantize_with_accuracy_control(
                    plain.clone(), library.Dataset(rows), library.Dataset(held_out), validated, max_drop=most,
                    subset_size=len(rows), model_type=library.ModelType.TRANSFORMER if attends else None,
                )  # fmt: skip
            self.says = "quantised"
        except Exception as error:  # what it raises where it cannot quantise
            made, self.says = plain, f"failed: {' '.join(str(error).split())[:200]}"
        self.cpu_s = time.process_time() - began
        with tempfile.TemporaryDirectory() as folder:
            openvino().save_model(made, Path(folder) / "model.xml", compress_to_fp16=False)
            self.size = sum(each.stat().st_size for each in Path(folder).iterdir())
        self.answers = answers_of(core().compile_model(made, "CPU"))


def answers_of(compiled: Any) -> Callable[[Tensor], Tensor]:
    """What a compiled model of OpenVINO answers to tensors."""
    return lambda x: torch.from_numpy(np.array(compiled([x.numpy()])[0], np.float32))


def compared(name: str, *, quick: bool, max_drop: str, batch: int, budget: str) -> tuple[dict[str, float], str]:
    """Compress a model both ways; return the figures and what there is to say."""
    run = trained(name, quick=quick)
    runs, job, plan = run.folder.parent, run.job(), run.plan()
    objective = "size" if plan.task == "language" else "latency"
    made = api.compress(run.folder, max_drop=max_drop, objective=objective, batch=batch, budget=budget, runs=runs)
    store = prepare(raw_data(job), seed=job.train.seed, cache=cache_folder(), emit=lambda event: None)
    model = torch_model(load_bundle(run.bundle))
    allowed = parse_drop(max_drop)
    peer = Peer(run, store, model, made.validation.allowed)
    guard = Guard(store, plan, "test", allowed, model)
    ours = load_bundle(run.folder / "compressed").model
    theirs = guard.judge(peer.answers)
    found = measure(
        {"ours": ours, "peer": peer.answers, "torch": model},
        requests(store, batch, seed=1),
        {"ours": made.after.bytes, "peer": peer.size, "torch": made.before.bytes},
        hardware.here(kind="cpu"),
        batch=batch,
        rounds=3 if quick else 9,
    )
    faster = found["peer"].latency_s.value / found["ours"].latency_s.value
    figures = {
        "speedup": peer.size / made.after.bytes if objective == "size" else faster,
        "time_ratio": faster,
        "speedup_torch": found["torch"].latency_s.value / found["ours"].latency_s.value,
        "size_ratio": peer.size / made.after.bytes,
        "rows_ratio": found["ours"].rows_per_s.value / found["peer"].rows_per_s.value,
        "search_cpu_s": made.spent.cpu_s,
        "peer_search_cpu_s": peer.cpu_s,
        "held": float(made.held),
        "peer_held": float(theirs.held == "within"),
        "requests_to_pay_back": made.payback.requests,
    }
    return figures, _row(name, plan.model.name, " + ".join(made.moves) or "as trained", found, made.test, theirs, peer)


def _row(
    name: str, model: str, moves: str, found: dict[str, Measured], ours: Verdict | None, theirs: Verdict, peer: Peer
) -> str:
    times = ", ".join(f"{who} {1e3 * each.latency_s.value:.3g} ms" for who, each in found.items())
    test = f"{ours.drop:+.2g} ({ours.high:+.2g}), {ours.held}" if ours is not None else "no test rows"
    return (
        f"- **{name}** ({model}): {moves}; {times}. Drop of {theirs.metric} on test (upper bound): ours {test}; "
        f"peer {theirs.drop:+.2g} ({theirs.high:+.2g}), {theirs.held}; NNCF {peer.says}."
    )


def main() -> int:
    """Run, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(JOBS))
    parser.add_argument("--quick", action="store_true", help="smaller models, an epoch each")
    parser.add_argument("--max-drop", default="0.5%")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--budget", default="10min")
    asked = parser.parse_args()
    samples: dict[str, list[float]] = defaultdict(list)
    lines = []
    for name in asked.models:
        figures, line = compared(
            name, quick=asked.quick, max_drop=asked.max_drop, batch=asked.batch,
            budget="2min" if asked.quick else asked.budget,
        )  # fmt: skip
        told(line)
        lines.append(line)
        for figure, value in figures.items():
            samples[f"compress_{name}_{figure}"].append(value)
    guard = f"Guard: a drop within {asked.max_drop}, its upper bound of 95 %. Requests of {asked.batch} rows."
    says = "\n".join([guard, "", *lines])
    told(str(record("compress_quick" if asked.quick else "compress", hardware.here(kind="cpu"), says, samples)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
