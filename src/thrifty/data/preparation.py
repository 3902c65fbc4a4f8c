"""Prepare data: from raw files to a store, once for each content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from thrifty.data.documents.prepare import prepare_documents
from thrifty.data.draft import drafting, remove_leftovers, remove_store
from thrifty.data.images.prepare import prepare_images
from thrifty.data.inventory import Inventory, opened, take_inventory
from thrifty.data.sounds.prepare import prepare_audio
from thrifty.data.store import Store, open_store, prepared_folder
from thrifty.data.tables.prepare import prepare_tables
from thrifty.data.texts.prepare import prepare_texts
from thrifty.data.unpacked import told_of
from thrifty.errors import DataError
from thrifty.spec import KINDS, Dataset, KindName, RawData
from thrifty.spec.events import Emit, Warned

# bytes of the largest block that glibc follows, DEFAULT_MMAP_THRESHOLD_MAX, less what it adds to it
_LARGEST_FOLLOWED = (32 << 20) - (64 << 10)

# Each writes the arrays of its kind into a draft and returns what they hold.
PREPARERS: dict[KindName, Callable[..., Dataset]] = {
    "audio": prepare_audio,
    "image": prepare_images,
    "language": prepare_documents,
    "table": prepare_tables,
    "text": prepare_texts,
}


def prepare(data: RawData, *, seed: int, cache: Path, emit: Emit, strict: bool = False) -> Store:
    """Clean, split and lay out data for training; return the store made before where nothing has changed.

    A kill at any instant leaves no half store, and two processes may prepare the same data at once. The same data,
    seed and code give the same bytes.

    Args:
        data: section ``data`` of the job, its path resolved.
        seed: of the split.
        cache: folder under which stores lie.
        emit: is told of progress, of rejects, and of a damaged store that is made anew.
        strict: data of which anything is not used is an error; the store stays, with the list of what is not.

    Raises:
        DataError: the data cannot be read or cannot be learned from; or, where ``strict``, is not clean.
        StorageError: the cache has no room or cannot be written.
    """
    cache, given = Path(cache), data.path
    data = opened(data, cache)
    with told_of(given, data.path):
        inventory = take_inventory(data, seed=seed, cache=cache)
        remove_leftovers(prepared_folder(cache))
        store = open_store(cache, inventory.key)
        if store is None:
            store = _made(data, inventory, seed=seed, cache=cache, emit=emit)
            if not strict:
                _warn_of_rejects(store, emit)
    if strict and store.dataset.cleaning.rejected:
        raise DataError(
            f"'{given}' is not clean: {_put_aside(store)}",
            mend="Mend or remove them, or run without --strict, which leaves them out.",
        )
    return store


def _made(data: RawData, inventory: Inventory, *, seed: int, cache: Path, emit: Emit) -> Store:
    if remove_store(cache, inventory.key):
        emit(Warned(f"prepared data in '{prepared_folder(cache) / inventory.key}' was damaged and is made anew"))
    _keep_freed()
    with drafting(cache, inventory.key) as draft:
        dataset = PREPARERS[data.kind](data, inventory, seed=seed, draft=draft, emit=emit)
        return draft.publish(dataset)


def _keep_freed() -> None:
    """Have glibc keep the memory of a file that is done with for the next one, in place of giving it back each time.

    What it maps apart, and when it gives back, follow the largest block that was freed (man mallopt, M_MMAP_THRESHOLD):
    up to twice as much stays. Without torch, whose loading frees large blocks, decoding photographs took 1.4 times as
    long, a third of it in clearing pages anew.
    """
    block = bytearray(_LARGEST_FOLLOWED)
    del block


def _warn_of_rejects(store: Store, emit: Emit) -> None:
    rejected = store.dataset.cleaning.rejected
    if rejected:
        emit(Warned(_put_aside(store), {reason: str(number) for reason, number in rejected.items()}))


def _put_aside(store: Store) -> str:
    cleaning, unit = store.dataset.cleaning, KINDS[store.dataset.kind].cleaned
    count = sum(cleaning.rejected.values())
    return f"{count:,} of {cleaning.seen:,} {unit} are not used; each is named in '{store.folder}/rejects.jsonl'"
