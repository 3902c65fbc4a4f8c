"""The search: trials of moves, the likeliest to pay first; each priced before it runs, judged and measured after.

It knows nothing of what a move means. What is worse than allowed is not gone on with, nor, once something cheaper is
proven to be within, what too few rows tell of; a milder form of it is asked for, where that could pay back. It ends
when nothing is left, when the budget is spent, or when no trial could pay back what it takes.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from thrifty.compress.guard import Guard
from thrifty.compress.measure import ROUND_S, ROUNDS, measure, size_of
from thrifty.compress.moves import Candidate, Context, Move
from thrifty.compress.pen import Pen, tokens_of
from thrifty.compress.value import NOISE, front, share
from thrifty.errors import SignalledError, ThriftyError
from thrifty.spec import Measured, Tried, Verdict
from thrifty.spec.events import Progress

# moves on the model one after the other
MOST_MOVES = 3
# milder forms that are asked for, one after the other
MOST_MILDER = 3


@dataclass(frozen=True)
class Asked:
    """What the search is for.

    Attributes:
        requests: that will be answered: what a trial costs has to come back within as many.
        seconds_left: of the budget.
        inputs: requests to measure with, by their number of rows.
    """

    requests: float
    seconds_left: Callable[[], float]
    inputs: Mapping[int, Sequence[Tensor]]


def measured(
    candidates: Mapping[str, Candidate], inputs: Mapping[int, Sequence[Tensor]], context: Context
) -> dict[str, Measured]:
    """Measure candidates beside each other: how they answer; or, where tokens are what counts, how they write."""
    writes, length = context.objective == "tokens", context.data.shape[0] if context.objective == "tokens" else 0
    return measure(
        {name: Pen(each, length, context.batch) if writes else each.answers for name, each in candidates.items()},
        inputs,
        {name: size_of(each) for name, each in candidates.items()},
        context.device,
        batch=context.batch,
        tokens=tokens_of(length) if writes else 0,
    )


@dataclass(frozen=True)
class Judged:
    """A candidate with what was found of it; ``share`` of what the reference takes."""

    candidate: Candidate
    verdict: Verdict
    measured: Measured
    share: float


@dataclass(frozen=True)
class Found:
    """How a search ended: what it chose, everything it tried, and why the rest was not."""

    chosen: Judged
    tried: tuple[Tried, ...]
    left_out: dict[str, str]
    ended: str


def search(reference: Candidate, moves: Mapping[str, Move], guard: Guard, context: Context, asked: Asked) -> Found:
    """Try moves on a model and on what they make of it, and choose the cheapest that the guard lets through.

    Where it lets none through that is cheaper, one that too few rows tell of is chosen; else the reference.

    Args:
        reference: the model as trained, which the guard compares with.
        moves: by name.
        guard: of the model.
        context: what moves look at; each gets a scratch folder of its own.
        asked: what it is for.
    """
    own = _Search(context, moves, guard, asked)
    own.begin(reference)
    ended = own.go()
    chosen = own.choose()
    tried = [
        # milder forms have the moves of what they were made of
        each.model_copy(update={"status": "chosen"})
        if each.moves == chosen.candidate.taken and each.moves and each.measured == chosen.measured
        else each
        for each in own.tried
    ]
    return Found(chosen, front(tried, context.objective), own.left_out, ended)


@dataclass(frozen=True)
class _Trial:
    """One that could be run: the seconds it takes, ``pace`` in them, and those it would save at the very most."""

    judged: Judged
    move: Move
    seconds: float
    saves_s: float
    pace: float


@dataclass
class _Search:
    context: Context
    moves: Mapping[str, Move]
    guard: Guard
    asked: Asked
    tried: list[Tried] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    done: set[tuple[str, ...]] = field(default_factory=set)
    # by how much a form divided the objective of the model as trained
    gains: dict[str, float] = field(default_factory=dict)
    # what trials took over what was predicted of them
    misses: list[float] = field(default_factory=list)
    # numbers of scratch folders; a move that then makes nothing has had one, too
    folders: Iterator[int] = field(default_factory=itertools.count)

    reference: Judged = field(init=False)

    def begin(self, reference: Candidate) -> None:
        began = time.perf_counter()
        verdict = self.guard.judge(reference.answers)
        measured = self._measure({"reference": reference})["reference"]
        self.reference = Judged(reference, verdict, measured, 1.0)
        self.judged.append(self.reference)
        took_s = time.perf_counter() - began
        self.tried.append(Tried(moves=(), status="reference", verdict=verdict, measured=measured, took_s=took_s))

    def go(self) -> str:
        """Run trials until none is left that may; return why it ended."""
        while True:
            trials = self._trials()
            if not trials:
                return "every move that applies was tried"
            within = [each for each in trials if each.seconds <= self.asked.seconds_left()]
            if not within:
                self._leave_out(trials, "takes {seconds:,.0f} s, more than is left of the budget")
                return "the budget is spent"
            paying = [each for each in within if each.saves_s > each.seconds]
            if not paying:
                self._leave_out(within, "takes {seconds:,.0f} s and could save {saves_s:,.0f} s at the very most")
                return f"no trial that is left could pay back within {self.asked.requests:,.0f} requests"
            self._try(max(paying, key=lambda each: each.saves_s / each.seconds))

    def _may_be_chosen(self, judged: Judged) -> bool:
        """Whether the guard's verdict leaves it a chance, or what is made of it."""
        held = judged.verdict.held
        return held == "within" or (
            held == "unproven" and not any(each.verdict.held == "within" for each in self._cheaper())
        )

    def _cheaper(self) -> list[Judged]:
        return [each for each in self.judged if each.share < 1 - NOISE and each.verdict.drop <= each.verdict.allowed]

    def choose(self) -> Judged:
        """The cheapest that is proven to be within; else that is not proven to be over; else the model as trained."""
        cheaper = self._cheaper()
        within = [each for each in cheaper if each.verdict.held == "within"]
        unproven = [each for each in cheaper if each.verdict.held == "unproven"]
        return min(within or unproven, key=lambda each: each.share, default=self.reference)

    def _trials(self) -> list[_Trial]:
        found = []
        models = [each for each in self.judged if each.candidate.form is None and self._may_be_chosen(each)]
        for judged in models:
            for move in self.moves.values():
                taken = (*judged.candidate.taken, move.name)
                if taken in self.done or move.name in judged.candidate.taken:
                    continue
                if not move.last and len(judged.candidate.taken) >= MOST_MOVES:
                    continue
                if reason := move.applies(self.context, judged.candidate):
                    if not judged.candidate.taken:
                        self.left_out[move.name] = reason
                    continue
                found.append(self._priced(judged, move))
        return found

    def _priced(self, judged: Judged, move: Move) -> _Trial:
        """What a trial takes, and what it would save in all if it came as well as it ever could."""
        seconds = move.price(self.context, judged.candidate) + self._judging_s()
        # this machine may be busier, or the model odder, than prices know
        pace = min(max(statistics.median(self.misses), 0.5), 5.0) if self.misses else 1.0
        seconds *= pace
        form = max(self.gains.values(), default=1.0)
        hope = move.hope(self.context, judged.candidate)
        if move.last:
            hope, form = self._hoped(move, hope, judged.candidate), 1.0
        return _Trial(judged, move, seconds, self._saves_s(judged.share / form / hope), pace)

    def _saves_s(self, share: float) -> float:
        """What a candidate that takes such a share would save in all, beside the best that was found."""
        best = min((each.share for each in self.judged if each.verdict.held == "within"), default=1.0)
        gained = max(0.0, best - share)
        if self.context.objective == "size":
            # bytes pay nothing back: the budget alone ends a search for them
            return math.inf if gained > 0 else 0.0
        return gained * self.reference.measured.latency_s.value * self.asked.requests

    def _hoped(self, move: Move, hope: float, candidate: Candidate) -> float:
        """By how much a form can divide the objective, knowing what those that were tried have done."""
        if move.name in self.gains:
            # what it gave the model as trained it will about give a smaller one
            return self.gains[move.name] * (1 + 5 * NOISE)
        # where others did better than was thought possible, so may this one, in the same proportion
        others = (gain * hope / self.moves[name].hope(self.context, candidate) for name, gain in self.gains.items())
        return max(hope, *others, 1.0)

    def _judging_s(self) -> float:
        a_call_s = max(ROUND_S, self.reference.measured.latency_s.value)
        return self.guard.rows * self.guard.seconds_a_row + 2 * ROUNDS * a_call_s * len(self._inputs())

    def _try(self, trial: _Trial) -> None:
        move, base = trial.move, trial.judged.candidate
        taken = (*base.taken, move.name)
        self.done.add(taken)
        self.context.emit(Progress("compress", len(self.tried), len(self.tried) + 1, " + ".join(taken)))
        began = time.perf_counter()
        try:
            judged = self._judge(move.apply(self._own_context(), base))
            self._note(judged, trial, began)
            self.misses.append(self.tried[-1].took_s / trial.seconds * trial.pace)
            for _ in range(MOST_MILDER):
                if move.milder is None or self._may_be_chosen(judged) or self.asked.seconds_left() < trial.seconds:
                    break
                # what changes less is no cheaper than what it is made of
                if self._saves_s(judged.share) <= trial.seconds:
                    break
                began = time.perf_counter()
                milder = move.milder(self._own_context(), base, judged.candidate)
                if milder is None:
                    break
                judged = self._judge(milder)
                self._note(judged, trial, began)
            if move.last and not base.taken:
                self.gains[move.name] = 1 / judged.share
        except SignalledError:
            raise
        except ThriftyError as error:
            took_s = time.perf_counter() - began
            self.tried.append(
                Tried(moves=taken, status="failed", reason=str(error), predicted_s=trial.seconds, took_s=took_s)
            )

    def _own_context(self) -> Context:
        scratch = self.context.scratch / f"{next(self.folders):03}"
        scratch.mkdir(parents=True)
        return replace(self.context, seconds=self.asked.seconds_left(), scratch=scratch)

    def _judge(self, candidate: Candidate) -> Judged:
        verdict = self.guard.judge(candidate.answers)
        found = self._measure({"reference": self.reference.candidate, "candidate": candidate})
        against = share(self.context.objective, found["candidate"], found["reference"])
        return Judged(candidate, verdict, found["candidate"], against)

    def _note(self, judged: Judged, trial: _Trial, began: float) -> None:
        self.judged.append(judged)
        candidate, verdict = judged.candidate, judged.verdict
        status = "held" if verdict.held == "within" else verdict.held
        self.tried.append(
            Tried(
                moves=candidate.taken,
                says=candidate.says,
                status=status,
                verdict=verdict,
                measured=judged.measured,
                predicted_s=trial.seconds,
                took_s=time.perf_counter() - began,
            )
        )

    def _inputs(self) -> Mapping[int, Sequence[Tensor]]:
        if self.context.objective == "throughput":
            return self.asked.inputs
        return {self.context.batch: self.asked.inputs[self.context.batch]}

    def _measure(self, candidates: Mapping[str, Candidate]) -> dict[str, Measured]:
        return measured(candidates, self._inputs(), self.context)

    def _leave_out(self, trials: Sequence[_Trial], why: str) -> None:
        for each in trials:
            name = " + ".join((*each.judged.candidate.taken, each.move.name))
            said = why if each.saves_s else "could not beat what was found"
            self.left_out[name] = said.format(seconds=each.seconds, saves_s=each.saves_s)
