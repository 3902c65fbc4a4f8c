"""`Job`: what you want. A short flat YAML file; what it leaves out, the plan decides."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from thrifty.errors import JobError, nearest
from thrifty.spec.augment import Augment, RandAugment
from thrifty.spec.data import DECLARED, RAW, AudioData, Data, Declared, LanguageData, RawData, Split, TextData
from thrifty.spec.kinds import KINDS, Task
from thrifty.spec.layout import Checkpointing, Compile, Precision, Rows
from thrifty.spec.metrics import TASK_METRICS
from thrifty.spec.plain import Plain
from thrifty.spec.plan import Batching, Loading
from thrifty.spec.train import Adapter, Train
from thrifty.spec.tuning import Choice, Tune
from thrifty.spec.units import JOULES, SECONDS, USD, ByteCount, Duration, Energy, Money
from thrifty.spec.writers import ReportTo

MAX_JOB_BYTES = 1 << 20
# the tokenizer of the directory that the model comes from
OWN_TOKENIZER = "own"


def _safe_name(name: str) -> str:
    if name in {".", ".."} or not all(c.isalnum() or c in "._-" for c in name):
        raise ValueError("a name may hold letters, digits, '.', '_' and '-' alone")
    return name


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_safe_name)]


class Target(Plain):
    """Stop as soon as validation reaches this; at most one figure.

    Attributes:
        accuracy: share of answers that are right.
        auc: of two labels, how often the one is ranked above the other.
        bits_per_byte: of a language model.
        cer: character error rate of transcripts.
        loss: of the task.
        mae: mean error, in the unit of the table.
        macro_f1: mean over the labels, each as heavy.
        micro_f1: over all answers together.
        r2: share of the variance that is explained.
        rmse: root of the mean square error, in the unit of the table.
        wer: word error rate of transcripts.
    """

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    auc: Annotated[float, Field(gt=0, le=1)] | None = None
    bits_per_byte: PositiveFloat | None = None
    cer: Annotated[float, Field(ge=0, lt=1)] | None = None
    loss: PositiveFloat | None = None
    mae: PositiveFloat | None = None
    macro_f1: Annotated[float, Field(gt=0, le=1)] | None = None
    micro_f1: Annotated[float, Field(gt=0, le=1)] | None = None
    r2: Annotated[float, Field(gt=0, le=1)] | None = None
    rmse: PositiveFloat | None = None
    wer: Annotated[float, Field(ge=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _one_figure(self) -> Target:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError(f"a target names exactly one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def metric(self) -> str:
        """The figure that is named."""
        return next(iter(self.model_dump(exclude_none=True)))


class Budget(Plain):
    """The most that may be spent; what is left out is not limited.

    Attributes:
        memory: resident at once.
        time: from the start of the run, preparing and planning included.
        energy: likewise.
        money: likewise, at the price of the machine by the hour.
    """

    memory: ByteCount | None = None
    time: Duration | None = None
    energy: Energy | None = None
    money: Money | None = None

    @property
    def of_memory(self) -> Budget:
        """The limit of memory, and no other.

        >>> Budget.model_validate({"memory": "4GiB", "time": "1h"}).of_memory.model_dump(exclude_none=True)
        {'memory': '4294967296B'}
        """
        return Budget().model_copy(update={"memory": self.memory})


class Pins(Plain):
    """What you decide in the plan's place: how to compute; what follows ``threads`` speaks of several devices.

    ``offload`` and the last six are fields of `Layout` by the same names. On this machine a run takes ``data`` and
    ``zero`` of them.

    Attributes:
        device: that trains.
        precision: of products; ``bf16_compensated`` and ``bf16_stochastic`` hold weights in bf16 too.
        micro_batch: samples computed at once; accumulation makes up the batch.
        batching: of texts: ``padded`` to the longest, ``packed`` end to end, ``by_length`` with those of like length.
        checkpointing: what is computed again for the backward pass: ``none``, ``selective``, or ``full``, each block.
        compile: by torch.compile: ``none``, repeated ``blocks``, or the ``whole`` model.
        rows: of an embedding that are updated in a step: ``all``, or those ``used`` in it.
        gradient_release: each parameter is stepped in the backward pass, and its gradient freed.
        offload: optimizer states lie in the processor's memory.
        memory_format: of images: ``contiguous``, channels of rows, or ``channels_last``, rows of pixels.
        loading: when batches are made: ``between`` steps, or ``beside`` them by a thread.
        threads: of the processor's matrix products.
        data: devices that each take a share of the batch.
        tensor: devices that share each matrix.
        pipeline: devices that hold consecutive blocks.
        context: devices that share each sequence.
        virtual_stages: chunks of blocks that a pipeline stage holds.
        zero: what the devices of ``data`` share out: 0, nothing, each has a copy of the model; 1, optimizer states; 2,
            gradients too; 3, weights too (FSDP). On this machine 0 or 3.
    """

    device: Literal["cpu", "cuda"] | None = None
    precision: Precision | None = None
    micro_batch: PositiveInt | None = None
    batching: Batching | None = None
    checkpointing: Checkpointing | None = None
    compile: Compile | None = None
    rows: Rows | None = None
    gradient_release: bool | None = None
    offload: bool | None = None
    memory_format: Literal["contiguous", "channels_last"] | None = None
    loading: Loading | None = None
    threads: PositiveInt | None = None
    data: PositiveInt | None = None
    tensor: PositiveInt | None = None
    pipeline: PositiveInt | None = None
    context: PositiveInt | None = None
    virtual_stages: PositiveInt | None = None
    zero: Literal[0, 1, 2, 3] | None = None


class Job(Plain):
    """What you want: data, task, model, target, budget.

    Attributes:
        name: of the run's folder.
        data: what to learn from.
        task: what to learn of it; told by the data when left out.
        model: a name of `thrifty.models.MODELS`, at another size such as ``gpt-nano@3x96``; or
            ``package.module:function``, a function that returns an `nn.Module`, its module beside the job file, in a
            folder named before it, or on the Python path; or ``ours:<directory>``, one of ours with weights in Hugging
            Face's layout; ``hf:<directory or id>``, a model of transformers.
        target: stop as soon as it is reached.
        budget: the most that may be spent.
        train: how to learn, where you care.
        plan: how to compute, where you care.
        tune: how to search for settings, where you care.
        report_to: who is told of a run beside its own files: `thrifty.spec.writers.WRITERS`.

    >>> Job.model_validate(dict(name="a", data=dict(kind="image", path="x"), model="resnet8")).task
    'classify'
    """

    name: Name
    data: Data
    task: Task | None = None
    model: str
    target: Target | None = None
    budget: Budget = Budget()
    train: Train = Train()
    plan: Pins = Pins()
    tune: Tune = Tune()
    report_to: ReportTo = ()

    @model_validator(mode="before")
    @classmethod
    def _task_from_data(cls, values: Any) -> Any:
        """What data is for is told by its kind; recordings, tables and texts are for one thing or another."""
        if not isinstance(values, dict) or not isinstance(values.get("data"), dict):
            return values
        data, task = values["data"], values.get("task")
        # whatever else stands there is for the types to refuse
        kind = KINDS.get(data["kind"]) if isinstance(data.get("kind"), str) else None
        if kind is None:
            return values
        if data["kind"] in {"table", "text"}:
            # prepared for the one that is asked for; a table tells which where none is
            told = data.get("task") if task is None else task
            task = kind.tasks[0] if told is None and data["kind"] == "text" else told
            known = task is None or task in kind.tasks
            return {**values, "task": task, "data": {**data, "task": task}} if known else values
        if task is None and data["kind"] == "audio" and data.get("transcript") is not None:
            return {**values, "task": "transcribe"}
        return {**values, "task": kind.tasks[0] if task is None else task}

    @model_validator(mode="after")
    def _task_fits_data(self) -> Job:
        kind, tasks = self.data.kind, KINDS[self.data.kind].tasks
        if self.task is None:
            known = sorted({metric for task in tasks for metric in TASK_METRICS[task]})
            if self.target is not None and self.target.metric not in known:
                raise ValueError(f"data of kind '{kind}' has no target '{self.target.metric}': {', '.join(known)}")
            return self
        if self.task not in tasks:
            fits = " or ".join(f"'{task}'" for task in tasks)
            raise ValueError(f"data of kind '{kind}' is for task {fits}, not '{self.task}'")
        if isinstance(self.data, AudioData) and self.task != self.data.task:
            what = "leave out" if self.data.transcript is not None else "name its column of the table:"
            raise ValueError(f"task '{self.task}' does not go with data for '{self.data.task}'; {what} data.transcript")
        if self.target is not None and self.target.metric not in TASK_METRICS[self.task]:
            raise ValueError(f"task '{self.task}' has no target '{self.target.metric}'")
        return self


def load_job(path: str | Path) -> Job:
    """Read a job file; paths in it are taken from the folder the file lies in.

    Raises:
        JobError: the file is missing, is not YAML, or says something that cannot be meant; every mistake
            is named with its key, its value and the nearest key that exists.
    """
    path = Path(path)
    if not path.is_file():
        near = nearest(path.name, [p.name for p in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else ""
        raise JobError(f"there is no job file '{path}'", nearest=near, mend="Write one: thrifty init DATA.")
    if path.stat().st_size > MAX_JOB_BYTES:
        raise JobError(f"job file '{path}' is larger than {MAX_JOB_BYTES} bytes", mend="A job is a short file.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise JobError(f"job file '{path}' is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise JobError(f"job file '{path}' holds {type(values).__name__}, not keys and values")
    job = parse_job(values, source=path.name)
    tune = _with_models(job.tune, lambda model: locate_model(model, path.parent))
    job = job.model_copy(update={"model": locate_model(job.model, path.parent), "tune": tune})
    if isinstance(job.data, Declared):
        return job
    located = {"path": _located(job.data.path, path.parent)}
    if isinstance(job.data, AudioData | LanguageData | TextData) and job.data.tokenizer is not None:
        own = str(job.data.tokenizer) == OWN_TOKENIZER
        file = own_tokenizer(job.model, job.data.kind) if own else _located(job.data.tokenizer, path.parent)
        located["tokenizer"] = file
    return job.model_copy(update={"data": job.data.model_copy(update=located)})


def _with_models(tune: Tune, locate: Callable[[str], str]) -> Tune:
    """The section ``tune`` with the models of its space located."""
    if tune.space is None or "model" not in tune.space:
        return tune
    choice = tune.space["model"]
    first = locate(choice.first) if isinstance(choice.first, str) else choice.first
    located = choice.model_copy(update={"values": tuple(locate(str(each)) for each in choice.values), "first": first})
    return tune.model_copy(update={"space": {**tune.space, "model": located}})


def own_tokenizer(model: str, kind: str) -> Path:
    """Return the tokenizer's file in the directory that a model comes from, of a run that of its bundle.

    Raises:
        JobError: the model comes from no directory, or none is in it.
    """
    prefix, _, place = model.partition(":")
    folder = Path(place)
    if prefix not in {"hf", "ours"} or not folder.is_dir():
        raise JobError(
            f"data.tokenizer is {OWN_TOKENIZER}, and model '{model}' comes from no directory here",
            mend="Name a tokenizer.json, or a model ours:<directory> or hf:<directory> that has one.",
        )
    names = ("vocab.json",) if kind == "audio" else ("tokenizer.json", "bundle/tokenizer.json", "vocab.txt")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise JobError(
        f"data.tokenizer is {OWN_TOKENIZER}, and '{folder}' has no {names[0]}",
        mend="Save it there: tokenizer.save_pretrained(...), or name its file.",
    )


def _located(path: Path, folder: Path) -> Path:
    return (folder / path.expanduser()).resolve()


def locate_model(model: str, folder: Path) -> str:
    """Take the paths in a model's name from a folder: a directory after a prefix, the folder of a function's module.

    A function's module that lies in the folder is told by its path; any other is looked for on the Python path.

    >>> locate_model("resnet8", Path("/jobs")), locate_model("../nets/small:net", Path("/jobs/a"))
    ('resnet8', '/jobs/nets/small:net')
    """
    prefix, _, rest = model.partition(":")
    if prefix in {"hf", "ours"}:
        place = (folder / Path(rest).expanduser()).resolve()
        return f"{prefix}:{place}" if place.is_dir() or prefix == "ours" else model
    if ":" not in model:
        return model
    before, slash, name = model.rpartition("/")
    place = (folder / Path(before).expanduser()).resolve()
    top = name.partition(":")[0].partition(".")[0]
    here = (place / f"{top}.py").is_file() or (place / top).is_dir()
    return f"{place}/{name}" if slash or here else model


def with_devices(job: Job, devices: int | None) -> Job:
    """Have a job run on so many devices, whatever its file pins; None leaves it as it is.

    Raises:
        JobError: there are less than one.

    >>> job = Job.model_validate(dict(name="a", data=dict(kind="image", path="x"), model="resnet8"))
    >>> with_devices(job, 2).plan.data
    2
    """
    if devices is None:
        return job
    if devices < 1:
        raise JobError(f"{devices} devices are none to run on", mend="Give 1 or more.")
    return job.model_copy(update={"plan": job.plan.model_copy(update={"data": devices})})


def raw_data(job: Job) -> RawData:
    """Return the data section of a job that has data to train on.

    Raises:
        JobError: the job declares the size of its data and names no folder.
    """
    if isinstance(job.data, Declared):
        raise JobError(
            f"job '{job.name}' has no data to train on: it declares {job.data.counted} and names no folder",
            mend="It can be planned (thrifty plan); to run it, give data.path.",
        )
    return job.data


def parse_job(values: dict[str, Any], *, source: str = "the job") -> Job:
    """Check a mapping and make a `Job` of it; paths stay as they are.

    Raises:
        JobError: as for `load_job`.
    """
    try:
        return Job.model_validate(values)
    except ValidationError as error:
        raise JobError("; ".join(_explain(dict(e), source) for e in error.errors())) from None


def parse_budget(text: str) -> Budget:
    """Read one amount of time, energy or money, told apart by its unit.

    >>> parse_budget("10min").time
    600.0

    Raises:
        JobError: it is none of them.
    """
    for name in ("time", "energy", "money"):
        with contextlib.suppress(ValidationError):
            return Budget.model_validate({name: text})
    units = ", ".join((*SECONDS, *JOULES, *USD))
    raise JobError(f"{text!r} is no amount of time, energy or money", mend=f"Write it like '10min'. Units: {units}.")


_TAGS = {*KINDS, *DECLARED}
_UNION_PARTS = ("literal[", "function-", "constrained-")


def _explain(error: dict[str, Any], source: str) -> str:
    """One mistake as a clause: the key, the value, the nearest key."""
    # pydantic adds the tag of a union ("image") to the place of an error; users never wrote it
    tagged = len(error["loc"]) > 1 and error["loc"][0] == "data" and error["loc"][1] in _TAGS
    place = [str(part) for at, part in enumerate(error["loc"]) if not (tagged and at == 1)]
    place = [part for part in place if not part.startswith(_UNION_PARTS)]
    key = ".".join(place)
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}' in {source}{_guess(place[-1], _keys_at(place[:-1], error))}"
    if error["type"] == "missing":
        return f"{source} lacks the key '{key}'"
    if error["type"] == "union_tag_invalid":
        value = str(error["input"].get("kind"))
        return f"unknown data kind '{value}' in {source}{_guess(value, list(KINDS))}; known: {', '.join(KINDS)}"
    if error["type"] == "union_tag_not_found":
        return f"{source} lacks the key 'data.kind'; known: {', '.join(KINDS)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{key or source}: {message}" + (
        "" if isinstance(error["input"], dict | Plain) else f" (got {error['input']!r})"
    )


def _guess(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(names)})" if names else ""


def _keys_at(place: list[str], error: dict[str, Any]) -> list[str]:
    sections: dict[str, type[Plain]] = {
        "target": Target, "budget": Budget, "train": Train, "plan": Pins, "tune": Tune,
    }  # fmt: skip
    if not place:
        return list(Job.model_fields)
    if place[0] == "tune" and len(place) > 1:
        return list(Choice.model_fields)
    if "randaugment" in place:
        return list(RandAugment.model_fields)
    if "augment" in place:
        return list(Augment.model_fields)
    if "adapter" in place:
        return list(Adapter.model_fields)
    if place[0] == "data" and place[-1] == "split":
        return list(Split.model_fields)
    if place[0] == "data":
        tag = next((part for part in error["loc"] if part in _TAGS), "language")
        return list({**RAW, **DECLARED}[tag].model_fields)
    return list(sections[place[0]].model_fields)
