"""`Wishes`: how a text wants its tokens chosen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wishes:
    """How a text wants its tokens chosen.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token each time.
        top_k: draw from that many likeliest tokens; from all when None.
        top_p: draw from the fewest likeliest tokens that have this share of the probability (Holtzman et al. 2020).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
