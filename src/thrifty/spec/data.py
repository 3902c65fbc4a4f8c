"""The section ``data`` of a job: one class a kind of data, and those that declare what is not here yet."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    WithJsonSchema,
    model_validator,
)

from thrifty.spec.file_names import Pattern, Rule, fields_of
from thrifty.spec.kinds import Task
from thrifty.spec.plain import Plain
from thrifty.spec.sound import Features
from thrifty.spec.units import ByteCount, format_count


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


def _known_encoding(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise ValueError(f"no encoding is called {name!r}; such as utf-8, gb18030, latin-1") from None


# tokens that a language model's tokenizer learns at most, where the job does not say
LEARNED_VOCABULARY = 4096

EncodingName = Annotated[str, Field(min_length=1, max_length=40), AfterValidator(_known_encoding)]
Column = Annotated[str, Field(min_length=1, max_length=200)] | PositiveInt


def _whole(least: int, most: int = 2**63) -> BeforeValidator:
    """Have a field take whole numbers as people write them; the bounds are for the schema."""
    number = {"type": "integer", "minimum": least, "maximum": most}
    text = {"type": "string", "pattern": r"^(?=[0-9.]*[1-9])[0-9]+(\.[0-9]+)?([eE][+]?[0-9]+)?$"}
    given = Annotated[Any, WithJsonSchema({"anyOf": [number, text]})]
    return BeforeValidator(_whole_count, json_schema_input_type=given)


Count = Annotated[int, Field(gt=0), _whole(1)]


class Split(Plain):
    """Which share of the data is held out: `validation` steers the run, `test` is looked at once, at its end.

    Attributes:
        validation, test: shares.
        group: a column; samples of equal value stand in one split.
        time: a column of numbers or ISO 8601 dates; the latest samples are tested on, those before them validate.
    """

    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.1
    group: Column | None = None
    time: Column | None = None

    @property
    def together(self) -> Column | None:
        """The column by which samples belong together; None where each is dealt by itself."""
        return self.time if self.group is None else self.group

    @model_validator(mode="after")
    def _can_be_meant(self) -> Split:
        if self.validation + self.test >= 0.9:
            raise ValueError(f"validation {self.validation} and test {self.test} leave under a tenth to train on")
        if self.group is not None and self.time is not None:
            raise ValueError(f"give group or time, not both (group {self.group!r}, time {self.time!r})")
        return self


class ImageData(Plain):
    """Images with one label each: in class folders, within splits or not, named by a table, in rows of Parquet, in tar
    shards, or as arrays.

    Attributes:
        path: a folder, searched to any depth, a file of arrays or of Parquet, or an archive; relative to the job file.
        label: the column of labels, by name or by number from 1, of a table or of Parquet; found when left out.
        split: shares dealt where folders, tables and arrays do not say.
        size: side in pixels that every image is resized to; decided from the data when left out.
        color: ``gray`` or ``rgb``; decided from the data when left out.
        crop: ``center`` cuts the largest centred square first; ``none`` resizes the whole image; ``letterbox`` too, but
            keeps its form, between bands of gray.
        mixed_sizes: ``resize`` takes images of any size; ``reject`` puts those of another size than the
            commonest among the rejects.
        max_pixels: an image with more pixels is rejected before it is decoded.
        max_file_bytes: a larger file is rejected unread.
    """

    kind: Literal["image"]
    path: Path
    label: Column | None = None
    split: Split = Split()
    size: Annotated[int, Field(ge=4, le=1024)] | None = None
    color: Literal["gray", "rgb"] | None = None
    crop: Literal["center", "none", "letterbox"] = "center"
    mixed_sizes: Literal["resize", "reject"] = "resize"
    max_pixels: PositiveInt = 50_000_000
    max_file_bytes: ByteCount = 64 * 2**20


class LanguageData(Plain):
    """Raw text that a language model learns from: text files, or rows of JSONL or Parquet; ``.gz``, ``.xz``, ``.zst``.

    Attributes:
        path: a folder, searched to any depth, one file, or an archive; relative to the job file.
        files: which files of a folder, as a glob pattern.
        text: column of the texts, where files hold rows.
        encoding: of text files; found when left out.
        split: shares dealt where files do not say.
        split_by: ``documents`` deals whole ones, ``position`` cuts each: its beginning is trained on, its end held out.
            When left out, whole documents where there is one for each split. Files that are all named train, valid
            and test are those splits.
        copies: ``near`` keeps one of equal and of nearly equal documents, ``exact`` one of equal ones.
        documents: ``apart``, a token sees its own document alone, as far as it lies in the window, and positions count
            from its begin; or ``joined``, all that stands before it in the window. Decided by the plan when left out.
        pieces: ``bpe`` or ``unigram`` over bytes, learned from the training split; or its ``characters``.
        vocabulary: number of tokens of the tokenizer, at most.
        tokenizer: a `tokenizer.json` of any sort that gives texts back, relative to the job file; or ``own``, that of
            the directory that the model comes from. When left out, one is learned.
        end: of that file, the token that stands between documents; found among its special ones when left out.
        length: tokens of context; decided by the plan when left out.
        max_row_bytes: a longer row is rejected.
        max_file_bytes: a larger file is rejected unread.
    """

    kind: Literal["language"]
    path: Path
    files: str = "**/*.txt"
    text: Annotated[str, Field(min_length=1, max_length=200)] = "text"
    encoding: EncodingName | None = None
    split: Split = Split(validation=0.05, test=0.05)
    split_by: Literal["documents", "position"] | None = None
    copies: Literal["near", "exact"] = "near"
    documents: Literal["apart", "joined"] | None = None
    pieces: Literal["bpe", "unigram", "characters"] = "bpe"
    vocabulary: Annotated[int, Field(ge=260, le=65_536)] = LEARNED_VOCABULARY
    tokenizer: Path | None = None
    end: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    length: Annotated[int, Field(ge=8, le=65_536)] | None = None
    max_row_bytes: ByteCount = 64 * 2**20
    max_file_bytes: ByteCount = 64 * 2**30

    @model_validator(mode="before")
    @classmethod
    def _counted_not_declared(cls, values: Any) -> Any:
        if isinstance(values, dict) and "tokens" in values:
            raise ValueError("tokens of a folder are counted; leave out 'tokens', or leave out 'path' to plan without")
        return values

    @model_validator(mode="after")
    def _splits_documents(self) -> LanguageData:
        if self.split.together is not None:
            raise ValueError(f"split names the column {self.split.together!r}, and documents have none")
        if self.tokenizer is not None and (self.vocabulary, self.pieces) != (LEARNED_VOCABULARY, "bpe"):
            raise ValueError("vocabulary and pieces are of tokens that are learned, and tokenizer names some")
        if self.tokenizer is None and self.end is not None:
            raise ValueError(
                f"end is a token of the file that tokenizer names, and that is left out (end {self.end!r})"
            )
        return self


class TextData(Plain):
    """Texts with one label each, or with several, as rows of tables, TSV, CSV, JSONL or Parquet; or with one as
    files in class folders.

    Files and folders named train, dev (or valid, validation) and test are the splits they say; what they lack is dealt
    from the training rows, and so are all splits of data that names none.

    Attributes:
        path: a folder, searched to any depth, or one file; relative to the job file.
        task: ``classify``; ``tag``, where a text has several labels or none; or ``mask`` to learn hidden words and no
            labels; as the job's own ``task`` says.
        text, label: columns, by the name in the header or by number from 1; found when left out.
        text_b: column of the second text, where each sample is a pair; found by its name when left out.
        label_separator: what stands between the labels of a cell, where it is no JSON list; of ``tag``.
        header: whether the first row names the columns; told from the rows when left out.
        encoding: of the files; found when left out.
        split: shares dealt where files do not say.
        tokenizer: a `vocab.txt` or `tokenizer.json` with word pieces, relative to the job file; or ``own``, that of the
            directory that the model comes from. When left out, pieces are learned from the training split.
        pieces: that are learned: ``wordpiece``, ``bpe``, ``unigram`` (of Chinese words too), or its ``characters``.
        normalize: ``nfkc`` reads forms that Unicode holds to be compatible, such as letters of full width and of half,
            as one, where pieces are learned; ``none`` as they are.
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
    task: Literal["classify", "mask", "tag"] = "classify"
    text: Column | None = None
    text_b: Column | None = None
    label: Column | None = None
    label_separator: Annotated[str, Field(min_length=1, max_length=8)] | None = None
    header: bool | None = None
    encoding: EncodingName | None = None
    split: Split = Split()
    tokenizer: Path | None = None
    pieces: Literal["wordpiece", "bpe", "unigram", "characters"] = "wordpiece"
    normalize: Literal["none", "nfkc"] = "none"
    vocabulary: Annotated[int, Field(ge=64, le=2**20)] | None = None
    cut_vocabulary: bool = False
    length: Annotated[int, Field(ge=8, le=65_536)] | None = None
    max_rows: PositiveInt = 10_000_000
    max_row_bytes: ByteCount = 64 * 2**10
    max_file_bytes: ByteCount = 2**30

    @model_validator(mode="after")
    def _fits_together(self) -> TextData:
        if self.tokenizer is not None and self.vocabulary is not None:
            raise ValueError("vocabulary is of pieces that are learned, and tokenizer names some; give one of them")
        if self.tokenizer is not None and self.normalize != "none":
            raise ValueError("normalize is of pieces that are learned, and tokenizer names some that read as they do")
        if self.tokenizer is None and self.cut_vocabulary:
            raise ValueError("cut_vocabulary cuts the pieces that tokenizer names, and that is left out")
        if self.label_separator is not None and self.task != "tag":
            raise ValueError(f"label_separator is of texts with several labels; set task: tag, not {self.task}")
        columns = [each for each in (self.text, self.text_b, self.label) if each is not None]
        if twice := next((each for each in columns if columns.count(each) > 1), None):
            raise ValueError(f"two of text, text_b and label are column {twice!r}")
        return self


class AudioData(Plain):
    """Recordings with one label each, or with what is said in them.

    Labels are told by class folders, within splits or not, by a part of the files' names, or by a table that names the
    files; transcripts by a table. Recordings are brought to one rate, and to frames of `Sound`.

    Attributes:
        path: a folder, searched to any depth, or an archive; relative to the job file.
        names: how files are named, such as ``{label}_{speaker}_{index}``; its field ``label`` is the label.
        label: the table's column of labels, by name or number; found when left out.
        transcript: the table's column of what is said, by name or number; then it is that that is learned.
        tokens: of transcripts, ``words`` or ``characters``; decided from the data when left out.
        tokenizer: of transcripts, the `vocab.json` of a checkpoint, whose tokens are then taken; relative to the job
            file.
        test, validation: which recordings are held out, by fields of ``names``, such as ``{index: 0-4}`` or
            ``{speaker: [theo, lucas]}``.
        split: shares dealt where nothing says.
        rate: samples a second that recordings are brought to; when left out decided from the data, for waves 16,000.
        features: ``log_mel``, ``mfcc``, or ``wave``: the samples themselves.
        bands: mel bands; decided by the rate when left out.
        coefficients: that ``mfcc`` keeps.
        min_seconds, max_seconds: a shorter or longer recording is rejected.
        max_file_bytes: a larger file is rejected unread.
    """

    kind: Literal["audio"]
    path: Path
    names: Pattern | None = None
    label: Column | None = None
    transcript: Column | None = None
    tokens: Literal["words", "characters"] | None = None
    tokenizer: Path | None = None
    test: Rule = Field(default_factory=dict)
    validation: Rule = Field(default_factory=dict)
    split: Split = Split()
    rate: Annotated[int, Field(ge=4_000, le=48_000)] | None = None
    features: Features = "log_mel"
    bands: Annotated[int, Field(ge=8, le=256)] | None = None
    coefficients: Annotated[int, Field(ge=2, le=256)] = 13
    min_seconds: Annotated[float, Field(gt=0, le=60)] = 0.02
    max_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    max_file_bytes: ByteCount = 64 * 2**20

    @model_validator(mode="after")
    def _fits_together(self) -> AudioData:
        fields = fields_of(self.names) if self.names else ()
        if self.transcript is not None and self.label is not None:
            raise ValueError("label and transcript are two things to learn; give one of them")
        if self.names and self.transcript is None and self.label is None and "label" not in fields:
            raise ValueError(f"names has no field {{label}}, got {self.names!r}")
        if self.tokens is not None and self.transcript is None:
            raise ValueError("tokens are of transcripts, and transcript is left out")
        if self.tokenizer is not None and self.transcript is None:
            raise ValueError("tokenizer is of transcripts, and transcript is left out")
        if self.tokenizer is not None and self.tokens is not None:
            raise ValueError("tokens says what to find, and tokenizer names some; give one of them")
        if self.bands is not None and self.features == "wave":
            raise ValueError("bands are of log_mel and mfcc, and features is wave")
        if self.min_seconds >= self.max_seconds:
            raise ValueError(f"min_seconds {self.min_seconds} is not under max_seconds {self.max_seconds}")
        for field in (*self.test, *self.validation):
            if field not in fields:
                known = ", ".join(fields) if fields else "names is left out"
                raise ValueError(f"test and validation go by fields of names, and {field!r} is none: {known}")
        return self

    @property
    def task(self) -> Task:
        """What such data is for."""
        return "classify" if self.transcript is None else "transcribe"


class TableData(Plain):
    """Rows of columns: numbers, categories, booleans and dates, of which one is told; CSV, TSV, JSONL or Parquet.

    Files named train, valid and test (or ``.data`` and ``.test``, as UCI has them) are the splits they say; what they
    lack is dealt from the training rows, and so are all splits of a file or folder that names none.

    Attributes:
        path: a folder, searched to any depth, or one file; relative to the job file.
        target: the column that is told, by its name or by number from 1; found when left out.
        task: ``classify`` or ``regress``, as the job's own ``task`` says; told from the target when left out.
        header: whether a row names the columns; told from the rows when left out.
        names: of the columns, where no row names them.
        ignore: columns that are not learned from.
        split: shares dealt where files do not say.
        max_rows: more are refused.
        max_row_bytes: a longer row is rejected.
        max_file_bytes: a larger file is rejected unread.
    """

    kind: Literal["table"]
    path: Path
    target: Column | None = None
    task: Literal["classify", "regress"] | None = None
    header: bool | None = None
    names: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    ignore: tuple[str, ...] = ()
    split: Split = Split()
    max_rows: PositiveInt = 200_000_000
    max_row_bytes: ByteCount = 2**20
    max_file_bytes: ByteCount = 2**40

    @model_validator(mode="after")
    def _named_once(self) -> TableData:
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"names has a name twice: {', '.join(self.names)}")
        if self.names and self.header:
            raise ValueError("names are for tables that no row names the columns of, and header says that one does")
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
    vocabulary: Annotated[int, Field(ge=2, le=2**24), _whole(2, 2**24)]
    length: Annotated[int, Field(ge=8, le=2**24), _whole(8, 2**24)]

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
    classes: Annotated[int, Field(ge=2, le=2**24), _whole(2, 2**24)]
    size: Annotated[int, Field(ge=4, le=1024)]
    color: Literal["gray", "rgb"] = "rgb"

    @property
    def counted(self) -> str:
        """What there is to learn from, in words."""
        return f"{format_count(self.images)} images"


RawData = AudioData | ImageData | LanguageData | TableData | TextData
Declared = DeclaredData | DeclaredImages

# by the tags that tell them apart
RAW: dict[str, type[Plain]] = {
    "audio": AudioData,
    "image": ImageData,
    "language": LanguageData,
    "table": TableData,
    "text": TextData,
}
DECLARED: dict[str, type[Plain]] = {"declared": DeclaredData, "declared-images": DeclaredImages}


def _which_data(values: Any) -> Any:
    """Tell which kind of data section this is; what is no mapping was checked before."""
    if isinstance(values, Plain):
        return next((tag for tag, each in DECLARED.items() if type(values) is each), getattr(values, "kind", None))
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in ("language", "image") or "path" in values:
        return kind if kind is None else str(kind)
    counted, tag = ("tokens", "declared") if kind == "language" else ("images", "declared-images")
    return tag if counted in values else kind


Data = Annotated[
    Annotated[AudioData, Tag("audio")]
    | Annotated[ImageData, Tag("image")]
    | Annotated[LanguageData, Tag("language")]
    | Annotated[TableData, Tag("table")]
    | Annotated[TextData, Tag("text")]
    | Annotated[DeclaredData, Tag("declared")]
    | Annotated[DeclaredImages, Tag("declared-images")],
    Discriminator(_which_data),
]
