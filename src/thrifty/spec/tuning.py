"""`Trial`: one trial of a search for hyper-parameters, as the search, the ledger and the tables know it."""

from __future__ import annotations

from typing import Literal

from thrifty.spec.plain import Plain

Settings = dict[str, float | int | str]


class Trial(Plain):
    """One trial: its settings, how it ended, the validation figure it reached, and the seconds it took."""

    number: int
    settings: Settings
    status: Literal["done", "pruned", "failed"]
    value: float
    seconds: float
