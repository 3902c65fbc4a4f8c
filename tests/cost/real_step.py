"""Real training steps to hold predictions against; as a script, in a fresh process, it prints what they took.

With 0 steps it prints how far the heap would grow.

python real_step.py CASE PRECISION LAYOUT STEPS THREADS
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thrifty.cost import Trace
    from thrifty.spec import ModelPlan

Shapes = dict[str, tuple[tuple[int, ...], str]]

# name of the model, samples at once, shape of a sample
CASES: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "resnet20": ("resnet20", 256, (3, 32, 32)),
    "resnet8": ("resnet8", 32, (3, 32, 32)),
    "gpt": ("gpt-mini", 8, (256,)),
    "gpt-nano": ("gpt-nano", 4, (64,)),
    "vit-nano": ("vit-nano", 8, (3, 32, 32)),
    "mlp": ("mlp-large", 256, (1, 28, 28)),
    "wav2vec2-tiny": ("wav2vec2-tiny", 4, (24, 320)),
}


def status_bytes(field: str) -> int:
    """Read VmRSS or VmHWM of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def model_plan(case: str) -> ModelPlan:
    """Resolve the model of a case on data of its shape."""
    from thrifty.models import resolve
    from thrifty.spec import KINDS, Dataset, KindName, Sound

    name, _, shape = CASES[case]
    kinds: dict[str, KindName] = {"gpt": "language", "wav": "audio"}
    kind = kinds.get(name[:3], "image")
    labels = tuple("0123456789")
    task = KINDS[kind].tasks[0]
    dataset = Dataset.model_construct(kind=kind, task=task, shape=shape, labels=labels, vocabulary=512)
    if kind == "audio":
        dataset = dataset.model_copy(update={"sound": Sound(rate=16_000, features="wave")})
    return resolve(name, dataset)


def batch_shapes(case: str) -> Shapes:
    """Shapes and dtypes of one micro-batch of a case."""
    name, samples, shape = CASES[case]
    if name.startswith("gpt"):
        return {"x": ((samples, *shape), "int64"), "y": ((samples, *shape), "int64")}
    return {"x": ((samples, *shape), "float32"), "y": ((samples,), "int64")}


def trace_case(case: str, precision: Any = "fp32", layout: Any = "contiguous") -> Trace:
    """Trace a step of a case."""
    from thrifty import optim
    from thrifty.cost import trace_step
    from thrifty.models import build
    from thrifty.models.losses import cross_entropy

    return trace_step(
        lambda: build(model_plan(case)),
        cross_entropy,
        batch_shapes(case),
        precision=precision,
        optimizer=optim.by_name("momentum", precision),
        memory_format=layout,
    )


def real_batch(shapes: Shapes, layout: str) -> dict[str, Any]:
    """Make real tensors of those shapes: noise, and whole numbers below ten."""
    import torch

    from thrifty.models.inputs import MEMORY_FORMATS

    batch = {}
    for key, (shape, dtype) in shapes.items():
        kind = getattr(torch, dtype)
        tensor = torch.randn(shape) if kind.is_floating_point else torch.randint(0, 10, shape)
        batch[key] = tensor.contiguous(memory_format=MEMORY_FORMATS[layout]) if tensor.dim() == 4 else tensor
    return batch


def take_steps(case: str, precision: str, layout: str, steps: int) -> list[float]:
    """Take optimizer steps as the training loop does; processor seconds of each, all threads together."""
    import torch

    from thrifty import optim
    from thrifty.hardware.pages import keep_pages, keeping
    from thrifty.models import build
    from thrifty.models.inputs import MEMORY_FORMATS
    from thrifty.models.losses import cross_entropy
    from thrifty.models.precision import autocasting, with_precision

    keep_pages(keeping("cpu", "none"))
    model = with_precision(build(model_plan(case)).to(memory_format=MEMORY_FORMATS[layout]).train(), precision)
    optimizer = optim.by_name("momentum", precision)(model)
    batch = real_batch(batch_shapes(case), layout)

    def step() -> None:
        with autocasting("cpu", precision):
            loss_sum, weight = cross_entropy(model, batch)
        (loss_sum / weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return [processor_seconds(step) for _ in range(steps)]


def heap_bytes(case: str, precision: str, layout: str) -> int | None:
    """How far the heap of this process would grow over steps of a case, by a dry run."""
    from thrifty import optim
    from thrifty.cost import heap_peak
    from thrifty.models import build
    from thrifty.models.inputs import MEMORY_FORMATS
    from thrifty.models.losses import cross_entropy

    found = heap_peak(
        lambda: build(model_plan(case)),
        cross_entropy,
        batch_shapes(case),
        precision=precision,
        optimizer=optim.by_name("momentum", precision),
        memory_format=MEMORY_FORMATS[layout],
    )
    return None if found is None else found.step


def processor_seconds(work: Callable[[], object]) -> float:
    """Processor time of one call: what others take of the machine meanwhile does not count."""
    began = time.process_time()
    work()
    return time.process_time() - began


def rates() -> dict[str, float]:
    """Measure this thread as `thrifty.hardware` measures the machine: products in FLOP/s, a copy in bytes/s.

    The best of a few, since others may disturb the caches meanwhile.
    """
    import torch

    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x, weight = torch.rand(1024, 1024).to(dtype), torch.rand(1024, 1024).to(dtype)
        multiply = functools.partial(torch.nn.functional.linear, x, weight)
        found[name] = 2 * 1024**3 / min(processor_seconds(multiply) for _ in range(9))
    source, target = torch.ones(1 << 28, dtype=torch.uint8), torch.ones(1 << 28, dtype=torch.uint8)
    copy = functools.partial(target.copy_, source)
    found["memory"] = 2 * (1 << 28) / min(processor_seconds(copy) for _ in range(5))
    return found


def main(case: str, precision: str, layout: str, steps: str, threads: str) -> None:
    """Print what some steps took; with one thread also the rates of that thread."""
    bare = status_bytes("VmRSS")
    import torch

    torch.set_num_threads(int(threads))
    if steps == "0":
        print(json.dumps({"heap_bytes": heap_bytes(case, precision, layout)}))
        return
    seconds = take_steps(case, precision, layout, int(steps))
    taken = {"peak_bytes": status_bytes("VmHWM") - bare, "seconds": seconds}
    print(json.dumps(taken | ({"rates": rates()} if threads == "1" else {})))


if __name__ == "__main__":
    main(*sys.argv[1:])
