"""How numbers are kept while computing: autocast for bf16."""

from __future__ import annotations

import torch


def compute_precision(device: str, precision: str) -> torch.autocast:
    """Return the context in which a forward pass runs: bf16 autocast over fp32 weights, or nothing at all."""
    return torch.autocast(device_type=device, dtype=torch.bfloat16, enabled=precision == "bf16")
