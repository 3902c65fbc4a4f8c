"""Scratch memory inside operators: the rules against what real operators take, each block on pages of its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any

import pytest
import torch

from thrifty.cost.scratch import cudnn_rnn, scratch_bytes, workspace_bytes

MIB = 1 << 20
REAL = """
import json, sys, torch
from pathlib import Path
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from thrifty.cost.scratch import scratch_bytes

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

class Watch(TorchDispatchMode):
    rows = {}
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        out = func(*args, **(kwargs or {}))
        peak = status("VmHWM")
        results = [t for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, torch.Tensor)]
        if name in {"convolution", "convolution_backward"}:
            held = sum(t.untyped_storage().nbytes() for t in results)
            rule = sum(scratch_bytes(name, args, results[0].untyped_storage().nbytes()))
            self.rows[name] = (peak - before - held, rule)
        return out

torch.set_num_threads(2)
found = {}
for bf16 in (False, True):
    for layout in (torch.contiguous_format, torch.channels_last):
      for inputs, outputs in ((64, 128), (128, 64)):
        x = torch.rand(32, inputs, 48, 48).contiguous(memory_format=layout).requires_grad_()
        model = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False).to(memory_format=layout)
        for _ in range(2):
            with Watch() as watch, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                model(x).float().square().sum().backward()
        for name, row in watch.rows.items():
            found[f"{name} {inputs}x{outputs} {layout} bf16={bf16}"] = row
before = status("VmRSS")
lstm = nn.LSTM(256, 512, batch_first=True)
x = torch.rand(64, 100, 256)
lstm(x)[0].sum().backward()
before = status("VmRSS")
y = lstm(x)[0]
found["lstm"] = (status("VmRSS") - before - 4 * y.numel(), 25 * y.numel())
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="oneDNN's layouts were measured on x86-64 Linux"
)
def test_rules_are_what_real_operators_take() -> None:
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", REAL], env=env, capture_output=True, text=True, timeout=120, check=True
    )
    rows = json.loads(done.stdout)
    assert len(rows) == 17
    for name, (measured, rule) in rows.items():
        assert abs(measured - rule) < max(0.25 * rule, 4 * MIB), (name, measured / MIB, rule / MIB)


KEPT = """
import json, statistics, torch
from thrifty.cost.scratch import kept_bytes
from thrifty.cost.touched import mallinfo

told = mallinfo()
aten = torch.ops.aten
torch.set_num_threads(2)

def used_bytes():
    return told().uordblks + told().hblkhd

def multiply(rows, dtype):
    a, b = torch.rand(rows, 96, dtype=dtype), torch.rand(96, 160, dtype=dtype)
    return lambda: aten.mm(a, b)

def convolve(rows, dtype):
    x, w = torch.rand(4, rows, 12, 12, dtype=dtype), torch.rand(24, rows, 3, 3, dtype=dtype)
    return lambda: aten.convolution(x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)

def back(rows, dtype):
    x, w = torch.rand(4, rows, 12, 12, dtype=dtype), torch.rand(24, rows, 3, 3, dtype=dtype)
    g = torch.rand(4, 24, 12, 12, dtype=dtype)
    return lambda: aten.convolution_backward(
        g, x, w, [0], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False])

found = {}
with torch.no_grad():
    for name, make in {"mm": multiply, "convolution": convolve, "convolution_backward": back}.items():
        for dtype in (torch.float32, torch.bfloat16):
            make(8, dtype)()
            grew = []
            for rows in (16, 48, 80, 112, 144):
                call = make(rows, dtype)
                before = used_bytes()
                call()
                grew.append(used_bytes() - before)
            if rule := kept_bytes(name, dtype):
                found[f"{name} {dtype}"] = (statistics.median(grew), rule)
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="oneDNN's kernels were measured on x86-64 Linux"
)
def test_kernels_are_kept_of_each_set_of_shapes() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KEPT], capture_output=True, text=True, timeout=120, check=True
    )
    rows = json.loads(done.stdout)
    # products in bf16 where oneDNN has them, and convolutions both ways
    assert len(rows) in (4, 5)
    for name, (measured, rule) in rows.items():
        assert rule / 4 < measured < 4 * rule, (name, measured, rule)


def test_images_as_rows_of_pixels_need_no_copies() -> None:
    x, weight = torch.empty(8, 16, 32, 32, device="meta"), torch.empty(16, 16, 3, 3, device="meta")
    size = x.numel() * 4
    assert scratch_bytes("convolution", (x, weight), size) == (size, weight.numel() * 4)
    rows = x.contiguous(memory_format=torch.channels_last)
    assert sum(scratch_bytes("convolution", (rows, weight), size)) == weight.numel() * 4
    assert sum(scratch_bytes("convolution_backward", (rows, rows, weight), size)) == 2 * weight.numel() * 4


def test_most_operators_need_none() -> None:
    x = torch.empty(8, 16, device="meta")
    assert scratch_bytes("addmm", (x, x, x), 512) == ()
    assert workspace_bytes(torch.empty(10, 4, 8, dtype=torch.float64, device="meta")) == 0


@pytest.mark.parametrize(("samples", "layers", "kept"), [(256, 2, 576_717_056), (512, 2, 1_153_433_856)])
def test_cudnn_keeps_of_an_lstm_what_it_was_seen_to_keep(samples: int, layers: int, kept: int) -> None:
    x = torch.empty(samples, 100, 256, device="meta")
    weights = [torch.empty(2048, 256, device="meta"), torch.empty(2048, 512, device="meta")]
    nothing = torch.empty(0, device="meta")

    def func(*args: Any, **_: Any) -> tuple[torch.Tensor, ...]:
        assert args[3].numel() == 2048 * 768, "weights that lie apart are packed"
        return torch.empty(samples, 100, 512, device="meta"), nothing, nothing, nothing, nothing

    args = (x, weights, 4, None, nothing, nothing, 2, 512, 0, layers)
    assert cudnn_rnn(func, args, {})[3].numel() == kept
