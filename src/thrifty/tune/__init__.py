"""Tune: spend a budget over few real runs on finding better hyper-parameters."""

from thrifty.tune.search import Choice, Search, search
from thrifty.tune.tune import Tuned, tune

__all__ = ["Choice", "Search", "Tuned", "search", "tune"]
