"""Raw files to batches: `prepare` makes a `Store` once for each content, `Batches` and `sweep` read it.

A data set is a folder; a store is a folder of memory-mapped arrays with a report of its cleaning. Loads no torch.
"""

from thrifty.data.batches import Batch, Batches, sweep, sweep_order
from thrifty.data.inventory import content_key
from thrifty.data.look import Look, look
from thrifty.data.preparation import prepare
from thrifty.data.steps_ahead import STEPS_AHEAD, Ahead
from thrifty.data.store import Store, open_store

__all__ = [
    "STEPS_AHEAD",
    "Ahead",
    "Batch",
    "Batches",
    "Look",
    "Store",
    "content_key",
    "look",
    "open_store",
    "prepare",
    "sweep",
    "sweep_order",
]
