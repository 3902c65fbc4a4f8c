"""`Beside`: the curves of a training that something else did, to be drawn beside a run's."""

from __future__ import annotations

from pydantic import Field

from thrifty.spec.plain import Plain

Points = tuple[tuple[float, float], ...]


class Beside(Plain):
    """What another trainer's log says.

    Attributes:
        name: that tells it apart, such as the folder it came from.
        source: what wrote the log.
        loss, learning_rate: of training, by step.
        validation: figures of validation by their names without ``eval_``, by step.
        steps: of optimizer, that were taken.
        epochs: passes over its data.
        batch: samples of a step on one device; 0 where it is not said.
        seconds: wall time of training; 0 where it is not said.
        flops: operations as the trainer counts them; 0 where it is not said.
    """

    name: str
    source: str
    loss: Points = ()
    learning_rate: Points = ()
    validation: dict[str, Points] = Field(default_factory=dict)
    steps: int
    epochs: float = 0.0
    batch: int = 0
    seconds: float = 0.0
    flops: float = 0.0
