"""`Steering`: what a run is asked for while it trains: to wait, to stop, to spend less than was planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from thrifty.spec.plain import Plain
from thrifty.spec.units import Duration, Energy, Money, format_joules, format_seconds, format_usd

Ask = Literal["go", "pause", "stop"]
ASKS: tuple[Ask, ...] = get_args(Ask)


class Steering(Plain):
    """What is asked for now; what is left out stays as it was planned.

    Attributes:
        ask: ``go`` on; ``pause``, save and wait; ``stop``, keep the best weights and be done.
        time, energy, money: that the whole run may have spent when training ends; more than was planned asks for
            nothing.
    """

    ask: Ask = "go"
    time: Duration | None = None
    energy: Energy | None = None
    money: Money | None = None

    @property
    def limits(self) -> dict[str, float]:
        """The limits by the names that a plan has for them, in seconds, joules and US dollars."""
        named = {"seconds": self.time, "joules": self.energy, "usd": self.money}
        return {name: limit for name, limit in named.items() if limit is not None}

    @property
    def says(self) -> str:
        """The limits for people."""
        return limits_text(self.limits)


def limits_text(limits: Mapping[str, float]) -> str:
    """Print limits in seconds, joules and US dollars, by the names that a plan has for them.

    >>> limits_text({"seconds": 300.0, "usd": 0.5})
    '5m 00s, $0.50'
    """
    shown = {"seconds": format_seconds, "joules": format_joules, "usd": format_usd}
    return ", ".join(shown[name](limit) for name, limit in limits.items())
