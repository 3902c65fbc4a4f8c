"""The guard: is a model worse than the one it was made of, by the job's own metric on rows that it has not seen?

A drop is within what is allowed when its upper bound is: a model of which too few rows tell is not let through, and the
guard says how many would do. A drop that noise explains is not called one.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from thrifty.compress.answers import Answers, Tally, is_share_of_rows, tally, worse_by
from thrifty.compress.bounds import CONFIDENCE, bootstrapped, paired_shares, rows_that_prove
from thrifty.data import Store, sweep
from thrifty.errors import JobError
from thrifty.spec import METRICS, Plan, Verdict
from thrifty.spec.compression import Held

BATCH = 32
_DROP = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*(%?)\s*")
SCORE = "Tango's score interval of paired shares"
# of the largest logit: as far as kernels differ that add in another order
SAME = 1e-4
PARITY = "the same logits but for rounding: no row differs by more than {worst:.0e} of the largest"
_KEPT_BYTES = 2**28
BOOTSTRAP = "bootstrap over rows, pairs kept together, 2,000 draws"


@dataclass(frozen=True)
class MaxDrop:
    """How much worse a model may be.

    Attributes:
        text: as it was asked for.
        amount: share of the reference's figure, or the drop itself in the metric's unit.
        relative: which of them.
    """

    text: str
    amount: float
    relative: bool

    def of(self, metric: str, reference: float) -> float:
        """Return the drop that is allowed of a metric, in its unit.

        A share in percent is of the share that is right: of an error rate too, so that 0.5 % of 0.90 accuracy and of
        0.10 error rate are both 0.0045. Of other metrics it is of their value.

        >>> round(parse_drop("0.5%").of("accuracy", 0.9), 4), round(parse_drop("0.5%").of("wer", 0.1), 4)
        (0.0045, 0.0045)
        """
        if not self.relative:
            return self.amount
        known = METRICS[metric]
        return self.amount * abs(1 - reference if known.share and not known.rises else reference)


def parse_drop(text: str) -> MaxDrop:
    """Read the drop that is allowed: ``0.5%``, relative to the figure before; or ``0.004``, in the metric's unit.

    >>> parse_drop("0.5%").amount, parse_drop("0.004").relative
    (0.005, False)

    Raises:
        JobError: it is neither.
    """
    found = _DROP.fullmatch(text)
    amount = float(found[1]) / (100 if found[2] else 1) if found else math.nan
    if not 0 <= amount < math.inf or (found and found[2] and amount >= 1):
        raise JobError(
            f"--max-drop is '{text}'", mend="Write a share of the figure before, such as 0.5%, or a difference: 0.004."
        )
    return MaxDrop(text.strip(), amount, relative=bool(found and found[2]))


class Guard:
    """Judges candidates by one split of the prepared data; the reference's answers are kept, row by row.

    Attributes:
        seconds_a_row: that answering took the model that was judged last.
    """

    def __init__(self, store: Store, run: Plan, split: str, allowed: MaxDrop, reference: Answers) -> None:
        self._store, self._run, self._split, self._allowed = store, run, split, allowed
        self.metric = run.stop.metric
        self.rows = store.dataset.counts[split]
        self.seconds_a_row = 0.0
        self._logits: list[np.ndarray] = []
        self._reference = self._answered(reference, self._keep)

    @property
    def value(self) -> float:
        """The metric of the reference."""
        return self._reference.value

    def judge(self, candidate: Answers) -> Verdict:
        """Have a model answer the rows, and compare it with the reference.

        One that computes the same, such as a form in another engine at the same precision, is told by its logits: of
        these there is no chance to speak of, and a few rows do.
        """
        apart, turns = 0.0, iter(self._logits)

        def compare(logits: Tensor) -> None:
            nonlocal apart
            kept, own = next(turns, None), logits.numpy()
            if kept is None:
                apart = math.inf
            else:
                with np.errstate(invalid="ignore"):
                    # what is certain may be infinite in both
                    differs = np.where(own == kept, 0.0, np.abs(own - kept))
                apart = max(apart, float(differs.max(initial=0.0)))

        found = self._answered(candidate, compare)
        verdict = compared(self._reference, found, self.metric, self._split, self._allowed)
        largest = max((float(np.abs(each[np.isfinite(each)]).max(initial=0.0)) for each in self._logits), default=0.0)
        if not apart <= SAME * largest:
            return verdict
        bounds = {"low": min(verdict.drop, 0.0), "high": max(verdict.drop, 0.0)}
        said = PARITY.format(worst=apart / largest if largest else 0.0)
        return verdict.model_copy(update={**bounds, "held": "within", "method": said, "rows_needed": 0})

    def _keep(self, logits: Tensor) -> None:
        if sum(each.nbytes for each in self._logits) < _KEPT_BYTES:
            self._logits.append(logits.numpy().copy())

    def _answered(self, answers: Answers, heard: Callable[[Tensor], None]) -> Tally:
        def listening(x: Tensor) -> Tensor:
            logits = answers(x).float()
            heard(logits)
            return logits

        began = time.perf_counter()
        batches = sweep(self._store, self._split, BATCH)
        found = tally(listening, batches, self._run.task, self.metric, self._store.dataset, self._split)
        self.seconds_a_row = (time.perf_counter() - began) / max(1, self.rows)
        return found


def compared(reference: Tally, candidate: Tally, metric: str, split: str, allowed: MaxDrop) -> Verdict:
    """Judge what two models said of the same rows."""
    rows = len(reference.sums)
    most = allowed.of(metric, reference.value)
    drop = float(worse_by(metric, reference.value, candidate.value))
    if is_share_of_rows(metric):
        ours, theirs = reference.sums[:, 0], candidate.sums[:, 0]
        lost, gained = float(((ours > 0) & (theirs == 0)).sum()), float(((ours == 0) & (theirs > 0)).sum())
        low, high = paired_shares(lost, gained, rows)
        method = SCORE

        def bound(count: float) -> float:
            return paired_shares(lost * count / rows, gained * count / rows, count)[1]
    else:
        low, high = bootstrapped(metric, reference, candidate)
        method = BOOTSTRAP

        def bound(count: float) -> float:
            return drop + (high - drop) * math.sqrt(rows / count)

    finite = math.isfinite(candidate.value)
    held: Held = "over" if not finite or low > most else "within" if high <= most else "unproven"
    return Verdict(
        metric=metric, split=split, rows=rows, reference=reference.value, candidate=candidate.value, drop=drop,
        low=low, high=high, confidence=CONFIDENCE, allowed=most, held=held, method=method,
        rows_needed=rows_that_prove(rows, most, bound) if held == "unproven" else 0,
    )  # fmt: skip
