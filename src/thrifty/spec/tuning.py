"""The section ``tune`` of a job, what a setting may be (`Choice`), and a trial of a search as it is told (`Trial`)."""

from __future__ import annotations

import difflib
import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from thrifty.spec.augment import Augment
from thrifty.spec.plain import Plain
from thrifty.spec.train import Train

Setting = bool | int | float | str
Settings = dict[str, Setting]
Sampler = Literal["tpe", "gp", "random", "grid"]
Pruner = Literal["asha", "hyperband", "median", "none"]
Goal = Literal["best", "cheapest"]
Status = Literal["running", "paused", "done", "pruned", "failed", "impossible", "repeated"]

# a range of at least so many times its lower end is searched by factors
BY_FACTORS = 10.0
_OF_TRAIN = (
    "epochs", "batch", "optimizer", "learning_rate", "momentum", "weight_decay", "schedule", "warmup", "decay",
    "power", "cooldown", "clip", "init", "progressive", "label_smoothing", "dropout",
)  # fmt: skip
_OF_AUGMENT = tuple(f"augment.{name}" for name in Augment.model_fields if name != "randaugment")
# how strongly samples are changed, by a word; what it means goes by the kind of data
STRENGTHS = ("job", "none", "mild", "strong")
SETTINGS = ("model", *_OF_TRAIN, "augment", *_OF_AUGMENT)
# whole numbers, in ranges too
WHOLE = (
    "epochs", "batch", "augment.crop", "augment.cutout", "augment.blank_bands", "augment.blank_frames",
)  # fmt: skip


def _as_a_number(value: Any) -> Any:
    """A number that YAML took for text, as it does 1e-4."""
    if not isinstance(value, str):
        return value
    try:
        return float(value) if math.isfinite(float(value)) else value
    except ValueError:
        return value


class Choice(Plain):
    """What a setting may be: one of some values, or anything from ``low`` to ``high``.

    In a job a list is the values, a single value is the only one, and ``{low: 1e-4, high: 1e-1}`` a range.

    Attributes:
        values: that it may have.
        low, high: of a range; whole numbers for settings that are.
        log: whether the range is searched by factors; left out, one of at least ten times its lower end is.
        first: what is tried first; left out, the first value, or the middle of the range.
    """

    values: tuple[Annotated[Setting, BeforeValidator(_as_a_number)], ...] = ()
    low: float | None = None
    high: float | None = None
    log: bool | None = None
    first: Annotated[Setting | None, BeforeValidator(_as_a_number)] = None

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Choice:
        if bool(self.values) == (self.low is not None and self.high is not None):
            raise ValueError("a setting is a list of values, or a range with low and high")
        if self.values:
            if len(set(map(repr, self.values))) < len(self.values):
                raise ValueError(f"a value is named twice in {list(self.values)}")
            if self.first is not None and self.first not in self.values:
                raise ValueError(f"first is {self.first!r}, which is none of {list(self.values)}")
            return self
        low, high = self.bounds
        if not low < high:
            raise ValueError(f"a range goes from low to high, got {low:g} and {high:g}; a single value is written bare")
        if self.log and low <= 0:
            raise ValueError(f"a range by factors (log) begins above 0, got low {low:g}")
        if self.first is not None and (isinstance(self.first, str) or not low <= self.first <= high):
            raise ValueError(f"first is {self.first!r}, which is not between {low:g} and {high:g}")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Both ends of a range."""
        assert self.low is not None and self.high is not None
        return self.low, self.high

    @property
    def by_factors(self) -> bool:
        """Whether a range is searched by factors.

        >>> Choice(low=1e-4, high=1e-1).by_factors, Choice(low=0, high=0.3).by_factors
        (True, False)
        """
        low, high = self.bounds
        return self.log if self.log is not None else low > 0 and high / low >= BY_FACTORS


def _of_a_list(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return {"values": tuple(value)}
    return {"values": (value,)} if isinstance(value, bool | int | float | str) else value


_ValueOrMore = Setting | list[Setting] | Choice
Space = dict[str, Annotated[Choice, BeforeValidator(_of_a_list, json_schema_input_type=_ValueOrMore)]]


def _known_settings(space: Any) -> Any:
    if not isinstance(space, dict):
        return space
    for name in space:
        if name not in SETTINGS:
            close = difflib.get_close_matches(str(name), SETTINGS, n=1, cutoff=0.5)
            guess = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(SETTINGS)}"
            raise ValueError(f"there is no setting '{name}' to tune ({guess})")
    return space


def _named(schema: dict[str, Any]) -> None:
    """Say in the schema of a space which settings there are."""
    schema["propertyNames"] = {"enum": list(SETTINGS)}
    schema["minProperties"] = 1


class Tune(Plain):
    """How to search for settings, where you care: ``thrifty tune``.

    Attributes:
        space: what each setting may be, by name: those of ``train``, ``model``, ``augment`` (a strength: ``none``,
            ``mild``, ``strong``, or ``job`` for what the job asks), ``augment.crop`` and the like. Left out, it goes by
            the model and the data.
        sampler: what proposes settings: ``tpe``, ``gp``, ``random``, ``grid``.
        pruner: which trials go on: ``asha`` (of those that came as far, the best third), ``hyperband`` (likewise, in
            brackets that begin further on), ``median`` (those better than half), ``none`` (all).
        goal: ``best``, the best figure within the budget; ``cheapest``, the least cost that reaches the job's target.
    """

    space: Annotated[Space, BeforeValidator(_known_settings), Field(json_schema_extra=_named)] | None = None
    sampler: Sampler | None = None
    pruner: Pruner | None = None
    goal: Goal | None = None

    @model_validator(mode="after")
    def _can_be_meant(self) -> Tune:
        if self.space is not None and not self.space:
            raise ValueError("a space has settings in it; leave it out for one that goes by model and data")
        for name, choice in (self.space or {}).items():
            for value in choice.values or tuple(_end(name, end) for end in choice.bounds):
                if problem := _problem(name, value):
                    raise ValueError(f"{name} cannot be {value!r}: {problem}")
        return self


def _end(name: str, bound: float) -> Setting:
    """An end of a range as the setting takes it."""
    return int(bound) if name in WHOLE and float(bound).is_integer() else bound


def _problem(name: str, value: Setting) -> str:
    """Why a setting cannot have a value, whatever the rest is; empty where it can."""
    if name == "model":
        return "" if isinstance(value, str) else "a model is a name"
    if name == "augment":
        return "" if value in STRENGTHS else f"a strength is one of {', '.join(STRENGTHS)}"
    try:
        if name.startswith("augment."):
            Augment.model_validate({name.partition(".")[2]: value})
        else:
            Train.model_validate({name: value})
    except ValidationError as error:
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    return ""


class Trial(Plain):
    """One trial of a search.

    Attributes:
        number: its place in the study, from 0.
        settings: that it tries.
        status: ``running``; ``paused``, it may go on where it stopped; ``done``; ``pruned``, it was not going to win;
            ``failed``, it diverged; ``impossible``, its settings do not go together; ``repeated``, another has them.
        value: best validation figure so far; for the goal ``cheapest`` too. ``nan`` before the first.
        share: of its whole training that was done.
        epochs: that it trained.
        seconds: that it took.
        priced_seconds, priced_joules, priced_usd: what the whole of it was predicted to take before it began.
        says: why it ended, or could not begin.
    """

    number: int
    settings: Settings
    status: Status
    value: float
    share: float = 0.0
    epochs: float = 0.0
    seconds: float = 0.0
    priced_seconds: float = 0.0
    priced_joules: float = 0.0
    priced_usd: float = 0.0
    says: str = ""
