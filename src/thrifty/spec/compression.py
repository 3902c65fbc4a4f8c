"""`Compression`: what was done to a bundle to make it cheaper, what that did to its answers, and what it cost."""

from __future__ import annotations

import math
from typing import Literal

from thrifty.spec.cost import Spent
from thrifty.spec.plain import Plain

Objective = Literal["latency", "throughput", "tokens", "size", "energy"]
# within: the drop is less than is allowed, but for the share of cases that `confidence` leaves; over: it is more;
# unproven: these rows cannot tell
Held = Literal["within", "over", "unproven"]


class Verdict(Plain):
    """How much worse a model answers than the one it was made of, by the same held-out rows.

    Attributes:
        metric: of the task; ``rows`` of ``split`` were answered by both.
        reference, candidate: its value of the two models.
        drop: of the metric, in its own unit; above 0 where the candidate is worse.
        low, high: that the true drop lies above and below, each so often as ``confidence`` says.
        allowed: drop, in the metric's unit.
        held: whether that is kept to.
        method: by which the bounds were found.
        rows_needed: held-out rows that would prove a drop of this size to be within; 0 where it is proven or is over.
    """

    metric: str
    split: str
    rows: int
    reference: float
    candidate: float
    drop: float
    low: float
    high: float
    confidence: float
    allowed: float
    held: Held
    method: str
    rows_needed: int = 0

    @property
    def seen(self) -> bool:
        """Whether the candidate is told from the reference at all: noise explains no such difference."""
        return self.low > 0 or self.high < 0


class Spread(Plain):
    """A quantity as it was measured: the median of several rounds, with the least and the most of them."""

    value: float
    low: float
    high: float


class Measured(Plain):
    """What answering takes on this machine.

    Attributes:
        latency_s: wall seconds of one request of ``batch`` rows.
        rows_per_s: answered at the best of the batch sizes that were tried, ``best_batch``.
        cpu_s_a_row: processor seconds, at ``batch``.
        joules_a_row: as ``joules_method`` says, at ``batch``.
        bytes: of the files that are served.
        tokens_per_s: written, where that was asked for: a row is a prompt then, and a request has it written on.
    """

    batch: int
    latency_s: Spread
    rows_per_s: Spread
    best_batch: int
    cpu_s_a_row: Spread
    joules_a_row: Spread
    joules_method: str
    bytes: int
    tokens_per_s: Spread | None = None


class Tried(Plain):
    """One trial of the search.

    Attributes:
        moves: that made the candidate, in order; none of the reference.
        says: what each did.
        status: ``reference``; ``chosen``; ``held``, it may be chosen; ``over`` or ``unproven``, by the guard; or
            ``failed``.
        reason: why it failed.
        verdict, measured: None where it did not come so far.
        predicted_s, took_s: of the move and of judging it.
        front: no other is both as good and as cheap.
    """

    moves: tuple[str, ...]
    says: tuple[str, ...] = ()
    status: Literal["reference", "chosen", "held", "over", "unproven", "failed"]
    reason: str = ""
    verdict: Verdict | None = None
    measured: Measured | None = None
    predicted_s: float = 0.0
    took_s: float = 0.0
    front: bool = False


class Payback(Plain):
    """What the search cost against what each thousand requests save; a request has ``rows`` rows.

    Attributes:
        seconds, joules, usd: that the search took.
        saved_seconds, saved_joules, saved_usd: by a thousand requests; below 0 where they cost more.
        requests: after which the seconds are paid back; ``inf`` for never.
        requests_by_joules: likewise of energy.
    """

    rows: int
    seconds: float
    joules: float
    usd: float
    saved_seconds: float
    saved_joules: float
    saved_usd: float
    requests: float = math.inf
    requests_by_joules: float = math.inf


class Compression(Plain):
    """How a bundle was compressed.

    Attributes:
        objective: what was to become less, at ``batch`` rows a request, within ``max_drop`` as it was asked for.
        moves, says: taken, in order, and what each did.
        validation: the guard's verdict while searching.
        test: of the chosen one, on rows that the search never saw; None where there are none.
        calibration: sha256 of the training rows that moves looked at, ``calibration_rows`` of them.
        before, after: what answering took.
        spent: on the search.
        payback: of it.
        trials: all, in order; those not run are in ``left_out``, with the reason.
        ended: why the search did.
    """

    objective: Objective
    batch: int
    max_drop: str
    moves: tuple[str, ...]
    says: tuple[str, ...]
    validation: Verdict
    test: Verdict | None
    calibration: str
    calibration_rows: int
    before: Measured
    after: Measured
    spent: Spent
    payback: Payback
    trials: tuple[Tried, ...]
    left_out: dict[str, str]
    ended: str

    @property
    def held(self) -> bool:
        """Whether the drop was proven to be within what is allowed, and the test rows do not say otherwise."""
        return self.validation.held == "within" and (self.test is None or self.test.held != "over")
