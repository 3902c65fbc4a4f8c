"""The random generators a model may draw from: torch's, numpy's global one and Python's; seeded, kept, brought back."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed_generators(seed: int) -> None:
    """Seed all of them."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def generators_state() -> dict[str, Any]:
    """Their states, in plain values and tensors.

    >>> kept = generators_state()
    >>> drawn = random.random(), np.random.rand(), torch.rand(()).item()
    >>> load_generators(kept)
    >>> drawn == (random.random(), np.random.rand(), torch.rand(()).item())
    True
    """
    name, words, place, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [str(name), np.asarray(words).tolist(), int(place), int(has_gauss), float(gauss)],
        "python": random.getstate(),
    }


def load_generators(state: dict[str, Any]) -> None:
    """Go on from a `generators_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        # of the device that is computed on, which on another rank is another
        torch.cuda.set_rng_state(state["cuda"][0])
    name, words, place, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.asarray(words, np.uint32), place, has_gauss, gauss))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
