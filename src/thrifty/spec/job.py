"""`Job`: what you want. A short flat YAML file; what it leaves out, the plan decides."""

from __future__ import annotations

import contextlib
import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Tag,
    ValidationError,
    model_validator,
)

from thrifty.errors import JobError, nearest
from thrifty.spec.augment import Augment
from thrifty.spec.layout import Checkpointing, Compile, Precision, Rows
from thrifty.spec.plain import Plain
from thrifty.spec.plan import Batching
from thrifty.spec.units import JOULES, SECONDS, USD, ByteCount, Duration, Energy, Money, format_count

Fraction = Annotated[float, Field(ge=0, lt=1)]
Task = Literal["classify", "language"]
TASKS: dict[str, Task] = {"image": "classify", "language": "language", "text": "classify"}
MAX_JOB_BYTES = 1 << 20


def _safe_name(name: str) -> str:
    if name in {".", ".."} or not all(c.isalnum() or c in "._-" for c in name):
        raise ValueError(f"a name may hold letters, digits, '.', '_' and '-' alone, got {name!r}")
    return name


def _whole_count(value: Any) -> Any:
    """Take ``300e9``, which YAML reads as text, for the whole number it is."""
    if not isinstance(value, str | float):
        return value
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"a count is a whole number such as 300e9, got {value!r}") from None
    if not number.is_integer():
        raise ValueError(f"a count is a whole number such as 300e9, got {value!r}")
    return int(number)


Column = Annotated[str, Field(min_length=1, max_length=200)] | PositiveInt
Count = Annotated[int, Field(gt=0), BeforeValidator(_whole_count)]
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_safe_name)]


class Split(Plain):
    """Which share of the data is held out: `validation` steers the run, `test` is looked at once, at its end."""

    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> Split:
        if self.validation + self.test >= 0.9:
            raise ValueError(f"validation {self.validation} and test {self.test} leave under a tenth to train on")
        return self


class ImageData(Plain):
    """Images with one label each: in class folders, within splits or not, named by a table, or as arrays.

    Attributes:
        path: a folder, searched to any depth, a file of arrays, or an archive; relative to the job file.
        size: side in pixels that every image is resized to; decided from the data when left out.
        color: ``gray`` or ``rgb``; decided from the data when left out.
        crop: ``center`` cuts the largest centred square first; ``none`` resizes the whole image.
        mixed_sizes: ``resize`` takes images of any size; ``reject`` puts those of another size than the
            commonest among the rejects.
        max_pixels: an image with more pixels is rejected before it is decoded.
        max_file_bytes: a larger file is rejected unread.
    """

    kind: Literal["image"]
    path: Path
    split: Split = Split()
    size: Annotated[int, Field(ge=4, le=1024)] | None = None
    color: Literal["gray", "rgb"] | None = None
    crop: Literal["center", "none"] = "center"
    mixed_sizes: Literal["resize", "reject"] = "resize"
    max_pixels: PositiveInt = 50_000_000
    max_file_bytes: ByteCount = 64 * 2**20


class LanguageData(Plain):
    """Raw text files that a language model learns from.

    Attributes:
        path: a folder, searched to any depth; relative to the job file.
        files: which files of it, as a glob pattern.
        vocabulary: number of tokens of the tokenizer trained on the training split.
        length: tokens of context; decided by the plan when left out.
        max_file_bytes: a larger file is rejected unread.
    """

    kind: Literal["language"]
    path: Path
    files: str = "**/*.txt"
    split: Split = Split(validation=0.05, test=0.05)
    vocabulary: Annotated[int, Field(ge=260, le=65_536)] = 4096
    length: Annotated[int, Field(ge=8, le=65_536)] | None = None
    max_file_bytes: ByteCount = 64 * 2**20

    @model_validator(mode="before")
    @classmethod
    def _counted_not_declared(cls, values: Any) -> Any:
        if isinstance(values, dict) and "tokens" in values:
            raise ValueError("tokens of a folder are counted; leave out 'tokens', or leave out 'path' to plan without")
        return values


class TextData(Plain):
    """Texts with one label each, as rows of tables: TSV, CSV or JSONL.

    Files named train, dev (or valid, validation) and test are the splits they say; what they lack is dealt from the
    training rows, and so are all splits of a file or folder that names none.

    Attributes:
        path: a folder, searched to any depth, or one file; relative to the job file.
        text, label: columns, by the name in the header or by number from 1; found when left out.
        header: whether the first row names the columns; told from the rows when left out.
        split: shares dealt where files do not say.
        tokenizer: a `vocab.txt` or `tokenizer.json` with word pieces; relative to the job file. When left out, pieces
            are learned from the training split.
        vocabulary: pieces to learn at most; decided from the data when left out.
        cut_vocabulary: leave out the pieces of `tokenizer` that the training split does not use. A held-out text then
            may be cut into smaller pieces, or hold unknown words.
        length: tokens of the longest text, its two marks included; longer ones are cut. Decided from the data when
            left out.
        max_rows: more are refused.
        max_row_bytes: a longer row is rejected.
        max_file_bytes: a larger file is rejected unread.
    """

    kind: Literal["text"]
    path: Path
    text: Column | None = None
    label: Column | None = None
    header: bool | None = None
    split: Split = Split()
    tokenizer: Path | None = None
    vocabulary: Annotated[int, Field(ge=64, le=2**20)] | None = None
    cut_vocabulary: bool = False
    length: Annotated[int, Field(ge=8, le=65_536)] | None = None
    max_rows: PositiveInt = 10_000_000
    max_row_bytes: ByteCount = 64 * 2**10
    max_file_bytes: ByteCount = 2**30

    @model_validator(mode="after")
    def _one_vocabulary(self) -> TextData:
        if self.tokenizer is not None and self.vocabulary is not None:
            raise ValueError("vocabulary is of pieces that are learned, and tokenizer names some; give one of them")
        if self.tokenizer is None and self.cut_vocabulary:
            raise ValueError("cut_vocabulary cuts the pieces that tokenizer names, and that is left out")
        if self.text is not None and self.text == self.label:
            raise ValueError(f"text and label are both column {self.text!r}")
        return self


class DeclaredData(Plain):
    """Text that is not here yet, by its size: enough to plan a language model, and nothing to train on.

    Attributes:
        tokens: of the training split.
        vocabulary: tokens that the tokenizer knows.
        length: tokens of context.
    """

    kind: Literal["language"]
    tokens: Count
    vocabulary: Annotated[int, Field(ge=2, le=2**24), BeforeValidator(_whole_count)]
    length: Annotated[int, Field(ge=8, le=2**24), BeforeValidator(_whole_count)]

    @property
    def counted(self) -> str:
        """What there is to learn from, in words."""
        return f"{format_count(self.tokens)} tokens"


class DeclaredImages(Plain):
    """Images that are not here yet, by their number and size: enough to plan a classifier, and nothing to train on.

    Attributes:
        images: of the training split.
        classes: that they are told apart by.
        size: side in pixels once prepared.
        color: ``gray`` or ``rgb``.
    """

    kind: Literal["image"]
    images: Count
    classes: Annotated[int, Field(ge=2, le=2**24), BeforeValidator(_whole_count)]
    size: Annotated[int, Field(ge=4, le=1024)]
    color: Literal["gray", "rgb"] = "rgb"

    @property
    def counted(self) -> str:
        """What there is to learn from, in words."""
        return f"{format_count(self.images)} images"


RawData = ImageData | LanguageData | TextData
Declared = DeclaredData | DeclaredImages


def _which_data(values: Any) -> Any:
    """Tell which kind of data section this is; what is no mapping was checked before."""
    if isinstance(values, Plain):
        return next((tag for tag, each in _DECLARED.items() if type(values) is each), getattr(values, "kind", None))
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in {"language", "image"} or "path" in values:
        return kind
    counted, tag = ("tokens", "declared") if kind == "language" else ("images", "declared-images")
    return tag if counted in values else kind


_DECLARED: dict[str, type[Plain]] = {"declared": DeclaredData, "declared-images": DeclaredImages}


Data = Annotated[
    Annotated[ImageData, Tag("image")]
    | Annotated[LanguageData, Tag("language")]
    | Annotated[TextData, Tag("text")]
    | Annotated[DeclaredData, Tag("declared")]
    | Annotated[DeclaredImages, Tag("declared-images")],
    Discriminator(_which_data),
]


class Target(Plain):
    """Stop as soon as validation reaches this; at most one figure."""

    accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    bits_per_byte: PositiveFloat | None = None
    loss: PositiveFloat | None = None

    @model_validator(mode="after")
    def _one_figure(self) -> Target:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("a target names exactly one of accuracy, bits_per_byte, loss")
        return self


class Budget(Plain):
    """The most that may be spent; what is left out is not limited."""

    memory: ByteCount | None = None
    time: Duration | None = None
    energy: Energy | None = None
    money: Money | None = None


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
Patterns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_tuple_of_one)]


class Adapter(Plain):
    """Small matrices trained beside a model's own weights, which stay as they are; put into them at the end.

    Attributes:
        kind: ``lora`` (Hu et al. 2021), or ``dora``, which trains the length of each row too (Liu et al. 2024).
        rank: inner width of the matrices.
        alpha: what the matrices add counts ``alpha / rank`` times.
        targets: patterns of the names of layers that get them.
        base: ``4bit`` keeps the weights that get them in four bits each while training (QLoRA), ``own`` as they are.
    """

    kind: Literal["lora", "dora"]
    rank: PositiveInt | None = None
    alpha: PositiveFloat | None = None
    targets: Patterns | None = None
    base: Literal["own", "4bit"] = "own"


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
            ``lecun_uniform``, ``orthogonal``, ``normal``, ``truncated_normal``; ``own`` keeps what the model's own code
            draws or loads, and is what a model that is not ours has by default. Or a name for each pattern of
            parameters, such as ``{fc.weight: zeros}``, of which the first that matches counts; ``*`` is the rest.
        augment: how training images are changed by chance, such as ``{flip: true, crop: 4}``; not at all when left out.
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
    freeze: Patterns = ()
    adapter: Annotated[Adapter, BeforeValidator(_kind_alone)] | None = None
    patience: Annotated[int, Field(ge=0)] | None = None
    evaluations: PositiveInt | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _one_length(self) -> Train:
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"give epochs or steps, not both (epochs {self.epochs}, steps {self.steps})")
        return self


class Pins(Plain):
    """What you decide in the plan's place: how to compute; what follows ``threads`` speaks of several devices.

    ``offload`` and the last six are fields of `Layout` by the same names. On this machine a run takes ``data``, its
    number of devices, and ``zero``: 0, each has a copy of the model, or 3, weights, gradients and optimizer states are
    shared out (FSDP).
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
    threads: PositiveInt | None = None
    data: PositiveInt | None = None
    tensor: PositiveInt | None = None
    pipeline: PositiveInt | None = None
    context: PositiveInt | None = None
    virtual_stages: PositiveInt | None = None
    zero: Literal[0, 1, 2, 3] | None = None


class Job(Plain):
    """What you want: data, task, model, target, budget.

    ``model`` is a name of `thrifty.models.MODELS`; or ``package.module:function``, a function that returns an
    `nn.Module`, its module beside the job file, in a folder named before it, or on the Python path; or
    ``hf:<directory or id>``, a model of transformers.

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

    @model_validator(mode="before")
    @classmethod
    def _task_from_data(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("task") is None and isinstance(values.get("data"), dict):
            own = TASKS.get(values["data"].get("kind", ""))
            return {**values, "task": own} if own else values
        return values

    @model_validator(mode="after")
    def _task_fits_data(self) -> Job:
        fits = TASKS[self.data.kind]
        if self.task != fits:
            raise ValueError(f"data of kind '{self.data.kind}' is for task '{fits}', not '{self.task}'")
        if self.target is not None:
            wrong = "bits_per_byte" if fits == "classify" else "accuracy"
            if getattr(self.target, wrong) is not None:
                raise ValueError(f"task '{fits}' has no target '{wrong}'")
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
    job = job.model_copy(update={"model": locate_model(job.model, path.parent)})
    if isinstance(job.data, Declared):
        return job
    located = {"path": _located(job.data.path, path.parent)}
    if isinstance(job.data, TextData) and job.data.tokenizer is not None:
        located["tokenizer"] = _located(job.data.tokenizer, path.parent)
    return job.model_copy(update={"data": job.data.model_copy(update=located)})


def _located(path: Path, folder: Path) -> Path:
    return (folder / path.expanduser()).resolve()


def locate_model(model: str, folder: Path) -> str:
    """Take the paths in a model's name from a folder: a directory after ``hf:``, the folder of a function's module.

    A function's module that lies in the folder is told by its path; any other is looked for on the Python path.

    >>> locate_model("resnet8", Path("/jobs")), locate_model("../nets/small:net", Path("/jobs/a"))
    ('resnet8', '/jobs/nets/small:net')
    """
    if model.startswith("hf:"):
        place = (folder / Path(model.removeprefix("hf:")).expanduser()).resolve()
        return f"hf:{place}" if place.is_dir() else model
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


_TAGS = {*TASKS, *_DECLARED}
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
        return f"unknown data kind '{value}' in {source}{_guess(value, list(TASKS))}; known: {', '.join(TASKS)}"
    if error["type"] == "union_tag_not_found":
        return f"{source} lacks the key 'data.kind'; known: {', '.join(TASKS)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{key or source}: {message}" + (
        "" if isinstance(error["input"], dict | Plain) else f" (got {error['input']!r})"
    )


def _guess(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(names)})" if names else ""


def _keys_at(place: list[str], error: dict[str, Any]) -> list[str]:
    sections: dict[str, type[Plain]] = {"target": Target, "budget": Budget, "train": Train, "plan": Pins}
    if not place:
        return list(Job.model_fields)
    if "adapter" in place:
        return list(Adapter.model_fields)
    if place[0] == "data" and place[-1] == "split":
        return list(Split.model_fields)
    if place[0] == "data":
        kinds: dict[str, type[Plain]] = {"image": ImageData, "text": TextData, **_DECLARED}
        tag = next((part for part in error["loc"] if part in kinds), "language")
        return list(kinds.get(tag, LanguageData).model_fields)
    return list(sections[place[0]].model_fields)
