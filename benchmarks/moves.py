"""What each move of compression gives on small models trained here: held-out accuracy, work, processor seconds.

    python -m benchmarks.moves [CASE …] [--quick]

Cases are mnist_mlp, mnist_resnet, sst2_tiny and sst2_mini; one takes some minutes. Every move that applies is taken on
the model as trained, by one seed; sparsity, which is declined, is taken too. Times are seconds of one processor for
eight rows, of the model before and after in turn, the least of nine rounds. Quick: the first, a tenth of its steps.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.race import told
from benchmarks.real_data import shared
from benchmarks.record import record
from thrifty import hardware
from thrifty.compress.moves import MOVES, Candidate, Context
from thrifty.compress.moves.weight import weigh
from thrifty.data import Batches, Store, prepare, sweep
from thrifty.errors import ThriftyError
from thrifty.evaluate import evaluate
from thrifty.models import build, resolve
from thrifty.models.init import initialise
from thrifty.models.inputs import to_tensors
from thrifty.spec import (
    BatchPlan,
    Cost,
    ImageData,
    Interval,
    ModelPlan,
    OptimPlan,
    Plan,
    Spent,
    StopPlan,
    TextData,
)
from thrifty.spec.folders import cache_folder
from thrifty.train import train

ROWS, ROUNDS, ROUND_S = 8, 9, 0.05
CALIBRATION_ROWS = 512
SECONDS = 1800.0
DECLINED = ("sparse_half", "sparse_2_4")
UNPRICED = Interval(low=0, value=0, high=0, method="not asked")


@dataclass(frozen=True)
class Case:
    """What is trained before it is compressed."""

    data: Callable[[], ImageData | TextData]
    model: str
    steps: int
    batch: int
    rate: float


def _digits(side: int) -> ImageData:
    return ImageData(kind="image", path=shared("mnist"), size=side, color="gray")


def _reviews() -> TextData:
    return TextData(kind="text", path=shared("sst2"))


CASES = {
    "mnist_mlp": Case(lambda: _digits(28), "mlp-large", 400, 128, 1e-3),
    "mnist_resnet": Case(lambda: _digits(14), "resnet14", 250, 128, 3e-3),
    "sst2_tiny": Case(_reviews, "bert-tiny", 350, 32, 1e-3),
    "sst2_mini": Case(_reviews, "bert-mini", 350, 32, 1e-3),
}


def plan_of(case: Case, model: ModelPlan, store: Store) -> Plan:
    """The plan of a training without checkpoints and with one validation, at the end."""
    per_epoch = math.ceil(store.dataset.counts["train"] / case.batch)
    texts = store.dataset.kind == "text"
    return Plan(
        job="moves", key="moves", task="classify", model=model, init="default", seed=0, device="cpu", threads=1,
        memory_format="contiguous", precision="fp32", evaluate_every=case.steps, checkpoint_seconds=math.inf,
        saving="between", why=(),
        optim=OptimPlan(
            optimizer="adamw", schedule="cosine", learning_rate=case.rate, momentum=0.9, betas=(0.9, 0.999), eps=1e-8,
            weight_decay=0.01, warmup_steps=case.steps // 10, total_steps=case.steps, steps_per_epoch=per_epoch,
            decay=0.5, plateau_patience=1, clip=math.inf,
        ),
        stop=StopPlan(
            steps=case.steps, metric="accuracy", higher_is_better=True, target=math.inf, patience=0, seconds=math.inf,
            joules=math.inf, usd=math.inf,
        ),
        batch=BatchPlan(
            size=case.batch, micro=case.batch, accumulation=1, evaluation=128,
            batching="by_length" if texts else "padded",
        ),
        cost=Cost(seconds=UNPRICED, peak_bytes=UNPRICED, joules=UNPRICED, usd=UNPRICED, flops=UNPRICED),
    )  # fmt: skip


@dataclass(frozen=True)
class Taken:
    """What a move gave, as a row of the table, and its figures by name; no figures where it does not apply."""

    row: str
    figures: dict[str, float]


def go(case: Case, scratch: Path) -> Iterator[tuple[str, Taken]]:
    """Train a model, take each move on it, and tell what each gives, by name."""
    store = prepare(case.data(), seed=0, cache=cache_folder(), emit=lambda event: None)
    plan = resolve(case.model, store.dataset)
    run, model = plan_of(case, plan, store), build(plan)
    initialise(model, run.init, run.seed)
    train(run, model, store, scratch / "train", emit=lambda event: None, spent=Spent)
    model.eval().requires_grad_(False)
    share, interval = accuracy(model, store)
    rows_told = f"of {store.dataset.counts['test']:,} rows"
    yield "trained", Taken(f"{share:.4f} ({interval}) | 1 | 1 | 1 | | {rows_told}", {"accuracy": share})
    made = Batches(store, split="train", batch=case.batch, micro=case.batch, seed=1)
    calibration = tuple(made.step(step)[0] for step in range(CALIBRATION_ROWS // case.batch))
    rows = {key: each[:ROWS] for key, each in calibration[0].items()}
    before, was = Candidate(model, plan), weigh(model, rows)
    for name, move in MOVES.items():
        own = scratch / name
        own.mkdir()
        context = Context(
            store=store, run=run, device=hardware.here(kind="cpu"), calibration=calibration, objective="latency",
            batch=ROWS, seconds=SECONDS, seed=0, scratch=own,
        )  # fmt: skip
        reason = None if move.last or name in DECLINED else move.applies(context, before)
        if move.last or reason:
            yield name, Taken(f"| | | | | {reason or 'leaves torch'}", {})
            continue
        began = time.process_time()
        try:
            after = move.apply(context, before)
        except ThriftyError as error:
            yield name, Taken(f"| | | | | {error}", {})
            continue
        took_s, now = time.process_time() - began, weigh(after.model, rows)
        slow_s, fast_s = processor_seconds((model, after.model), to_tensors(rows)["x"])
        share, interval = accuracy(after.model, store)
        found = {
            "accuracy": share, "bytes_ratio": was.bytes / now.bytes, "operations_ratio": was.flops / now.flops,
            "speedup": slow_s / fast_s, "cpu_s": took_s,
        }  # fmt: skip
        took = f"{found['speedup']:.2f} ({1000 * slow_s:.2f} to {1000 * fast_s:.2f} ms) | {took_s:.0f}"
        cells = (
            f"{share:.4f} ({interval})",
            f"{found['bytes_ratio']:.2f}",
            f"{found['operations_ratio']:.2f}",
            took,
            after.says[-1],
        )
        yield name, Taken(" | ".join(cells), found)


def accuracy(model: nn.Module, store: Store) -> tuple[float, str]:
    """Of the test split, and its interval."""
    found = evaluate(model, sweep(store, "test", 128), "classify", labels=store.dataset.labels).metrics
    return found["accuracy"], f"{found['accuracy_low']:.4f} to {found['accuracy_high']:.4f}"


def processor_seconds(models: tuple[nn.Module, ...], x: Tensor) -> list[float]:
    """Processor seconds of an answer of each model, in turn: the least of some rounds."""
    least = [math.inf] * len(models)
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for at, model in enumerate(models):
                began, count = time.process_time(), 0
                while (spent := time.process_time() - began) < ROUND_S or not count:
                    model(x)
                    count += 1
                least[at] = min(least[at], spent / count)
    return least


def main() -> int:
    """Run, print the figures, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="all when left out")
    parser.add_argument("--quick", action="store_true", help="the first case, a tenth of its steps")
    asked = parser.parse_args()
    if unknown := sorted({*asked.cases} - {*CASES}):
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    torch.set_num_threads(1)
    samples: dict[str, list[float]] = {}
    tables = []
    for name in asked.cases or (list(CASES)[:1] if asked.quick else CASES):
        case = replace(CASES[name], steps=CASES[name].steps // 10) if asked.quick else CASES[name]
        lines = [
            f"**{name}**: {case.model}, {case.steps} steps of {case.batch}.", "",
            "| move | accuracy on test | bytes, ÷ | operations, ÷ | time, ÷ | took, CPU s | |",
            "|---|---:|---:|---:|---:|---:|---|",
        ]  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            for move, taken in go(case, Path(folder)):
                told(f"{name}: {move}: {taken.row}")
                lines.append(f"| {move} | {taken.row} |")
                samples |= {f"moves_{name}_{move}_{figure}": [value] for figure, value in taken.figures.items()}
        tables.append("\n".join(lines))
    says = "\n\n".join([str(__doc__), *tables])
    told(str(record(f"moves{'_quick' * asked.quick}", hardware.here(kind="cpu"), says, samples)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
