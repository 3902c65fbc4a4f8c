"""What a job's data is made of: its files, their contents' hashes, and the key that follows from them."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import cv2
import tokenizers

from thrifty.data.choose import choose
from thrifty.data.fingerprint import fingerprint
from thrifty.data.inputs import CANNOT_BE_READ, InputFile, Reject
from thrifty.data.manifest import Manifest
from thrifty.data.unchanged import changed, gone
from thrifty.data.unpacked import unpacked
from thrifty.errors import DataError, nearest
from thrifty.spec import AudioData, LanguageData, RawData, TextData
from thrifty.spec.units import format_bytes

KEY_LENGTH = 20
MAX_TOKENIZER_BYTES = 64 * 2**20
_TOKENIZERS = {
    "audio": "the vocab.json of a checkpoint",
    "language": "a tokenizer.json",
    "text": "a vocab.txt or a tokenizer.json",
}


@dataclass(frozen=True)
class Inventory:
    """The files of a data folder.

    Attributes:
        key: content key.
        files: those worth reading, sorted by name.
        hashes: sha256 of each of them, by name.
        rejects: those put aside without reading.
        tokenizer: content of the file that a job of texts, language or transcripts names.
        manifest: what a table says of images or recordings, where there is one; it is none of the files.
    """

    key: str
    files: tuple[InputFile, ...]
    hashes: dict[str, str]
    rejects: tuple[Reject, ...]
    tokenizer: bytes = b""
    manifest: Manifest | None = None


def take_inventory(data: RawData, *, seed: int, cache: Path) -> Inventory:
    """List the data's files and hash what has changed since the last time.

    The key covers the data section without its paths, the seed, name and content of each file, the code of this
    package and the versions of the libraries that decode, resize, tokenize and read tables.

    Raises:
        DataError: the folder is missing or holds nothing of the kind.
    """
    chosen = choose(data)
    files, rejects, manifest = chosen.files, list(chosen.rejects), chosen.manifest
    hashes = fingerprint(data.path, files, cache)
    rejects += [Reject(file.name, CANNOT_BE_READ, _why_not(file)) for file in files if not hashes[file.name]]
    files = [file for file in files if hashes[file.name]]
    rejects.sort(key=lambda reject: reject.name)
    tokenizer = _tokenizer_of(data)

    digest = hashlib.sha256()
    for part in (
        _without_paths(data).model_dump_json(),
        hashlib.sha256(tokenizer).hexdigest(),
        str(seed),
        _code_hash(),
        *(f"{library.__name__} {library.__version__}" for library in (cv2, tokenizers)),
        f"polars {version('polars')}",
        *(f"{file.name}\0{hashes[file.name]}" for file in files),
        *(f"{reject.name}\0{reject.reason}{reject.detail}" for reject in rejects),
        *(
            f"{name}\0{each.label}\0{each.split}\0{each.key}"
            for name, each in sorted((manifest.named if manifest else {}).items())
        ),
    ):
        # each part is closed by its length, so that no two lists of parts run together to the same bytes
        encoded = part.encode()
        digest.update(encoded + len(encoded).to_bytes(8, "little"))
    return Inventory(digest.hexdigest()[:KEY_LENGTH], tuple(files), hashes, tuple(rejects), tokenizer, manifest)


def _why_not(file: InputFile) -> str:
    """What the system says of a file that could not be read."""
    try:
        with Path(file.path).open("rb") as stream:
            stream.read(1)
    except OSError as error:
        return f": {error.strerror}"
    return ""


def opened(data: RawData, cache: Path) -> RawData:
    """Return what is asked of the data where its files lie: those of an archive where it was unpacked.

    Raises:
        DataError: an archive cannot be unpacked.
        StorageError: there is no room for it.
    """
    found: RawData = data.model_copy(update={"path": unpacked(data.path, cache)})
    return found


def _without_paths(data: RawData) -> RawData:
    """What is asked of the data, wherever it and its tokenizer lie."""
    bare: RawData = data.model_copy(update={"path": Path()})
    if isinstance(bare, LanguageData):
        # what is decided as batches are made
        return bare.model_copy(update={"documents": None, "tokenizer": None})
    return bare.model_copy(update={"tokenizer": None}) if isinstance(bare, AudioData | TextData) else bare


def _tokenizer_of(data: RawData) -> bytes:
    if not isinstance(data, AudioData | LanguageData | TextData) or data.tokenizer is None:
        return b""
    path = data.tokenizer
    if not path.is_file():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f"there is no tokenizer file '{path}'",
            nearest=nearest(path.name, beside),
            mend=f"Set data.tokenizer to {_TOKENIZERS[data.kind]}, or leave it out.",
        )
    if path.stat().st_size > MAX_TOKENIZER_BYTES:
        limit = format_bytes(MAX_TOKENIZER_BYTES)
        raise DataError(f"tokenizer '{path}' has {path.stat().st_size:,} bytes, over the limit of {limit}")
    return path.read_bytes()


def content_key(data: RawData, *, seed: int, cache: Path) -> str:
    """Return the key of the store that this data would be prepared into; reads only files that have changed.

    The same content under another path, or on another machine, has the same key.

    Raises:
        DataError: the folder is missing or holds nothing of the kind.
    """
    return take_inventory(opened(data, cache), seed=seed, cache=cache).key


def read_unchanged(file: InputFile, sha256: str) -> bytes:
    """Read a file whose hash is known.

    Raises:
        DataError: it has changed since it was hashed, or is gone.
    """
    try:
        raw = Path(file.path).read_bytes()
    except OSError as error:
        raise gone(file.name, error) from error
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise changed(file.name)
    return raw


@functools.cache
def _code_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
