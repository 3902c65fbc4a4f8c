"""The space of layouts of a job on a cluster: values from the moves, and what must divide what, each rule in words."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from thrifty.errors import JobError
from thrifty.planner.moves import values
from thrifty.planner.search import Constraint, Settings, Space
from thrifty.spec import Cluster, Layout, Pins, TransformerShape

# A device needs this much of a sequence to be kept busy by it: shorter pieces pay more in messages than they save.
LEAST_CONTEXT_TOKENS = 4096
# a micro-batch beyond this adds no speed on any device listed, only activations
MOST_MICRO = 64
MOST_VIRTUAL_STAGES = 8
# Images are small beside sequences of tokens: thousands of little ones keep a device busy.
MOST_TRACED_MICRO = 4096
# states that take less of a device are not worth moving to its host
WORTH_MOVING = 0.02
# what a traced step was computed in; fp16 moves as many bytes as bf16
TRACED_PRECISIONS = ("fp32", "bf16", "fp16")
# degrees that cut a model, where there is a closed form of its parts
CUTS = ("tensor", "pipeline", "context", "virtual_stages")
PINNED = (
    "data",
    "tensor",
    "pipeline",
    "context",
    "virtual_stages",
    "zero",
    "micro_batch",
    "checkpointing",
    "precision",
    "offload",
)


def divisors(number: int, most: int | None = None) -> tuple[int, ...]:
    """Return the divisors of a number, from small to large.

    >>> divisors(12, 6)
    (1, 2, 3, 4, 6)
    """
    return tuple(d for d in range(1, min(number, most or number) + 1) if number % d == 0)


def layout_space(cluster: Cluster, batch: int, pins: Pins, allowed: Collection[str], shape: TransformerShape) -> Space:
    """Return every layout of a Transformer's batch on a cluster.

    Args:
        cluster: where.
        batch: samples of one optimizer step; no layout changes it.
        pins: degrees the user decided.
        allowed: marked moves that were asked for.
        shape: of the model.

    Raises:
        JobError: a pinned value is not one that divides; it says which would.
    """
    devices = cluster.devices
    own: dict[str, tuple[object, ...]] = {
        "precision": values("precision", cluster.device, allowed),
        # attention in one kernel writes no scores, so that there is nothing to be selective about
        "checkpointing": tuple(v for v in values("checkpointing", cluster.device, allowed) if v != "selective"),
        "tensor": divisors(cluster.per_node),
        "pipeline": divisors(shape.layers, devices),
        "context": _contexts(shape, devices),
        "data": divisors(devices),
        "zero": values("zero", cluster.device, allowed),
        "virtual_stages": tuple(range(1, MOST_VIRTUAL_STAGES + 1)),
        "micro_batch": divisors(batch, MOST_MICRO),
        "state_bytes": values("state_bytes", cluster.device, allowed),
        "offload": values("offload", cluster.device, allowed),
    }
    return _pinned(own, _rules(cluster, batch, shape), {name: getattr(pins, name) for name in PINNED}, cluster, batch)


@dataclass(frozen=True)
class Copies:
    """What bears on the ways of training copies of a traced model.

    Attributes:
        model: its name.
        formats: of images that are worth trying; one where the model has no convolutions.
        checkpointing: ways of it that the model bears.
        unbearable: why it bears no others.
        across: its batch norms look across the samples computed at once.
        states: bytes of its optimizer's states.
    """

    model: str
    formats: tuple[str, ...]
    checkpointing: tuple[str, ...]
    unbearable: str
    across: bool
    states: int


def copies_space(cluster: Cluster, batch: int, pins: Pins, allowed: Collection[str], copies: Copies) -> Space:
    """Return every way of training copies of a traced model on a cluster, each with its part of the batch.

    Fields are those of `layout_space` and ``memory_format``; what would cut the model is 1.

    Args:
        cluster: where.
        batch: samples of one optimizer step; no way changes it.
        pins: what the user decided.
        allowed: marked moves that were asked for.
        copies: what the model bears.

    Raises:
        JobError: a pinned value cuts the model, is not one that divides, or does not go with the model.
    """
    devices = cluster.devices
    for name in CUTS:
        if getattr(pins, name) not in (None, 1):
            raise JobError(
                f"plan.{name} is {getattr(pins, name)}, but {copies.model} has no closed form by which it could be cut",
                mend="Leave it out: copies of the model are priced, and ZeRO, which shares out its states (plan.zero).",
            )
    if pins.checkpointing not in (None, *copies.checkpointing):
        raise JobError(
            f"plan.checkpointing is {pins.checkpointing}, but {copies.model} {copies.unbearable}",
            mend=f"These would do: {', '.join(copies.checkpointing)}.",
        )
    checkpointing = values("checkpointing", cluster.device, allowed)
    movable = cluster.device.kind != "cpu" and copies.states > WORTH_MOVING * cluster.device.memory_bytes
    own: dict[str, tuple[object, ...]] = {
        "precision": tuple(v for v in values("precision", cluster.device, allowed) if v in TRACED_PRECISIONS),
        "checkpointing": tuple(v for v in checkpointing if v in copies.checkpointing),
        **dict.fromkeys(CUTS, (1,)),
        "data": divisors(devices),
        "zero": values("zero", cluster.device, allowed),
        "micro_batch": divisors(batch, MOST_TRACED_MICRO),
        "memory_format": (pins.memory_format,) if pins.memory_format else copies.formats,
        "state_bytes": values("state_bytes", cluster.device, allowed),
        "offload": values("offload", cluster.device, allowed) if movable else (False,),
    }
    rules = [
        Constraint(
            ("data",), lambda d: d == devices, f"each of the {devices:,} devices has its copy of {copies.model}"
        ),
        *_dividing(batch),
    ]
    if copies.across:
        lone = "batch norm takes no statistics of one sample: data x micro-batch is at least 2"
        rules.append(Constraint(("data", "micro_batch"), lambda d, m: batch == 1 or d * m > 1, lone))
    return _pinned(own, tuple(rules), {name: getattr(pins, name) for name in PINNED}, cluster, batch)


def _pinned(
    own: dict[str, tuple[object, ...]],
    rules: tuple[Constraint, ...],
    pins: dict[str, object],
    cluster: Cluster,
    batch: int,
) -> Space:
    """A space with the user's values, each of which must be one that can be had."""
    asked = {name: value for name, value in pins.items() if value is not None}
    for name, value in asked.items():
        _check_pin(name, value, own, rules)
    if next(Space(own, rules).candidates(), None) is None:
        raise _nothing_divides(cluster, batch)
    space = Space({**own, **{name: (value,) for name, value in asked.items()}}, rules)
    if asked and next(space.candidates(), None) is None:
        raise _clash(asked, space, Space(own, rules), cluster.devices, batch)
    return space


def layout_of(settings: Settings, batch: int) -> Layout:
    """Make the layout of an assignment; accumulation makes up the batch."""
    once = settings["data"] * settings["micro_batch"]
    fields = {name: value for name, value in settings.items() if name != "memory_format"}
    return Layout(**fields, accumulation=batch // once, sequence_parallel=settings["tensor"] > 1)


def _contexts(shape: TransformerShape, devices: int) -> tuple[int, ...]:
    return tuple(c for c in divisors(shape.length, devices) if c == 1 or shape.length // c >= LEAST_CONTEXT_TOKENS)


def _dividing(batch: int) -> tuple[Constraint, ...]:
    """How a batch is cut over copies of a model."""
    return (
        Constraint(("data",), lambda d: batch % d == 0, f"data divides the batch of {batch:,}"),
        Constraint(
            ("data", "micro_batch"),
            lambda d, m: batch % (d * m) == 0,
            f"data x micro-batch divides the batch of {batch:,}",
        ),
        Constraint(("data", "zero"), lambda d, z: d > 1 or z == 0, "ZeRO shares out over two ranks or more"),
    )


def _rules(cluster: Cluster, batch: int, shape: TransformerShape) -> tuple[Constraint, ...]:
    devices = cluster.devices
    return (
        Constraint(("tensor",), lambda t: shape.heads % t == 0, f"tensor divides the {shape.heads} heads"),
        Constraint(("pipeline",), lambda p: shape.layers % p == 0, f"pipeline divides the {shape.layers} layers"),
        Constraint(("context",), lambda c: shape.length % c == 0, f"context divides the {shape.length:,} tokens"),
        Constraint(
            ("tensor", "pipeline", "context", "data"),
            lambda t, p, c, d: t * p * c * d == devices,
            f"data x tensor x pipeline x context is the {devices:,} devices",
        ),
        *_dividing(batch),
        # gradients of a pipeline live until its last micro-batch: there is nothing to share out before
        Constraint(("pipeline", "zero"), lambda p, z: p == 1 or z < 2, "ZeRO-2 and 3 do without a pipeline"),
        Constraint(
            ("pipeline", "data", "micro_batch"),
            lambda p, d, m: p == 1 or batch // (d * m) >= p,
            "a pipeline has a micro-batch for each stage",
        ),
        Constraint(
            ("pipeline", "virtual_stages"),
            lambda p, v: v == 1 or (p > 1 and shape.layers % (p * v) == 0),
            f"pipeline x virtual stages divides the {shape.layers} layers",
        ),
        # interleaving passes micro-batches in groups of as many as there are stages (Narayanan et al. 2021)
        Constraint(
            ("pipeline", "virtual_stages", "data", "micro_batch"),
            lambda p, v, d, m: v == 1 or batch // (d * m) % p == 0,
            "interleaving needs micro-batches in groups of the stages",
        ),
    )


def _check_pin(name: str, value: object, own: dict[str, tuple[object, ...]], rules: tuple[Constraint, ...]) -> None:
    """Refuse a pinned value that breaks a rule about it alone, or that the device or the moves do not have."""
    for rule in rules:
        if rule.fields == (name,) and not rule.holds(value):
            fits = ", ".join(str(each) for each in own[name] if rule.holds(each))
            raise JobError(f"plan.{name} is {value}, but {rule.says}", mend=f"These would do: {fits}.")
    if name in {"precision", "checkpointing", "zero"} and value not in own[name]:
        raise JobError(
            f"plan.{name} is {value}, which this device cannot do, or which must be allowed by name",
            mend=f"These would do: {', '.join(map(str, own[name]))}; see --allow.",
        )
    if name in {"data", "tensor"} and value not in own[name]:
        raise JobError(
            f"plan.{name} is {value}, which does not divide the devices",
            mend=f"These would do: {', '.join(map(str, own[name]))}.",
        )


def _nothing_divides(cluster: Cluster, batch: int) -> JobError:
    devices = cluster.devices
    near = sorted((d for d in divisors(batch) if d <= devices), reverse=True)[:3]
    up = -(-batch // devices) * devices
    return JobError(
        f"a batch of {batch:,} cannot be cut into equal parts for {devices:,} devices ({cluster.name})",
        mend=f"train.batch {up:,} would do, or {', '.join(map(str, near))} devices.",
    )


def _clash(asked: dict[str, object], space: Space, free: Space, devices: int, batch: int) -> JobError:
    """The pins do not go together: say which rule stands against them; of a single one, what it could be."""
    said = ", ".join(f"{name} {value}" for name, value in asked.items())
    known = {name: each[0] for name, each in space.dimensions.items() if len(each) == 1}
    broken = next(
        (r for r in space.constraints if set(r.fields) <= known.keys() and not r.holds(*(known[f] for f in r.fields))),
        None,
    )
    why = broken.says if broken else f"nothing that divides a batch of {batch:,} over {devices:,} devices has that"
    if len(asked) > 1:
        return JobError(f"plan asks for {said}: {why}", mend="Leave one of them out, and the plan chooses it.")
    (name,) = asked
    could = ", ".join(str(each) for each in dict.fromkeys(way[name] for way in free.candidates()))
    return JobError(f"plan asks for {said}: {why}", mend=f"These would do: {could}.")
