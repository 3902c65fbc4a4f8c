"""Tune: spend a budget over few real runs on finding better settings.

`tune` is the whole: what may be tried (`space`), what each trial will take (`pricing`), which trials go on (`ladder`,
`forecast`), what to try next (`proposals`, over Optuna), the trials in a database that several machines may share
(`storage`), and who carries it out: this process (`search`), others beside it (`workers`), or Ray's (`ray`).
"""

from thrifty.tune.tune import Search, Tuned, Way, tune

__all__ = ["Search", "Tuned", "Way", "tune"]
