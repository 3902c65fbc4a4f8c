"""Tune: spend a budget over few real runs on finding better hyper-parameters."""

from thrifty.tune.search import Choice, Search, TrialDone, search
from thrifty.tune.tune import Tuned, tune

__all__ = ["Choice", "Search", "TrialDone", "Tuned", "search", "tune"]
