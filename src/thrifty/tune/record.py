"""`Record`: a trial as the study has it, with what it was priced and what it took."""

from __future__ import annotations

from thrifty.spec.plain import Plain
from thrifty.spec.tuning import Settings, Status


class Price(Plain):
    """What something takes, or is predicted to take.

    >>> Price(seconds=2, joules=6).part(0.5)
    Price(seconds=1.0, joules=3.0, usd=0.0)
    """

    seconds: float = 0.0
    joules: float = 0.0
    usd: float = 0.0

    def part(self, share: float) -> Price:
        """A share of it."""
        return Price(seconds=self.seconds * share, joules=self.joules * share, usd=self.usd * share)

    def plus(self, other: Price) -> Price:
        """Both together."""
        return Price(seconds=self.seconds + other.seconds, joules=self.joules + other.joules, usd=self.usd + other.usd)


class Said(Plain):
    """What is kept of a trial beside what Optuna keeps.

    Attributes:
        key: content key of what it learns: two trials of one key are one.
        bracket: level of the ladder that it goes to at once.
        total, per_epoch: steps of its whole training, and of an epoch of it.
        step: that its last checkpoint, or its end, is of.
        foreseen_s: seconds of the whole of it by its plan alone.
        priced: the whole of it, before it began: its plan set right by the trials before.
        under_way: what is at work now was priced so.
        spent: in all its parts.
        pid, process: who has it at work.
        status: of the three ways to fail, which.
        says: why it ended.
    """

    key: str
    bracket: int = 0
    total: int = 0
    per_epoch: int = 0
    step: int = 0
    foreseen_s: float = 0.0
    priced: Price = Price()
    under_way: Price = Price()
    spent: Price = Price()
    pid: int = 0
    process: str = ""
    status: Status = "running"
    says: str = ""


class Record(Plain):
    """A trial as the database has it.

    Attributes:
        number, id: in the study, and in the database.
        settings: that it tries.
        status: as in a `thrifty.spec.tuning.Trial`.
        curve: validation figures by step.
        said: all else.
    """

    number: int
    id: int
    settings: Settings
    status: Status
    curve: dict[int, float]
    said: Said
