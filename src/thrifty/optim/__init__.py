"""Optimizers and learning-rate schedules by name; nothing here loads torch until an optimizer is built.

An optimizer is a `torch.optim.Optimizer`; a schedule is a function of the step, held by a `Schedule`, whose rate the
loop writes into the optimizer before each step. Where the weights to be kept are not those that train, the optimizer
has ``eval`` and ``train``, and whoever measures or keeps them does so within `evaluating`.
"""

from thrifty.optim.evaluating import evaluating
from thrifty.optim.groups import tell_rules
from thrifty.optim.schedules import SCHEDULES, Schedule
from thrifty.optim.table import OPTIMIZERS, build, by_name, parameters_of

__all__ = ["OPTIMIZERS", "SCHEDULES", "Schedule", "build", "by_name", "evaluating", "parameters_of", "tell_rules"]
