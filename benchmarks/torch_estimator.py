"""PyTorch's `RuntimeEstimator` on a CPU: its benchmark of each operator, with the CUDA clock it insists on replaced.

As it comes it refuses to run without a GPU. Its estimate of operators is left as it is: the same fake tensors, the same
warm-up and repeats; only events and streams are a CPU's clock. ``python -m benchmarks.torch_estimator CASE``.
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.cases import MODELS, Case, build, named

# it benchmarks every operator anew; where it takes longer than this it is left out
SECONDS = 12


class _Event:
    """What ``torch.cuda.Event`` does, by the clock of the processor."""

    def __init__(self, **_: Any) -> None:
        self.at = 0.0

    def record(self, _: Any = None) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: _Event) -> float:
        return (other.at - self.at) * 1e3


def estimate(case: Case) -> float | None:
    """Return the seconds of a step that the estimator says, from a process of its own; None where it fails."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.torch_estimator", json.dumps(case.__dict__)]
    with contextlib.suppress(subprocess.SubprocessError, ValueError, IndexError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * SECONDS, check=True)
        return float(done.stdout.splitlines()[-1])
    return None


def on_gpu(case: Case) -> float | None:
    """Return the seconds of a step that the estimator says of this machine's GPU; None where it fails."""
    try:
        return _estimated_s(case, "cuda")
    except Exception:
        # it stops at operators that it cannot run, in many ways
        return None


def _estimated_s(case: Case, device: str, built: Callable[[], None] = lambda: None) -> float:
    """Seconds of a step on a device; ``built`` is called between building and estimating."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.runtime_estimator import RuntimeEstimator

    from thrifty import optim
    from thrifty.cost.trace import change_tensors

    of = MODELS[case.model]
    with FakeTensorMode(allow_non_fake_inputs=True), contextlib.redirect_stdout(io.StringIO()):
        model = build(case).train()
        change_tensors(model, lambda tensor: tensor.to(device))
        optimizer = optim.by_name(case.optimizer)(model)
        shapes = of.shapes(case.samples)
        batch = {key: torch.empty(s, dtype=getattr(torch, d), device=device) for key, (s, d) in shapes.items()}
        built()
        with RuntimeEstimator()("operator-level-benchmark") as estimator:
            with torch.autocast(device, torch.bfloat16, enabled=case.precision == "bf16"):
                total, _ = of.loss(model, batch)
            total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return float(estimator.total_runtime) / 1e3


def main(name: str) -> None:
    """Print the estimate of a case in seconds."""
    signal.alarm(SECONDS)
    import torch

    cuda: Any = torch.cuda
    cuda.Event, cuda.current_stream, cuda.synchronize = _Event, lambda: None, lambda: None
    torch.set_num_threads(2)
    # asked only whether there is a GPU, after everything is built
    print(_estimated_s(named(name), "cpu", lambda: setattr(cuda, "is_available", lambda: True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
