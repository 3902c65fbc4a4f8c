"""Ledger: every run, predicted beside measured, and the meter that measures; `Ledger` keeps, `Entry` is one line."""

from thrifty.ledger.entry import TRAIN, Comparison, Entry, StageEntry, add_spent
from thrifty.ledger.store import Ledger

__all__ = ["TRAIN", "Comparison", "Entry", "Ledger", "StageEntry", "add_spent"]
