"""The section ``train`` of a job: how to learn, where the user cares."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from thrifty.spec.augment import Augment
from thrifty.spec.plain import Plain

Fraction = Annotated[float, Field(ge=0, lt=1)]


def _tuple_of_one(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _kind_alone(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _init_names(value: Any) -> Any:
    if isinstance(value, str | None):
        return value
    if not isinstance(value, dict) or not value:
        raise ValueError(f"an initialiser is a name, or a name for each pattern of parameters, got {value!r}")
    for pattern, name in value.items():
        if not (isinstance(pattern, str) and isinstance(name, str) and pattern):
            raise ValueError(f"each pattern of parameters has the name of an initialiser, got {pattern!r}: {name!r}")
    return value


Init = Annotated[str | dict[str, str], BeforeValidator(_init_names)]
_Pattern = Annotated[str, Field(min_length=1)]
_OneOrMore = _Pattern | list[_Pattern]
Patterns = Annotated[tuple[_Pattern, ...], BeforeValidator(_tuple_of_one, json_schema_input_type=_OneOrMore)]
AdapterKind = Literal["lora", "dora"]


class Adapter(Plain):
    """Small matrices trained beside a model's own weights, which stay as they are; put into them at the end.

    Attributes:
        kind: ``lora`` (Hu et al. 2021), or ``dora``, which trains the length of each row too (Liu et al. 2024).
        rank: inner width of the matrices.
        alpha: what the matrices add counts ``alpha / rank`` times.
        targets: patterns of the names of layers that get them.
        base: ``4bit`` keeps the weights that get them in four bits each while training (QLoRA), ``own`` as they are.
    """

    kind: AdapterKind
    rank: PositiveInt | None = None
    alpha: PositiveFloat | None = None
    targets: Patterns | None = None
    base: Literal["own", "4bit"] = "own"


_KindOrMore = AdapterKind | Adapter


class Train(Plain):
    """How to train, where you care; the plan decides the rest and says why.

    Attributes:
        epochs: passes over the training split.
        steps: optimizer steps, instead of epochs.
        batch: samples per optimizer step, or ``full`` for the whole training split (gradient descent).
        optimizer: ``gd``, ``sgd``, ``momentum``, ``nesterov``, ``rmsprop``, ``adagrad``, ``adam``, ``adamw``,
            ``nadam``, ``adafactor``, ``lion``, ``lamb``, ``muon``, ``soap``, ``schedule_free``, ``adamw_8bit``.
        learning_rate: the highest rate of the schedule.
        momentum: of ``momentum``, ``nesterov`` and ``muon``.
        weight_decay: on matrices and convolutions; never on biases and norms.
        schedule: ``fixed``, ``exponential``, ``step``, ``plateau``, ``cosine``, ``linear``, ``polynomial``,
            ``one_cycle``, ``wsd`` (warm-up, stable, decay), ``inverse_sqrt``.
        warmup: share of the steps over which the rate rises from zero; in which ``one_cycle`` rises.
        decay: the factor of ``exponential`` (each epoch), ``step`` (at half and three quarters), ``plateau``.
        power: exponent of ``polynomial``.
        cooldown: share of the steps, the last ones, over which ``wsd`` falls.
        clip: largest norm of the gradient; 0 for none.
        init: initial weights: ``default`` (the family's own), ``depth_scaled``, ``zero_residual``, ``he_normal``,
            ``he_uniform``, both with ``_fan_out`` too, ``xavier_normal``, ``xavier_uniform``, ``lecun_normal``,
            ``lecun_uniform``, ``orthogonal``, ``normal``, ``truncated_normal``; ``mup``, with which rates go by width
            too; ``own`` keeps what the model's own code draws or loads, and is what a model that is not ours has by
            default. Or a name for each pattern of parameters, such as ``{fc.weight: zeros}``, of which the first that
            matches counts; ``*`` is the rest.
        augment: how training images are changed by chance, such as ``{flip: true, crop: 4}``; not at all when left out.
        progressive: share of their side that images have when training begins, such as 0.5; they grow from half of the
            steps to four fifths of them (Howard 2018). It takes less time and learns something else; for models that
            take images of any size. Left out, only where that is shown to learn as well.
        label_smoothing: share of every answer that is given to all classes alike (Szegedy et al. 2016); the loss of
            training is then of such answers, and its least value is not 0.
        dropout: share of elements that are dropped, of models that take it (``gpt…``, ``bert-…``); none when left out.
        freeze: patterns of the names of parameters that stay as they are, such as ``blocks.0.*``.
        adapter: what is trained in place of the model's own weights; its kind alone will do, such as ``lora``.
        patience: evaluations without improvement after which training stops; 0 for never.
        evaluations: how many times to validate in the whole run; left out, by what a validation costs.
        seed: of the split, the weights and the order of the data.
    """

    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    batch: PositiveInt | Literal["full"] | None = None
    optimizer: str | None = None
    learning_rate: PositiveFloat | None = None
    momentum: Fraction | None = None
    weight_decay: NonNegativeFloat | None = None
    schedule: str | None = None
    warmup: Fraction | None = None
    decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    power: PositiveFloat | None = None
    cooldown: Fraction | None = None
    clip: NonNegativeFloat | None = None
    init: Init | None = None
    augment: Augment = Augment()
    progressive: Annotated[float, Field(ge=0.25, lt=1)] | None = None
    label_smoothing: Fraction = 0.0
    dropout: Fraction | None = None
    freeze: Patterns = ()
    adapter: Annotated[Adapter, BeforeValidator(_kind_alone, json_schema_input_type=_KindOrMore)] | None = None
    patience: Annotated[int, Field(ge=0)] | None = None
    evaluations: PositiveInt | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _one_length(self) -> Train:
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"give epochs or steps, not both (epochs {self.epochs}, steps {self.steps})")
        return self
