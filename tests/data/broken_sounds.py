"""Rows of the table of broken inputs: recordings."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from broken_rows import Broken, Fill, fifo, files, link, put
from made_sounds import encoded, tone, write_folders, write_strings

GOOD = encoded(tone("low", 77))


def tones(at: Path) -> None:
    at.rmdir()
    write_folders(at, 4)


def floats(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format="WAV", subtype="FLOAT")
    return file.getvalue()


def odd(name: str, content: bytes, says: str, **asked: Any) -> Broken:
    """A file beside eight good ones."""
    fill = files(tones, put(f"low/{name}", content))
    return Broken("audio", f"{name}", fill, offered=9, rejects={f"low/{name}": says}, asked=asked)


def said(*fills: Fill) -> Fill:
    def strings(at: Path) -> None:
        at.rmdir()
        write_strings(at, {"train": 12, "validation": 3, "test": 3})

    return files(strings, *fills)


def row(line: str) -> Fill:
    def fill(at: Path) -> None:
        with (at / "said.csv").open("a") as file:
            file.write(line)

    return fill


SOUND = tone("low", 5).astype(np.float64)
SAID = {"transcript": "transcript", "tokens": "characters"}

SOUNDS = [
    odd("none.wav", b"", "empty"),
    odd("zero.wav", encoded(np.zeros(0)), "no samples: it has a header and nothing else"),
    odd("text.wav", b"no sound at all", "not a sound: format not recognised"),
    odd("text.mp3", b"no sound at all", "not a sound: format not recognised"),
    odd("cut.wav", GOOD[:-999], "truncated: 2,201 bytes of sound where its header says 3,200"),
    odd("head.wav", GOOD[:30], "truncated: the WAV has no sound in it"),
    odd("cut.flac", encoded(tone("low", 8), form="FLAC")[:-600], "not a sound: flac decoder lost sync"),
    odd(
        "lies.wav",
        GOOD[:40] + struct.pack("<I", 1 << 30) + GOOD[44:],
        "truncated: 3,200 bytes of sound where its header says 1,073,741,824",
    ),
    odd(
        "nan.wav", floats(np.where(np.arange(len(SOUND)) == 7, np.nan, SOUND)), "not numbers: it holds NaN or infinity"
    ),
    odd(
        "infinite.wav",
        floats(np.where(np.arange(len(SOUND)) == 7, np.inf, SOUND)),
        "not numbers: it holds NaN or infinity",
    ),
    odd("loud.wav", floats(SOUND * 30_000), "out of scale: samples up to 1.21e+04 where full scale is 1"),
    odd("silent.wav", encoded(np.zeros(4000)), "silent: every sample is the same"),
    odd("short.wav", encoded(tone("low", 1, 0.01)), "too short: 0.010 s is under 0.02 s"),
    odd("long.wav", encoded(tone("low", 1, 2.0)), "too long: 2.0 s is over 1.5 s", max_seconds=1.5),
    odd(
        "slow.wav",
        encoded(tone("low", 1, rate=2000), 2000),
        "odd rate: 2,000 samples a second, 4,000 to 384,000 are read",
    ),
    odd("wide.wav", encoded(np.stack([tone("low", 1)] * 17, 1)), "too many channels: 17, and 16 are read"),
    odd(
        "large.wav",
        encoded(tone("low", 1, 1.0)),
        "too large: 15.7 KiB, over the limit of 8.8 KiB",
        max_file_bytes="9kB",
    ),
    odd("notes.txt", b"by ear", "not a sound file"),
    Broken(
        "audio",
        "beside the class folders",
        files(tones, put("loose.wav", GOOD)),
        offered=9,
        rejects={"loose.wav": "not in a class folder"},
    ),
    Broken(
        "audio",
        "link that leaves",
        files(tones, link("low/link.wav", "../../outside")),
        offered=9,
        rejects={"low/link.wav": "link that leaves the folder"},
    ),
    Broken(
        "audio", "pipe", files(tones, fifo("low/pipe.wav")), offered=9, rejects={"low/pipe.wav": "not a regular file"}
    ),
    Broken(
        "audio",
        "may not be read",
        files(tones, put("low/x.wav", GOOD)),
        offered=9,
        unreadable=("low/x.wav",),
        rejects={"low/x.wav": "cannot be read: Permission denied"},
    ),
    Broken(
        "audio",
        "the same twice",
        files(tones, put("low/x.wav", GOOD), put("low/y.wav", GOOD)),
        offered=10,
        rejects={"low/x.wav": "duplicate across splits: low/y.wav"},
    ),
    Broken(
        "audio",
        "the same under two labels",
        files(tones, put("low/x.wav", GOOD), put("high/x.wav", GOOD)),
        offered=10,
        rejects={
            "high/x.wav": "same recording under labels high and low",
            "low/x.wav": "same recording under labels high and low",
        },
    ),
    Broken(
        "audio",
        "changes meanwhile",
        tones,
        after=put("low/002.wav", GOOD),
        says=(
            "'low/002.wav' changed while the data was being prepared. Wait until nothing writes "
            "to the data folder, then run again."
        ),
    ),
    Broken(
        "audio",
        "no recordings",
        put("a/notes.txt", "by ear"),
        says=(
            "'{at}' holds no recordings (1 other files in it). Recordings end in .aif, .aiff, "
            ".au, .flac, .mp3, .ogg, .opus, .wav."
        ),
    ),
    Broken(
        "audio",
        "one class",
        lambda at: (at.rmdir(), write_folders(at, 4, ["low"])),
        says=(
            "'{at}' has one class only, 'low': there is nothing to tell apart. Recordings lie in "
            "one folder per class: data/cat/1.wav, data/dog/2.wav."
        ),
    ),
    Broken(
        "audio",
        "none that can be read",
        files(put("a/1.wav", b"noise"), put("b/1.wav", b"")),
        says=("no recording in '{at}' can be read (1 empty, 1 not a sound). They are WAV, FLAC, OGG, MP3, AIFF or AU."),
    ),
    Broken(
        "audio",
        "a label in the test split alone",
        files(
            *(
                put(f"{part}/{label}/{n}.wav", encoded(tone(label, 10 * len(part) + n)))
                for part in ("train", "val", "testing")
                for label in ("low", "high")
                for n in range(2)
            ),
            put("testing/mid/1.wav", GOOD),
        ),
        offered=13,
        rejects={"testing/mid/1.wav": "label not in the training split: mid"},
    ),
    Broken(
        "audio",
        "names that the pattern does not fit",
        tones,
        asked={"names": "{label}_{take}"},
        says=(
            "no recording in '{at}' is named like '{label}_{take}'; one is 'high/000.wav'. Set "
            "data.names to how they are named, without the suffix."
        ),
    ),
    Broken(
        "audio",
        "one name that the pattern does not fit",
        files(
            *(put(f"{n}_{i}.wav", encoded(tone(n, i))) for n in ("low", "high") for i in range(4)), put("odd.wav", GOOD)
        ),
        offered=9,
        asked={"names": "{label}_{take}"},
        rejects={"odd.wav": "not named as data.names says"},
    ),
    Broken(
        "audio",
        "table: no such column",
        said(),
        asked={"transcript": "trancript"},
        says=(
            "'said.csv' has no column 'trancript', which the job names. Did you mean "
            "'transcript'? Columns: file, transcript, split."
        ),
    ),
    Broken(
        "audio",
        "table: rows that say nothing",
        said(row("gone.flac,low,test\n"), row("test0.flac,,test\n"), row("test1.flac,low,tomorrow\n")),
        offered=21,
        asked=SAID,
        rejects={
            "said.csv:20": "names no recording: 'gone.flac'",
            "said.csv:21": "empty label: of 'test0.flac'",
            "said.csv:22": "names no split: 'tomorrow'",
        },
    ),
    Broken(
        "audio",
        "table: named twice",
        said(row("train0.flac,low,train\n")),
        offered=20,
        asked=SAID,
        rejects={
            "said.csv:2": "same recording under labels Low Low High and low",
            "said.csv:20": "same recording under labels Low Low High and low",
            "train0.flac": "named by no usable row",
        },
    ),
    Broken(
        "audio",
        "table: ragged rows",
        said(row("train0.flac,low\n")),
        offered=19,
        asked=SAID,
        rejects={"said.csv:20": "ragged row: 2 cells, 3 are usual"},
    ),
    Broken(
        "audio",
        "table: a character that training lacks",
        said(put("x.flac", encoded(tone("low", 9), form="FLAC")), row("x.flac,low?,test\n")),
        offered=19,
        asked=SAID,
        rejects={"x.flac": "character not in the training split: '?'"},
    ),
    Broken(
        "audio",
        "table: too short for what is said",
        said(put("x.flac", encoded(tone("low", 9), form="FLAC")), row(f"x.flac,{'low ' * 30},train\n")),
        offered=19,
        asked=SAID,
        rejects={"x.flac": "too short for its transcript: 119 characters in 0.20 s"},
    ),
]
