"""Real training steps to hold predictions against; as a script, in a fresh process, it prints what they took.

python real_step.py CASE PRECISION LAYOUT STEPS SECONDS
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thrifty.spec import ModelPlan

Shapes = dict[str, tuple[tuple[int, ...], str]]

# name of the model, samples at once, shape of a sample
CASES: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "resnet20": ("resnet20", 256, (3, 32, 32)),
    "resnet8": ("resnet8", 32, (3, 32, 32)),
    "gpt": ("gpt-mini", 8, (256,)),
    "gpt-nano": ("gpt-nano", 4, (64,)),
    "mlp": ("mlp-large", 256, (1, 28, 28)),
}
STATES_PER_PARAMETER = 1


def status_bytes(field: str) -> int:
    """Read VmRSS or VmHWM of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def model_plan(case: str) -> ModelPlan:
    """Resolve the model of a case on data of its shape."""
    from thrifty.models import resolve
    from thrifty.spec import Dataset

    name, _, shape = CASES[case]
    kind = "language" if name.startswith("gpt") else "image"
    labels = tuple("0123456789")
    return resolve(name, Dataset.model_construct(kind=kind, shape=shape, labels=labels, vocabulary=512))


def batch_shapes(case: str) -> Shapes:
    """Shapes and dtypes of one micro-batch of a case."""
    name, samples, shape = CASES[case]
    if name.startswith("gpt"):
        return {"x": ((samples, *shape), "int64"), "y": ((samples, *shape), "int64")}
    return {"x": ((samples, *shape), "float32"), "y": ((samples,), "int64")}


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


def take_steps(case: str, precision: str, layout: str, steps: int, seconds: float) -> list[tuple[float, float]]:
    """Take optimizer steps as the training loop does, three at least.

    Of each its seconds, and the share of the cores that it got; threads that wait for each other do so spinning.
    """
    import torch

    from thrifty.models import build
    from thrifty.models.inputs import MEMORY_FORMATS
    from thrifty.models.losses import cross_entropy

    model = build(model_plan(case)).to(memory_format=MEMORY_FORMATS[layout]).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
    batch = real_batch(batch_shapes(case), layout)
    times = []
    started = time.perf_counter()
    while len(times) < 3 or (len(times) < steps and time.perf_counter() - started < seconds):
        began, cpu = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss_sum, weight = cross_entropy(model, batch)
        (loss_sum / weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        wall = time.perf_counter() - began
        times.append((wall, (time.process_time() - cpu) / wall / torch.get_num_threads()))
    return times


if __name__ == "__main__":
    bare = status_bytes("VmRSS")
    taken = take_steps(*sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5]))
    print(json.dumps({"peak_bytes": status_bytes("VmHWM") - bare, "steps": taken}))
