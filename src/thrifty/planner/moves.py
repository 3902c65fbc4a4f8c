"""The search space as a list: every way a step can be computed, whether it may change what is learned, and the source.

The effective batch, the token-weighted loss and the learning rate are the job's; no move touches them. A move that may
still change what is learned (rounding, order, overlap of samples) is marked and off unless it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from thrifty.errors import JobError, unknown_name
from thrifty.spec import Device


@dataclass(frozen=True)
class Move:
    """One value of one field.

    Attributes:
        name: to ask for it by (``--allow``), and in tables; empty where the value needs no word.
        field, value: of a plan or a layout.
        does: what it does and at what price, with its source.
        changes_learning: results may differ beyond the rounding of fp32: off unless asked for.
        runs_here: this package's own loop executes it today; a plan for another machine may use the rest.
        runs_elsewhere: plans for clusters have a price for it.
        needs: a precision whose rate the device must list.
        unless: a precision that makes it pointless where the device lists it.
        priced: the cost model has a figure for it; a move without one is never taken, only told of.
    """

    name: str
    field: str
    value: Any
    does: str
    changes_learning: bool = False
    runs_here: bool = False
    runs_elsewhere: bool = True
    needs: str = ""
    unless: str = ""
    priced: bool = True


MOVES: tuple[Move, ...] = (
    Move("fp32", "precision", "fp32", "every product in fp32: the reference", runs_here=True),
    Move(
        "bf16", "precision", "bf16", "products in bf16 over fp32 weights (Kalamkar et al. 2019)",
        runs_here=True, needs="bf16",
    ),
    Move(
        "bf16-weights", "precision", "bf16_weights",
        "weights and states in bf16 alone (Zamirai et al. 2020)", changes_learning=True, needs="bf16",
    ),
    Move(
        "bf16-compensated", "precision", "bf16_compensated",
        "weights held in bf16, and 16 bits beside each that its updates lost in rounding (Kahan's sum; Zamirai et al. "
        "2020)",
        changes_learning=True, runs_here=True, runs_elsewhere=False, needs="bf16",
    ),
    Move(
        "bf16-stochastic", "precision", "bf16_stochastic",
        "weights held in bf16, updates rounded up or down by chance (Gupta et al. 2015; Zamirai et al. 2020)",
        changes_learning=True, runs_here=True, runs_elsewhere=False, needs="bf16",
    ),
    Move(
        "fp16", "precision", "fp16", "products in fp16 with a scaled loss (Micikevicius et al. 2018)",
        runs_here=True, needs="fp16", unless="bf16",
    ),
    Move(
        "fp8", "precision", "fp8", "products in fp8, scaled by tensor (Micikevicius et al. 2022)",
        changes_learning=True, runs_here=True, needs="fp8",
    ),
    Move("no checkpointing", "checkpointing", "none", "every activation is kept for the backward pass", runs_here=True),
    Move(
        "selective checkpointing", "checkpointing", "selective",
        "what is cheap to make is computed again: elsewhere the attention core (Korthikanti et al. 2022), here all but "
        "products and attention",
        runs_here=True,
    ),
    Move("checkpointed", "checkpointing", "full", "each block is computed again (Chen et al. 2016)", runs_here=True),
    Move("states kept", "offload", False, "optimizer states stay beside the weights", runs_here=True),
    Move(
        "offload", "offload", True, "optimizer states lie in host memory and travel each step (Ren et al. 2021)",
        runs_here=True,
    ),
    Move("fp32-states", "state_bytes", 4, "optimizer states in fp32", runs_here=True),
    Move("bf16-states", "state_bytes", 2, "optimizer states in bf16", True),
    Move("8bit-states", "state_bytes", 1, "optimizer states in 8 bits (Dettmers et al. 2022)", True),
    Move("flash attention", "flash", True, "attention in one kernel (Dao et al. 2022)", runs_here=True),
    Move("written-out attention", "flash", False, "attention as two products and a softmax", runs_here=True),
    Move("contiguous", "memory_format", "contiguous", "images as channels of rows", runs_here=True),
    Move("channels-last", "memory_format", "channels_last", "images as rows of pixels", runs_here=True),
    Move("unsharded", "zero", 0, "each data-parallel rank holds weights, gradients and states", runs_here=True),
    Move("ZeRO-1", "zero", 1, "optimizer states are shared out over the ranks (Rajbhandari et al. 2020)"),
    Move("ZeRO-2", "zero", 2, "gradients too"),
    Move("ZeRO-3", "zero", 3, "weights too, gathered where they are needed (FSDP; Zhao et al. 2023)"),
    Move("gradients kept", "gradient_release", False, "a step begins when all gradients are there", runs_here=True),
    Move(
        "gradient release", "gradient_release", True,
        "each parameter is stepped in the backward pass, and its gradient freed (Lv et al. 2023); no clipping",
        runs_here=True, runs_elsewhere=False,
    ),
    Move("eager", "compile", "none", "operators as they are called", runs_here=True, priced=False),
    Move(
        "compiled blocks", "compile", "blocks",
        "torch.compile of each repeated block; when it pays back over the steps there are",
        runs_here=True, priced=False,
    ),
    Move("compiled", "compile", "whole", "torch.compile of the whole model", runs_here=True, priced=False),
    Move("padded", "batching", "padded", "texts of a batch padded to the longest, as they come", runs_here=True),
    Move(
        "packed", "batching", "packed",
        "texts of a batch end to end in one row, as they come; each attends to itself alone (Krell et al. 2021)",
        runs_here=True,
    ),
    Move(
        "by-length", "batching", "by_length",
        "samples of like length together within a window of steps: another order, the same effective batch (Khomenko "
        "et al. 2016)",
        runs_here=True,
    ),
    Move("sampled-dropout", "dropout", "sampled", "torch's own random numbers", runs_here=True),
    Move("bits-dropout", "dropout", "bits", "masks cut out of random words; other masks, same rate", runs_here=True),
    Move("whole images", "progressive", 1.0, "images have all of their pixels all along", runs_here=True, priced=False),
    Move(
        "growing images", "progressive", 0.5,
        "images begin with half of their side and grow (Howard 2018): half of the pixels; taken where it is shown to "
        "learn as well",
        changes_learning=True, runs_here=True, runs_elsewhere=False, priced=False,
    ),
    Move("no-dropout", "dropout", "none", "for runs that see their data about once", True, priced=False),
)  # fmt: skip

# Fields whose values are numbers to divide by: how many devices, samples at once, threads, workers.
DEGREES: dict[str, str] = {
    "data": "copies of the model, each with its share of the batch",
    "tensor": "devices that share each matrix (Shoeybi et al. 2019)",
    "pipeline": "devices that hold consecutive blocks (Huang et al. 2019; Narayanan et al. 2021)",
    "context": "devices that share each sequence (Liu et al. 2023)",
    "expert": "devices that share the experts of a mixture (Lepikhin et al. 2020)",
    "virtual_stages": "chunks of blocks that a pipeline stage holds: less idle time, more messages",
    "micro_batch": "samples computed at once; accumulation makes up the batch",
    "threads": "of the processor's matrix products",
    "workers": "processes that load data",
}

WORDS = {"micro_batch": "micro-batch", "virtual_stages": "chunks"}

_BY_NAME = {move.name: move for move in MOVES}


def values(field: str, device: Device, allowed: Collection[str] = (), *, here: bool = False) -> tuple[Any, ...]:
    """Return the values of a field that a search may try.

    Args:
        field: of the list.
        device: without a rate for a precision it has no moves in it.
        allowed: names of moves that may change what is learned and were asked for.
        here: only what our own loop executes today.
    """
    return tuple(
        move.value
        for move in MOVES
        if move.field == field
        and move.priced
        and (not move.changes_learning or move.name in allowed)
        and (move.runs_here if here else move.runs_elsewhere)
        and _suits(move, device)
    )


def askable(field: str, device: Device) -> tuple[Any, ...]:
    """Return the values of a field that a job may pin here: what our own loop executes and the device can do.

    What its datasheet lists beside what was measured counts.
    """
    rates = device.flops_per_second.keys() | device.datasheet_flops_per_second.keys()
    return tuple(
        move.value
        for move in MOVES
        if move.field == field and move.runs_here and (not move.needs or move.needs in rates)
    )


def name_of(field: str, value: Any) -> str:
    """Return the word of a value; the value itself where the list has none.

    >>> name_of("zero", 3), name_of("tensor", 8)
    ('ZeRO-3', 'tensor 8')
    """
    found = next((move.name for move in MOVES if move.field == field and move.value == value), "")
    return found or f"{WORDS.get(field, field)} {value}"


def off_unless_asked(device: Device, allowed: Collection[str] = ()) -> tuple[Move, ...]:
    """Return the priced moves that the device could do and that wait to be asked for."""
    return tuple(
        move
        for move in MOVES
        if move.changes_learning and move.priced and move.name not in allowed and _suits(move, device)
    )


def _suits(move: Move, device: Device) -> bool:
    rates = device.flops_per_second
    return (not move.needs or move.needs in rates) and (not move.unless or move.unless not in rates)


def check_allowed(names: Collection[str]) -> None:
    """Check the moves that a user allows.

    Raises:
        JobError: there is no such move (the nearest is named), or none that needs allowing, or it has no price yet.
    """
    marked = sorted(move.name for move in MOVES if move.changes_learning and move.priced and move.runs_elsewhere)
    for name in names:
        if name not in _BY_NAME:
            raise unknown_name("move", name, marked)
        move = _BY_NAME[name]
        if not move.priced:
            raise JobError(f"move '{name}' has no price yet: {move.does}", mend=f"Priced: {', '.join(marked)}.")
        if not move.runs_elsewhere:
            raise JobError(
                f"move '{name}' has a price on this machine alone: {move.does}",
                mend=f"Pin it in the job, plan.{move.field}: {move.value}; for clusters: {', '.join(marked)}.",
            )
        if not move.changes_learning:
            raise JobError(f"move '{name}' needs no allowing: it is always tried", mend=f"Marked: {', '.join(marked)}.")
