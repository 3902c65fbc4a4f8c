"""One case of `benchmarks.gpu_moves` in a process of its own, telling what it took as the entrants of a race do.

``python -m benchmarks.gpu_moves_run WORK``, as JSON: what kind of ``case``, and what it differs in.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch

from benchmarks.compile_blocks import SIZES, plan_of
from benchmarks.gpu_train import BERT_VOCABULARY, WORKS, image_files
from benchmarks.peers.talk import Talk
from thrifty import hardware, optim
from thrifty.cost import peak_bytes, step_seconds, trace_step
from thrifty.cost.asked import heard
from thrifty.data import prepare
from thrifty.data.texts.packing import pack, places_of
from thrifty.hardware.asking import Asker
from thrifty.models import MODELS, build, chunked_loss
from thrifty.models.compiling import compile_seconds
from thrifty.models.init import initialise
from thrifty.models.losses import cross_entropy
from thrifty.spec import ModelPlan, Plan, parse_job, raw_data
from thrifty.spec.folders import cache_folder
from thrifty.train.savings import computing_as, with_savings
from thrifty.train.step import take_step

DEVICE: Final = "cuda"
WARM_UP, STEPS, MOST_SECONDS = 3, 15, 5.0
MIB = 1 << 20
# steps of texts, whose lengths are about as those of SST-2's sentences
TEXT_STEPS, LONGEST = 8, 66
IGNORED = -100
COPIES = 5


def steps(talk: Talk, work: dict[str, Any]) -> None:
    """Steps of a GPT by the loop's own `take_step`, over the same batch each time."""
    if not work["filled_up"]:
        chunked_loss.MULTIPLES.pop(DEVICE)
    name, micro = work["model"], work["micro"]
    changes = {"precision": work["precision"], "compile": work["compile"], "offload": work["offload"]}
    plan = plan_of(name, WORKS[name], micro, *SIZES[name], DEVICE).model_copy(update=changes)
    said = _foreseen(plan) if work["foresee"] else {}
    torch.manual_seed(0)
    made = build(plan.model, DEVICE)
    with torch.no_grad():  # on the host, where the loop has them, a large model's would take half a minute
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.02)
    model = computing_as(with_savings(made, plan), plan, "language").train()
    optimizer = optim.build(model, plan.optim, plan.precision, plan.seed, offload=plan.offload)
    shape = (plan.batch.accumulation, micro, plan.model.arguments["length"] + 1)
    tokens = np.random.default_rng(0).integers(plan.model.arguments["vocabulary"], size=shape)
    batches = [{"x": part[:, :-1].copy(), "y": part[:, 1:].copy()} for part in tokens]
    step_s, losses = timed(lambda: take_step(plan, model, optimizer, batches, 1e-4)[0])
    said |= {"step_s": step_s, "losses": losses, "compile_s": compile_seconds()}
    said["gpu_bytes"] = torch.cuda.max_memory_allocated()
    said["parameters"] = sum(each.numel() for each in model.parameters())
    if plan.offload:
        said |= _travelled(model, optimizer)
    talk.say("measured", **said)


def timed(step: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Seconds of each settled step, which end when the host reads its loss; and the losses of all."""
    losses = [step() for _ in range(WARM_UP)]
    torch.cuda.reset_peak_memory_stats()
    times: list[float] = []
    while len(times) < STEPS and (len(times) < 4 or sum(times) < MOST_SECONDS):
        began = time.perf_counter()
        losses.append(step())
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return times, losses


def _foreseen(plan: Plan) -> dict[str, Any]:
    """What is said of a step before one is taken, by asking the GPU about each of its operators."""
    samples = (plan.batch.micro, plan.model.arguments["length"])
    traced = trace_step(
        lambda: build(plan.model),
        cross_entropy,
        {"x": (samples, "int64"), "y": (samples, "int64")},
        precision="bf16",
        optimizer=optim.by_name(plan.optim.optimizer),
        device="cuda",
    )
    with Asker(DEVICE) as asker:
        asked = heard(traced, asker)
        asker.ask(asked.calls)
        memory = peak_bytes(asked, device_kind=DEVICE)
        seconds = step_seconds(asked, 1, hardware.here(kind="cuda"), "bf16")
    torch.cuda.empty_cache()
    return {"foreseen_s": [seconds.low, seconds.value, seconds.high], "foreseen_bytes": memory.value}


def _travelled(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Seconds of the optimizer's step alone, of its gradients' way down alone, and of the weights' way up."""
    whole: list[float] = []
    down: list[float] = []
    up: list[float] = []
    trained = [each for each in model.parameters() if each.requires_grad]
    held = [torch.empty(each.shape, pin_memory=True) for each in trained]
    for _ in range(COPIES):
        gradients = [torch.randn_like(each) * 1e-3 for each in trained]
        for each, gradient in zip(trained, gradients, strict=True):
            each.grad = gradient
        took = []
        for work in (
            optimizer.step,
            lambda there=gradients: [a.copy_(b, non_blocking=True) for a, b in zip(held, there, strict=True)],
            lambda: [each.data.copy_(copy, non_blocking=True) for copy, each in zip(held, trained, strict=True)],
        ):
            torch.cuda.synchronize()
            began = time.perf_counter()
            work()
            torch.cuda.synchronize()
            took.append(time.perf_counter() - began)
        for into, seconds in zip((whole, down, up), took, strict=True):
            into.append(seconds)
    return {"optimizer_s": whole, "down_s": down, "up_s": up, "bytes": 4 * sum(each.numel() for each in trained)}


def texts(talk: Talk, work: dict[str, Any]) -> None:
    """Steps of BERT-base on made-up texts: padded as they come, by length, and packed; in turn, in one process."""
    steps_of = {}
    for count in work["at_once"]:
        generator = np.random.default_rng(0)
        lengths = np.clip(generator.lognormal(3.0, 0.55, size=TEXT_STEPS * count).round(), 4, LONGEST).astype(np.int64)
        rows = [generator.integers(5, BERT_VOCABULARY, size=length) for length in lengths]
        random = [rows[at : at + count] for at in range(0, len(rows), count)]
        sorted_rows = sorted(rows, key=len)
        steps_of[f"{count}_padded"] = list(map(padded, random))
        steps_of[f"{count}_by_length"] = [padded(sorted_rows[at : at + count]) for at in range(0, len(rows), count)]
        steps_of[f"{count}_packed"] = list(map(packed, random))
    arguments = {"vocabulary": BERT_VOCABULARY, "length": 128, "layers": 12, "width": 768, "heads": 12, "classes": 2}
    ours = ModelPlan(name="bert-base", family="bert", arguments=arguments)
    plan = plan_of("gpt2_124m", WORKS["gpt2_124m"], 16, *SIZES["gpt2_124m"], DEVICE)
    plan = plan.model_copy(update={"task": "classify", "model": ours})
    made = build(ours)
    initialise(made, "default", 0, ours)
    model = with_savings(made, plan).train()
    optimizer = optim.build(model, plan.optim)
    said: dict[str, Any] = {
        f"{how}_tokens": sum(batch["x"].size for batch in batches) / TEXT_STEPS for how, batches in steps_of.items()
    }
    for at in range(work["turns"] + 1):
        for how in steps_of if at % 2 else reversed(steps_of):
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            for batch in steps_of[how]:
                take_step(plan, model, optimizer, [batch], 1e-5)
            torch.cuda.synchronize()
            if at:
                said.setdefault(f"{how}_s", []).append((time.perf_counter() - began) / TEXT_STEPS)
                said[f"{how}_bytes"] = torch.cuda.max_memory_allocated()
    talk.say("measured", **said)


def padded(rows: list[np.ndarray]) -> dict[str, np.ndarray]:
    """A batch of texts under each other, filled up with 0."""
    x = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for at, row in enumerate(rows):
        x[at, : len(row)] = row
    return {"x": x, "y": np.arange(len(rows)) % 2}


def packed(rows: list[np.ndarray]) -> dict[str, np.ndarray]:
    """A batch of the same texts end to end, as `thrifty.data.Batches` has them."""
    order, lengths = pack(np.array([len(row) for row in rows]))
    parts = [rows[at] if at < len(rows) else np.full(length, 5) for at, length in zip(order, lengths, strict=True)]
    y = np.where(order < len(rows), order % 2, IGNORED)
    return {"x": np.concatenate(parts)[None].astype(np.int64), "y": y.astype(np.int64), **places_of(lengths)}


def images(talk: Talk, work: dict[str, Any]) -> None:
    """Steps of a ResNet-18 whose batches are made between them, and beside them, as `benchmarks.ahead` has it."""
    from benchmarks.ahead import Case, measure

    said: dict[str, Any] = {}
    for name, augment in work["augments"].items():
        data = {"kind": "image", "path": str(image_files(work["side"]).resolve()), "size": work["side"]}
        section = {"name": "gpu-images", "data": data, "model": "resnet18", "train": {"steps": 1, "augment": augment}}
        job = parse_job(section)
        store = prepare(raw_data(job), seed=0, cache=cache_folder(), emit=lambda event: None)
        recipe, side = MODELS["resnet18"], store.dataset.shape
        arguments = {**recipe.arguments, "channels": side[0], "classes": len(store.dataset.labels)}
        plan = plan_of("gpt2_124m", WORKS["gpt2_124m"], 16, *SIZES["gpt2_124m"], DEVICE)
        batch = plan.batch.model_copy(update={"size": work["batch"], "micro": work["batch"], "accumulation": 1})
        changes = {
            "task": "classify",
            "model": ModelPlan(name="resnet18", family=recipe.family, arguments=arguments),
            "memory_format": "channels_last",
            "batch": batch,
            "augment": job.train.augment,
            "threads": 8,
        }
        case = Case(name, plan.model_copy(update=changes), store, False)
        said |= measure(case, work["turns"], work["half_s"])
    talk.say("measured", **said)


CASES: dict[str, Callable[[Talk, dict[str, Any]], None]] = {"steps": steps, "texts": texts, "images": images}


def main() -> None:
    """Measure one case."""
    talk, work = Talk(), json.loads(sys.argv[1])
    CASES[work["case"]](talk, work)
    talk.done(device_peak_bytes=torch.cuda.max_memory_allocated())


if __name__ == "__main__":
    main()
