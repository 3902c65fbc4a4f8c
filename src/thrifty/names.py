"""Look up every name a job gives, before anything is prepared; loads no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterable
from typing import Any

from thrifty.errors import JobError, MissingExtraError, unknown_name
from thrifty.models import CONSTANT_INITS, INIT_NAMES, MODELS, check_name
from thrifty.optim import OPTIMIZERS, SCHEDULES
from thrifty.spec import Job
from thrifty.spec.schema import job_schema
from thrifty.spec.writers import WRITERS


def check_names(job: Job) -> None:
    """Check the names of model, initialiser, optimizer and schedule.

    Raises:
        JobError: a name is in no table, or stands for no file; the nearest one that does is given.
        MissingExtraError: the model, the adapter or a writer of ``report_to`` needs a package that is not installed.
    """
    check_name(job.model)
    if job.train.adapter is not None and importlib.util.find_spec("peft") is None:
        raise MissingExtraError("train.adapter", package="peft", extra="peft")
    for writer in job.report_to:
        package, extra = WRITERS[writer]
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"report_to: {writer}", package=package, extra=extra)
    given: list[tuple[str, str | None, Collection[str]]] = [
        *(("initialiser", name, INIT_NAMES) for name in _inits(job)),
        ("optimizer", job.train.optimizer, OPTIMIZERS),
        ("schedule", job.train.schedule, SCHEDULES),
    ]
    for kind, name, table in given:
        if name is not None and name not in table:
            raise unknown_name(kind, name, table)
    if job.train.init in CONSTANT_INITS:
        raise JobError(
            f"train.init is {job.train.init}: all weights alike learn nothing",
            mend="It is for some parameters, by pattern, such as {fc.weight: zeros}.",
        )
    if isinstance(job.train.init, dict):
        for pattern, name in job.train.init.items():
            if name == "mup" and pattern != "*":
                raise JobError(
                    f"train.init is mup for '{pattern}', and it is for whole models",
                    mend="Give it for '*', all that no other pattern matches.",
                )


def named_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job (`thrifty.spec.schema`) with the names that are known here.

    >>> named_schema()["$defs"]["Train"]["properties"]["schedule"]["anyOf"][0]["enum"][:2]
    ['cosine', 'exponential']
    """
    schema = job_schema()
    train = schema["$defs"]["Train"]["properties"]
    _name(train["optimizer"], OPTIMIZERS)
    _name(train["schedule"], SCHEDULES)
    _name(train["init"], set(INIT_NAMES) - set(CONSTANT_INITS))
    model = schema["properties"]["model"]
    # any other name may be a function of the user's, a directory, or a size
    model["anyOf"] = [{"enum": sorted(MODELS)}, {"type": model.pop("type")}]
    return schema


def _name(key: dict[str, Any], names: Iterable[str]) -> None:
    """Have a key take these names where it takes any text."""
    key["anyOf"] = [{"enum": sorted(names)} if each == {"type": "string"} else each for each in key["anyOf"]]


def _inits(job: Job) -> list[str]:
    init = job.train.init
    return list(init.values()) if isinstance(init, dict) else [init] if init else []
