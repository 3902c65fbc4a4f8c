"""Prepare data: from raw files to a store, once for each content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from thrifty.data.documents import prepare_documents
from thrifty.data.draft import drafting, remove_leftovers, remove_store
from thrifty.data.images import prepare_images
from thrifty.data.inventory import opened, take_inventory
from thrifty.data.store import Store, open_store, prepared_folder
from thrifty.data.texts import prepare_texts
from thrifty.spec import KINDS, Dataset, KindName, RawData
from thrifty.spec.events import Emit, Warned

# Each writes the arrays of its kind into a draft and returns what they hold.
PREPARERS: dict[KindName, Callable[..., Dataset]] = {
    "image": prepare_images,
    "language": prepare_documents,
    "text": prepare_texts,
}


def prepare(data: RawData, *, seed: int, cache: Path, emit: Emit) -> Store:
    """Clean, split and lay out data for training; return the store made before where nothing has changed.

    A kill at any instant leaves no half store, and two processes may prepare the same data at once. The same data,
    seed and code give the same bytes.

    Args:
        data: section ``data`` of the job, its path resolved.
        seed: of the split.
        cache: folder under which stores lie.
        emit: is told of progress, of rejects, and of a damaged store that is made anew.

    Raises:
        DataError: the data cannot be read or cannot be learned from.
        StorageError: the cache has no room or cannot be written.
    """
    cache = Path(cache)
    data = opened(data, cache)
    inventory = take_inventory(data, seed=seed, cache=cache)
    remove_leftovers(prepared_folder(cache))
    store = open_store(cache, inventory.key)
    if store is not None:
        return store
    if remove_store(cache, inventory.key):
        emit(Warned(f"prepared data in '{prepared_folder(cache) / inventory.key}' was damaged and is made anew"))
    with drafting(cache, inventory.key) as draft:
        dataset = PREPARERS[data.kind](data, inventory, seed=seed, draft=draft, emit=emit)
        store = draft.publish(dataset)
    _warn_of_rejects(dataset, store, emit)
    return store


def _warn_of_rejects(dataset: Dataset, store: Store, emit: Emit) -> None:
    cleaning = dataset.cleaning
    if cleaning.rejected:
        count = sum(cleaning.rejected.values())
        unit = KINDS[dataset.kind].cleaned
        emit(
            Warned(
                f"{count:,} of {cleaning.seen:,} {unit} are not used; each is named in '{store.folder}/rejects.jsonl'",
                {reason: str(number) for reason, number in cleaning.rejected.items()},
            )
        )
