"""Prepares raw data by ``map`` of Hugging Face's datasets: ``python -m benchmarks.peers.datasets_map TASK``, as JSON.

As its documentation has it (Process, Image, Audio, Tabular): a builder for the files, then ``map`` over all cores, in
batches where the work allows it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from benchmarks.peers.talk import Talk

MEL_BANDS, WINDOW_S, HOP_S = 40, 0.025, 0.010


def images(section: dict[str, Any], processes: int, cache: str) -> float:
    """Decode, cut the middle square, resize; returns how many."""
    size = section["size"]

    def fit(row: dict[str, Any]) -> dict[str, Any]:
        image = row["image"].convert("RGB")
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        square = image.resize((size, size), 4, box=(left, top, left + side, top + side))
        return {"pixels": np.asarray(square)}

    raw = datasets.load_dataset(
        "imagefolder", data_dir=section["path"], drop_labels=False, split="train", cache_dir=cache
    )
    features = datasets.Features(
        {"label": raw.features["label"], "pixels": datasets.Array3D((size, size, 3), dtype="uint8")}
    )
    return len(raw.map(fit, num_proc=processes, remove_columns=["image"], features=features))


def texts(section: dict[str, Any], processes: int, cache: str) -> float:
    """Cut into word pieces; returns the tokens."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(section["tokenizer"], lowercase=True)
    tokenizer.enable_truncation(512)
    files = [str(path) for path in Path(section["path"]).glob("*.tsv")]
    raw = datasets.load_dataset("csv", data_files=files, delimiter="\t", split="train", cache_dir=cache)

    def cut(rows: dict[str, list[str]]) -> dict[str, Any]:
        return {"input_ids": [each.ids for each in tokenizer.encode_batch(rows["text"])]}

    done = raw.map(cut, batched=True, num_proc=processes, remove_columns=["text"]).class_encode_column("label")
    return float(sum(len(each) for each in done.with_format("arrow")["input_ids"].to_pylist()))


def language(section: dict[str, Any], processes: int, cache: str) -> float:
    """Learn pairs of bytes, cut into tokens, join to windows; returns the tokens."""
    from tokenizers import ByteLevelBPETokenizer

    files = sorted(str(path) for path in Path(section["path"]).glob("*.txt"))
    raw = datasets.load_dataset("text", data_files=files, sample_by="document", split="train", cache_dir=cache)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(raw["text"], vocab_size=section["vocabulary"], show_progress=False)
    tokenizer.add_special_tokens(["<end>"])
    end, length = tokenizer.token_to_id("<end>"), 128

    def cut(rows: dict[str, list[str]]) -> dict[str, Any]:
        joined = np.concatenate([[end, *each.ids] for each in tokenizer.encode_batch(rows["text"])])
        whole = len(joined) // length * length
        return {"input_ids": joined[:whole].reshape(-1, length).astype(np.int32)}

    done = raw.map(cut, batched=True, batch_size=4, num_proc=processes, remove_columns=["text"])
    return float(len(done) * length)


def audio(section: dict[str, Any], processes: int, cache: str) -> float:
    """Read and make log-mel frames; returns the hours."""
    import soundfile
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    files = sorted(str(path) for path in Path(section["path"]).glob("*/*.wav"))
    rate = soundfile.info(files[0]).samplerate
    window, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    bank = mel_filter_bank(257, MEL_BANDS, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    shape = window_function(window, "hann")

    def heard(row: dict[str, Any]) -> dict[str, Any]:
        wave, _ = soundfile.read(row["file"], dtype="float32")
        frames = spectrogram(
            wave, shape, frame_length=window, hop_length=hop, fft_length=512, power=2.0, mel_filters=bank,
            log_mel="log",
        )  # fmt: skip
        return {"frames": frames.T.astype(np.float32), "seconds": len(wave) / rate}

    labels = [Path(file).parent.name for file in files]
    raw = datasets.Dataset.from_dict({"file": files, "label": labels})
    done = raw.map(
        heard, num_proc=processes, remove_columns=["file"], cache_file_name=f"{cache}/audio.arrow"
    ).class_encode_column("label")
    return float(sum(done["seconds"]) / 3600)


def table(section: dict[str, Any], processes: int, cache: str) -> float:
    """Number what is named, and make standard scores of numbers; returns the rows."""
    files = [str(path) for path in Path(section["path"]).glob("*.csv")]
    raw = datasets.load_dataset("csv", data_files=files, split="train", cache_dir=cache)
    named = [name for name, feature in raw.features.items() if "string" in feature.dtype]
    numbers = [name for name in raw.column_names if name not in named]
    codes = {name: {value: at for at, value in enumerate(sorted(map(str, raw.unique(name))))} for name in named}
    # a slice: a column by its name is read row by row
    columns = raw.select_columns(numbers).with_format("numpy")[:]
    scales = {name: (float(np.nanmean(each)), float(np.nanstd(each)) or 1.0) for name, each in columns.items()}

    def encode(rows: dict[str, list[Any]]) -> dict[str, Any]:
        coded: dict[str, Any] = {name: [codes[name][str(value)] for value in rows[name]] for name in named}
        for name in numbers:
            mean, deviation = scales[name]
            coded[name] = (np.asarray(rows[name], np.float32) - mean) / deviation
        return coded

    return float(len(raw.map(encode, batched=True, num_proc=processes, features=_coded(named, numbers))))


def _coded(named: list[str], numbers: list[str]) -> datasets.Features:
    whole = {name: datasets.Value("int32") for name in named}
    return datasets.Features(whole | {name: datasets.Value("float32") for name in numbers})


PREPARERS: dict[str, Callable[[dict[str, Any], int, str], float]] = {
    "image": images,
    "text": texts,
    "language": language,
    "audio": audio,
    "table": table,
}


def main() -> None:
    """Prepare what the task says, and say when that began and ended."""
    task = json.loads(sys.argv[1])
    datasets.disable_progress_bars()
    talk = Talk()
    with tempfile.TemporaryDirectory() as cache:
        talk.say("ready")
        count = PREPARERS[task["section"]["kind"]](task["section"], task["processes"], cache)
        talk.done(count=count)


if __name__ == "__main__":
    main()
