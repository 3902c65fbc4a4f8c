"""Train: a plan, a model and prepared data in, the best weights out; `train` is the loop."""

from thrifty.train.checkpoint import Checkpoints, State
from thrifty.train.loop import Trained, train
from thrifty.train.probe import probe_steps
from thrifty.train.step import take_step
from thrifty.train.validate import evaluate_split

__all__ = ["Checkpoints", "State", "Trained", "evaluate_split", "probe_steps", "take_step", "train"]
