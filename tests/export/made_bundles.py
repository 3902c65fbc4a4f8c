"""Small bundles with made-up weights, and images to ask them about; for the tests of export and serve."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from thrifty.data.documents.tokenizer import train_tokenizer
from thrifty.data.texts.word_pieces import learn_pieces
from thrifty.export.bundle import Bundle, write_bundle
from thrifty.export.targets import TARGETS
from thrifty.export.targets.served import Source
from thrifty.models import build, resolve
from thrifty.models.init import initialise
from thrifty.spec import BundleInfo, Cleaning, Dataset, ModelPlan, Sound, Spent, Table
from thrifty.spec.table import Column

LABELS = ("cat", "dog", "owl")


def image_dataset(channels: int = 3, side: int = 16) -> Dataset:
    return Dataset(
        kind="image", key="k", counts={"train": 3, "validation": 1, "test": 1}, labels=LABELS,
        label_counts=dict.fromkeys(LABELS, 1), shape=(channels, side, side), mean=(0.4, 0.5, 0.6)[:channels],
        std=(0.2, 0.25, 0.3)[:channels], crop="center", vocabulary=0, tokens={}, text_bytes={}, source_bytes=1,
        stored_bytes=1, cleaning=Cleaning(seen=5, kept=5, rejected={}, duplicates=0, across_splits=0),
    )  # fmt: skip


def language_dataset(vocabulary: int, length: int = 32) -> Dataset:
    return Dataset(
        kind="language", key="k", counts={"train": 3, "validation": 1, "test": 1}, labels=(), label_counts={},
        shape=(length,), mean=(), std=(), crop="none", vocabulary=vocabulary, tokens={"train": 96},
        text_bytes={"train": 300}, source_bytes=1, stored_bytes=1,
        cleaning=Cleaning(seen=5, kept=5, rejected={}, duplicates=0, across_splits=0),
    )  # fmt: skip


def text_dataset(vocabulary: int, length: int = 16) -> Dataset:
    data = language_dataset(vocabulary, length)
    return data.model_copy(update={"kind": "text", "labels": LABELS, "label_counts": dict.fromkeys(LABELS, 1)})


def write_image_bundle(
    folder: Path, *, name: str = "pets", version: int = 1, seed: int = 0, named: str = "resnet8", **sizes: int
) -> BundleInfo:
    data = image_dataset(**sizes)
    plan = resolve(named, data)
    model = build(plan)
    initialise(model, "default", seed)
    return _write(
        folder, name=name, version=version, task="classify", model=model, plan=plan, data=data, tokenizer=None
    )


def sound_dataset(task: str, bands: int = 12) -> Dataset:
    told = task == "transcribe"
    return Dataset(
        kind="audio", task=task, key="k", counts={"train": 3, "validation": 1, "test": 1},
        labels=("one", "two") if told else LABELS, label_counts={}, shape=(64, bands), mean=(0.0,) * bands,
        std=(1.0,) * bands, crop="none", vocabulary=3 if told else 0, tokens={"train": 150}, text_bytes={},
        source_bytes=1, stored_bytes=1, cleaning=Cleaning(seen=5, kept=5, rejected={}, duplicates=0, across_splits=0),
        sound=Sound(rate=8000, bands=bands),
    )  # fmt: skip


def write_wave_bundle(folder: Path, *, task: str = "classify", norm: str = "group", name: str = "ear") -> BundleInfo:
    """A reader of waves, its convolutions as published but narrow; of transcripts in characters."""
    letters = (" ", *"abcdef")
    told = {"labels": letters, "vocabulary": len(letters) + 1} if task == "transcribe" else {}
    sizes = {"shape": (64, 320), "mean": (), "std": (), "sound": Sound(rate=16_000, features="wave")}
    data = sound_dataset(task).model_copy(update={**sizes, **told})
    plan = resolve("wav2vec2-tiny", data)
    narrow = {"channels": [8] * 7, "layers": 1, "width": 16, "heads": 2, "norm": norm, "stable": norm == "layer"}
    plan = plan.model_copy(update={"arguments": {**plan.arguments, **narrow}})
    model = build(plan)
    initialise(model, "default", 0)
    return _write(folder, name=name, version=1, task=task, model=model, plan=plan, data=data, tokenizer=None)


def write_sound_bundle(folder: Path, *, task: str = "classify", name: str = "ear", version: int = 1) -> BundleInfo:
    data = sound_dataset(task)
    plan = resolve("speech-tiny", data)
    plan = plan.model_copy(update={"arguments": {**plan.arguments, "layers": 1, "width": 16, "heads": 2}})
    model = build(plan)
    initialise(model, "default", 0)
    return _write(folder, name=name, version=version, task=task, model=model, plan=plan, data=data, tokenizer=None)


def sound(seconds: float = 0.3, rate: int = 8000, pitch: float = 440.0) -> bytes:
    """A WAV file of a tone."""
    samples = np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate) * 20_000
    body = samples.astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


DECODERS: dict[str, dict[str, Any]] = {
    "gpt": {"layers": 1, "width": 32, "heads": 2},
    "llama": {"layers": 1, "width": 32, "heads": 4, "kv_heads": 2, "ffn": 48, "tied": True},
}


def write_language_bundle(
    folder: Path,
    *,
    name: str = "poet",
    version: int = 1,
    seed: int = 0,
    family: str = "gpt",
    scheme: str = "default",
    length: int = 32,
) -> BundleInfo:
    tokenizer = train_tokenizer(["the cat sat on the mat and the dog sat on the cat"] * 4, vocabulary=280)
    path = folder.parent / f"{folder.name}-tokenizer.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    data = language_dataset(tokenizer.get_vocab_size(), length)
    plan = ModelPlan(
        name=f"{family}-pico",
        family=family,
        arguments={"vocabulary": data.vocabulary, "length": data.shape[0], **DECODERS[family]},
    )
    model = build(plan)
    initialise(model, scheme, seed)
    return _write(
        folder, name=name, version=version, task="language", model=model, plan=plan, data=data, tokenizer=path
    )


OF_TRANSFORMERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "llama": {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": False,
    },
}  # fmt: skip


def write_bundle_of_transformers(folder: Path, *, kind: str, name: str = "teller", length: int = 48) -> BundleInfo:
    """A language model of transformers with random weights, as a run of ``hf:`` leaves it."""
    import torch
    import transformers

    tokenizer = train_tokenizer(["the cat sat on the mat and the dog sat on the cat"] * 4, vocabulary=280)
    path, config = folder.parent / f"{folder.name}-tokenizer.json", folder.parent / f"{folder.name}-{kind}"
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    data = language_dataset(tokenizer.get_vocab_size(), length)
    sizes = {**OF_TRANSFORMERS[kind], "vocab_size": data.vocabulary}
    transformers.AutoConfig.for_model(kind, **sizes).save_pretrained(config)
    plan = resolve(f"hf:{config}", data)
    model, generator = build(plan).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in model.parameters():
            each.add_(torch.randn(each.shape, generator=generator) * 0.2)
    return _write(folder, name=name, version=1, task="language", model=model, plan=plan, data=data, tokenizer=path)


def write_text_bundle(
    folder: Path,
    *,
    name: str = "critic",
    version: int = 1,
    seed: int = 0,
    family: str = "bert",
    task: str = "classify",
    pairs: bool = False,
    kept: dict[str, int] | None = None,
) -> BundleInfo:
    tokenizer = learn_pieces(["the cat sat on the mat and the dog sat on the cat"] * 4, vocabulary=80)
    path = folder.parent / f"{folder.name}-tokenizer.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    data, answers = text_dataset(tokenizer.get_vocab_size()), {"classes": len(LABELS)}
    if task == "mask":
        # as the tokenizer numbers its marks
        data, answers = data.model_copy(update={"task": task, "labels": (), "marks": (4, 0, 1, 2, 3)}), {}
    if task == "tag":
        data = data.model_copy(update={"task": task})
    sizes = {"layers": 1, "width": 32, "heads": 2, "vocabulary": data.vocabulary, "length": data.shape[0]}
    if pairs:
        data, answers = data.model_copy(update={"separator": 3}), {**answers, "separator": 3}
    plan = ModelPlan(name=f"{family}-pico", family=family, arguments={**sizes, **answers}, kept=kept or {})
    model = build(plan)
    initialise(model, "xavier_normal", seed)
    return _write(folder, name=name, version=version, task=task, model=model, plan=plan, data=data, tokenizer=path)


def write_ngram_bundle(folder: Path, *, name: str = "bag") -> BundleInfo:
    tokenizer = learn_pieces(["the cat sat on the mat and the dog sat on the cat"] * 4, vocabulary=80)
    path = folder.parent / f"{folder.name}-tokenizer.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    data = text_dataset(tokenizer.get_vocab_size())
    plan = resolve("ngrams", data)
    model = build(plan)
    initialise(model, "default", 0)
    return _write(folder, name=name, version=1, task="classify", model=model, plan=plan, data=data, tokenizer=path)


def table_dataset(labels: tuple[str, ...]) -> Dataset:
    """Of a number that may be missing, a category, a boolean and a date; with labels, or with amounts."""
    columns = (
        Column(name="age", kind="number", edges=(17.0, 30.0, 45.0, 90.0), missing=True),
        Column(name="job", kind="category", values=("clerk", "cook")),
        Column(name="member", kind="boolean", values=("false", "true")),
        Column(name="since", kind="date", edges=(1e9, 1.5e9, 1.7e9), format="%Y-%m-%d"),
    )
    amounts = {} if labels else {"mean": 30_000.0, "deviation": 9_000.0}
    table = Table(columns=columns, target="pay", **amounts)
    data = image_dataset().model_copy(
        update={"kind": "table", "task": "classify" if labels else "regress", "labels": labels, "mean": (), "std": ()}
    )
    counts = dict.fromkeys(labels, 1)
    shape = (table.numbers + table.codes,)
    return data.model_copy(
        update={"table": table, "label_counts": counts, "shape": shape, "vocabulary": table.vocabulary}
    )


def write_table_bundle(
    folder: Path, *, labels: tuple[str, ...], name: str = "table", version: int = 1, seed: int = 0
) -> BundleInfo:
    data = table_dataset(labels)
    plan = resolve("table-mlp-small", data)
    model = build(plan)
    initialise(model, "default", seed)
    return _write(folder, name=name, version=version, task=data.task, model=model, plan=plan, data=data, tokenizer=None)


def _write(folder: Path, **what: Any) -> BundleInfo:
    return write_bundle(folder, metrics={"accuracy": 0.5}, isa=("avx2",), bill=Spent(wall_s=1.0), **what)


def export_onnx(bundle: Bundle, folder: Path) -> dict[str, Any]:
    return TARGETS["onnx"](Source(bundle), folder)


def onnx_session(model: Path | str | bytes) -> Any:
    """A session of ONNX Runtime, which is loaded by those who ask for one."""
    import onnxruntime

    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 [H, W, 3] or [H, W, 1], written by hand after the format's specification."""
    height, width, channels = pixels.shape
    kind = {1: 0, 3: 2}[channels]
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data)) for tag, data in parts
    )


def pixels(seed: int, side: int = 16, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)
