"""Ledger: every run, predicted beside measured, and the meter that measures; `Ledger` keeps, `Entry` is one line."""

from thrifty.ledger.energy import Meter, Stage
from thrifty.ledger.entry import TRAIN, Comparison, Entry, StageEntry, add_spent
from thrifty.ledger.highwater import resident_bytes
from thrifty.ledger.overview import Line, Overview
from thrifty.ledger.store import Ledger

__all__ = [
    "TRAIN",
    "Comparison",
    "Entry",
    "Ledger",
    "Line",
    "Meter",
    "Overview",
    "Stage",
    "StageEntry",
    "add_spent",
    "resident_bytes",
]
