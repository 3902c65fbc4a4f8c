"""What a run takes of memory beside its tensors: imports, libraries, thread pools, compiled kernels; measured."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

from thrifty.files import write_atomic
from thrifty.spec.folders import cache_folder

# Parts in the order they are measured; each counts what it adds to those before it.
PARTS = ("imports", "products", "bf16", "convolutions", "bf16 convolutions", "recurrent layers")

_SCRIPT = """
import ctypes, json, sys

def resident():
    trim(0)
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmRSS"))

# what the heap still holds of tensors that are gone is not torch's
trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)

# a run counts its memory from here on
import thrifty.api, thrifty.pipeline
bare = resident()
import torch
from torch import nn
import cv2, rich.live, safetensors.torch, sqlalchemy, tokenizers
import thrifty.models, thrifty.optim, thrifty.planner

def step(model, x, bf16):
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = model(x)
            y = y[0][:, -1] if isinstance(y, tuple) else y
            loss = nn.functional.cross_entropy(y.float().flatten(1), torch.zeros(len(x), dtype=torch.long))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

torch.set_num_threads(int(sys.argv[1]))
# what most models are of: a table, products, attention, norms, a large last product
class Block(nn.Module):
    def __init__(self, width=512, tokens=4096):
        super().__init__()
        self.table, self.norm = nn.Embedding(tokens, width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        x = self.norm(self.table(x))
        q, k, v = self.qkv(x).unflatten(2, (3, 8, -1)).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        x = x + self.down(nn.functional.gelu(self.up(x)))
        return nn.functional.linear(self.norm(x), self.table.weight)

def layer(inputs, outputs, stride):
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()

def images():
    widths = [*layer(32, 64, 1), *layer(64, 64, 1), *layer(64, 128, 2), *layer(128, 128, 1)]
    head = nn.Conv2d(128, 256, 1, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10)
    return nn.Sequential(nn.Conv2d(3, 32, 3, 2), nn.MaxPool2d(2), *widths, *head)

tokens = torch.randint(0, 4096, (8, 256))
work = [
    lambda: step(Block(), tokens, False),
    lambda: step(Block(), tokens, True),
    lambda: step(images(), torch.rand(16, 3, 64, 64), False),
    lambda: step(images(), torch.rand(16, 3, 64, 64), True),
    lambda: step(nn.LSTM(32, 32, batch_first=True), torch.rand(8, 16, 32), False),
]
# the first optimizer imports the compiler
torch.optim.AdamW([nn.Parameter(torch.zeros(1))], fused=True)
grown, before = [resident() - bare], resident()
for each in work:
    each()
    grown.append(max(0, resident() - before))
    before = max(before, resident())
print(json.dumps(grown))
"""


@cache
def runtime_bytes(threads: int) -> dict[str, int]:
    """Measure what each of `PARTS` adds to the resident memory of a process that has just begun a run.

    Takes a few seconds in a process of its own, once for a version of torch and a number of threads; kept in the cache.
    Zeros where it cannot be measured.
    """
    import importlib.metadata

    path = cache_folder() / "hardware" / f"parts-torch{importlib.metadata.version('torch')}-{threads}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if set(found) == set(PARTS) and all(isinstance(value, int) for value in found.values()):
            return {part: found[part] for part in PARTS}
    except (OSError, ValueError):
        pass
    command = [sys.executable, "-W", "ignore", "-c", _SCRIPT, str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        grown = dict(zip(PARTS, json.loads(done.stdout), strict=True))
    except (OSError, subprocess.SubprocessError, ValueError):
        return dict.fromkeys(PARTS, 0)
    write_atomic(path, json.dumps(grown), purpose="what torch itself takes")
    return grown
