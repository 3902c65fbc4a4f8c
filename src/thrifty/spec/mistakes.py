"""`Mistakes`: where a model errs most on the held-out test split, and how far its confidence can be trusted."""

from __future__ import annotations

from pydantic import Field

from thrifty.spec.plain import Plain


class Mistake(Plain):
    """One sample that was answered wrongly, with as much of it as a page needs to show it.

    Attributes:
        sample: its place in the test split.
        loss: nats; of numbers the squared error by the variance of the training split; of transcripts the share of
            characters in error.
        wanted, said: what is true, and what the model answered; empty of text that is continued.
        sure: probability that the model gave its answer; 0 where an answer has none.
        name: the file or row it came from, where that is known.
        text, row: what a text, or the cells of a table's row, say; empty for other kinds.
        png, wav: the image or the sound, base64.
    """

    sample: int
    loss: float
    wanted: str
    said: str
    sure: float = 0.0
    name: str = ""
    text: str = ""
    row: dict[str, str] = Field(default_factory=dict)
    png: str = ""
    wav: str = ""


class Calibration(Plain):
    """How often answers are right, by how sure the model is of them (Guo et al. 2017, section 2).

    Attributes:
        counts: answers in each bin of confidence, of bins of like width from 0 to 1.
        sure: mean confidence in each bin; 0 of an empty one.
        right: share of right answers in each.
        error: expected calibration error: the mean distance of the two, weighed by the counts.
    """

    counts: tuple[int, ...]
    sure: tuple[float, ...]
    right: tuple[float, ...]
    error: float


class Mistakes(Plain):
    """What the answers to the test split show one by one.

    Attributes:
        samples: that were answered.
        wrong: of them, answered wrongly; all of those whose answers are numbers, and of windows of text.
        worst: the mistakes of the greatest loss, the greatest first.
        calibration: of tasks whose answer is one label; None of others.
    """

    samples: int
    wrong: int
    worst: tuple[Mistake, ...]
    calibration: Calibration | None = None
