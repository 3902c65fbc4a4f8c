"""The space of layouts of a job on a cluster: values from the moves, and what must divide what, each rule in words."""

from __future__ import annotations

from collections.abc import Collection

from thrifty.errors import JobError
from thrifty.planner.moves import values
from thrifty.planner.search import Constraint, Settings, Space
from thrifty.spec import Cluster, Layout, Pins, TransformerShape

# A device needs this much of a sequence to be kept busy by it: shorter pieces pay more in messages than they save.
LEAST_CONTEXT_TOKENS = 4096
# a micro-batch beyond this adds no speed on any device listed, only activations
MOST_MICRO = 64
MOST_VIRTUAL_STAGES = 8
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
)


def divisors(number: int, most: int | None = None) -> tuple[int, ...]:
    """Return the divisors of a number, from small to large.

    >>> divisors(12, 6)
    (1, 2, 3, 4, 6)
    """
    return tuple(d for d in range(1, min(number, most or number) + 1) if number % d == 0)


def layout_space(
    cluster: Cluster, batch: int, pins: Pins, allowed: Collection[str], shape: TransformerShape | None
) -> Space:
    """Return every layout of a batch on a cluster; without a shape, those with copies of the model alone.

    Args:
        cluster: where.
        batch: samples of one optimizer step; no layout changes it.
        pins: degrees the user decided.
        allowed: marked moves that were asked for.
        shape: of a Transformer.

    Raises:
        JobError: a pinned value is not one that divides; it says which would.
    """
    devices = cluster.devices
    own: dict[str, tuple[object, ...]] = {
        "precision": values("precision", cluster.device, allowed),
        # attention in one kernel writes no scores, so that there is nothing to be selective about
        "checkpointing": tuple(v for v in values("checkpointing", cluster.device, allowed) if v != "selective"),
        "tensor": divisors(cluster.per_node) if shape else (1,),
        "pipeline": divisors(shape.layers, devices) if shape else (1,),
        "context": _contexts(shape, devices),
        "data": divisors(devices),
        "zero": values("zero", cluster.device, allowed),
        "virtual_stages": tuple(range(1, MOST_VIRTUAL_STAGES + 1)) if shape else (1,),
        "micro_batch": divisors(batch, MOST_MICRO),
        "state_bytes": values("state_bytes", cluster.device, allowed),
        "offload": values("offload", cluster.device, allowed),
    }
    rules = _rules(cluster, batch, shape)
    asked = {name: value for name in PINNED if (value := getattr(pins, name)) is not None}
    for name, value in asked.items():
        _check_pin(name, value, own, rules)
    if next(Space(own, rules).candidates(), None) is None:
        raise _nothing_divides(cluster, batch)
    space = Space({**own, **{name: (value,) for name, value in asked.items()}}, rules)
    if asked and next(space.candidates(), None) is None:
        raise _clash(asked, space, devices, batch)
    return space


def layout_of(settings: Settings, batch: int) -> Layout:
    """Make the layout of an assignment; accumulation makes up the batch."""
    once = settings["data"] * settings["micro_batch"]
    return Layout(**settings, accumulation=batch // once, sequence_parallel=settings["tensor"] > 1)


def _contexts(shape: TransformerShape | None, devices: int) -> tuple[int, ...]:
    if shape is None:
        return (1,)
    return tuple(c for c in divisors(shape.length, devices) if c == 1 or shape.length // c >= LEAST_CONTEXT_TOKENS)


def _rules(cluster: Cluster, batch: int, shape: TransformerShape | None) -> tuple[Constraint, ...]:
    devices = cluster.devices
    rules = [
        Constraint(
            ("tensor", "pipeline", "context", "data"),
            lambda t, p, c, d: t * p * c * d == devices,
            f"data x tensor x pipeline x context is the {devices:,} devices",
        ),
        Constraint(("data",), lambda d: batch % d == 0, f"data divides the batch of {batch:,}"),
        Constraint(
            ("data", "micro_batch"),
            lambda d, m: batch % (d * m) == 0,
            f"data x micro-batch divides the batch of {batch:,}",
        ),
        Constraint(("data", "zero"), lambda d, z: d > 1 or z == 0, "ZeRO shares out over two ranks or more"),
        # gradients of a pipeline live until its last micro-batch: there is nothing to share out before
        Constraint(("pipeline", "zero"), lambda p, z: p == 1 or z < 2, "ZeRO-2 and 3 do without a pipeline"),
        Constraint(
            ("pipeline", "data", "micro_batch"),
            lambda p, d, m: p == 1 or batch // (d * m) >= p,
            "a pipeline has a micro-batch for each stage",
        ),
    ]
    if shape is None:
        return tuple(rules)
    return (
        Constraint(("tensor",), lambda t: shape.heads % t == 0, f"tensor divides the {shape.heads} heads"),
        Constraint(("pipeline",), lambda p: shape.layers % p == 0, f"pipeline divides the {shape.layers} layers"),
        Constraint(("context",), lambda c: shape.length % c == 0, f"context divides the {shape.length:,} tokens"),
        *rules,
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


def _clash(asked: dict[str, object], space: Space, devices: int, batch: int) -> JobError:
    """The pins do not go together: say which rule stands against them, and what each could be were it free."""
    said = ", ".join(f"{name} {value}" for name, value in asked.items())
    known = {name: each[0] for name, each in space.dimensions.items() if len(each) == 1}
    broken = next(
        (r for r in space.constraints if set(r.fields) <= known.keys() and not r.holds(*(known[f] for f in r.fields))),
        None,
    )
    why = broken.says if broken else f"no layout of {devices:,} devices and a batch of {batch:,} has them all"
    return JobError(f"plan asks for {said}: {why}", mend="Leave one of them out, and the plan chooses it.")
