"""Holes in what PyTorch's CUDA allocator holds: Transformer steps replayed through `thrifty.cost.cuda_allocator`.

    python -m benchmarks.memory_slack [--rows]

Steps are written here op by op, apart from the closed form. Holes beyond what is alive, that cannot be given back when
memory is tight, are fitted as ``share x comes and goes + mixing x min(loss, block)``: loss and block are what these two
moments need beside activations, whose large tensors cannot fill each other's segments. The constants ``HOLES`` of
`thrifty.cost.device_overhead` are what this prints.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from thrifty.cost.cuda_allocator import replay


@dataclass
class Tape:
    """Allocations and frees in their order."""

    events: list[tuple[int, int]] = field(default_factory=list)
    last: int = 0

    def new(self, size: float) -> int:
        """Allocate ``size`` bytes; return the block's id."""
        self.last += 1
        self.events.append((self.last, max(1, int(size))))
        return self.last

    def free(self, *blocks: int) -> None:
        """Free blocks."""
        self.events.extend((block, 0) for block in blocks)


@dataclass(frozen=True)
class Step:
    """Sizes of one device's step: a stage of a GPT in 2-byte numbers.

    Attributes:
        layers, hidden, heads, length, micro, tensor: as in `TransformerShape` and `Layout`.
        in_flight: micro-batches alive at once; 1 without a pipeline.
        batches: micro-batches of the step.
        full: activation checkpointing of each block.
        flash: scores are never written.
        vocabulary: rows of the logits on this device; 0 without.
        state_bytes: of a parameter's master copy and moments, sharing applied.
    """

    layers: int
    hidden: int
    heads: int
    length: int
    micro: int
    tensor: int
    in_flight: int
    batches: int
    full: bool
    flash: bool
    vocabulary: int
    state_bytes: float

    @property
    def name(self) -> str:
        """Shown in the table."""
        kind = "full" if self.full else "kept"
        return f"{self.layers}x{self.hidden} b{self.micro} t{self.tensor} in flight {self.in_flight} {kind}"


def _block_forward(tape: Tape, step: Step) -> tuple[list[int], int]:
    """Forward of one block: ids of what its backward needs, and of its output."""
    row = step.length * step.micro * step.hidden * 2
    cut = row / step.tensor
    score = 0 if step.flash else step.heads / step.tensor * step.length**2 * step.micro
    saved = [tape.new(row)]  # first norm
    qkv = tape.new(3 * cut)
    heads = [tape.new(cut) for _ in range(3)]
    tape.free(qkv)
    saved += heads
    if score:
        raw = tape.new(2 * score)
        soft = tape.new(2 * score)
        tape.free(raw)
        saved += [soft, tape.new(2 * score), tape.new(score)]
    saved.append(tape.new(cut))  # context
    out = tape.new(row)
    dropped, mask = tape.new(row), tape.new(row / 2)
    tape.free(out)
    middle = tape.new(row)
    tape.free(dropped)
    saved += [mask, middle, tape.new(row)]  # residual, second norm
    saved += [tape.new(4 * cut), tape.new(4 * cut)]  # up projection, its activation
    down = tape.new(row)
    dropped, mask = tape.new(row), tape.new(row / 2)
    tape.free(down)
    saved.append(mask)
    output = tape.new(row)
    tape.free(dropped)
    return saved, output


def _block_backward(tape: Tape, step: Step, saved: list[int], gradient: int, weights: list[int]) -> int:
    """Backward of one block: frees what was saved, adds weight gradients; returns the gradient of its input."""
    row = step.length * step.micro * step.hidden * 2
    square = step.hidden**2 * 2 / step.tensor
    upper = tape.new(4 * row / step.tensor)
    first = tape.new(4 * square)
    tape.free(first)
    inner = tape.new(4 * row / step.tensor)
    tape.free(upper, saved.pop(), saved.pop())
    first = tape.new(4 * square)
    tape.free(first)
    below = tape.new(row)
    tape.free(inner, saved.pop(), saved.pop())
    middle = tape.new(row)
    tape.free(below)
    context = tape.new(row / step.tensor)
    tape.free(saved.pop(), saved.pop())
    if not step.flash:
        score = step.heads / step.tensor * step.length**2 * step.micro
        probable = tape.new(2 * score)
        raw = tape.new(2 * score)
        tape.free(probable)
        tape.free(raw)
    qkv = tape.new(3 * row / step.tensor)
    tape.free(context)
    while len(saved) > 1:
        tape.free(saved.pop())
    first = tape.new(3 * square)
    tape.free(first)
    entering = tape.new(row)
    tape.free(qkv, saved.pop(), middle, gradient)
    del weights
    return entering


def events(step: Step, steps: int = 2) -> Iterator[tuple[int, int]]:
    """Allocations of ``steps`` optimizer steps, states first."""
    tape = Tape()
    row = step.length * step.micro * step.hidden * 2
    block = 12 * step.hidden**2 / step.tensor
    for _ in range(step.layers):
        for part in (3, 1, 4, 4):
            tape.new(2 * part * block / 12)
    tape.new(step.layers * block * step.state_bytes)
    gradients: list[int] = []
    for _ in range(steps):
        tape.free(*gradients)
        gradients = []
        flying: list[tuple[list[tuple[list[int], int]], int]] = []
        done = 0
        for batch in range(step.batches):
            entry = tape.new(row)
            kept: list[tuple[list[int], int]] = []
            for _ in range(step.layers):
                saved, output = _block_forward(tape, step)
                if step.full:
                    tape.free(*saved)
                    saved = []
                kept.append((saved, output))
            flying.append((kept, entry))
            while len(flying) >= step.in_flight or (batch == step.batches - 1 and flying):
                kept, entry = flying.pop(0)
                if step.vocabulary:
                    logits = tape.new(2 * step.length * step.micro * step.vocabulary)
                    wide = tape.new(4 * step.length * step.micro * step.vocabulary)
                    narrow = tape.new(2 * step.length * step.micro * step.vocabulary)
                    tape.free(wide, logits)
                    gradient = tape.new(row)
                    tape.free(narrow)
                else:
                    gradient = tape.new(row)
                while kept:
                    saved, output = kept.pop()
                    if step.full:
                        saved, again = _block_forward(tape, step)
                        tape.free(again)
                    gradient = _block_backward(tape, step, saved, gradient, gradients)
                    tape.free(output)
                    if done == 0:
                        gradients += [tape.new(2 * part * block / 12) for part in (3, 1, 4, 4)]
                tape.free(gradient, entry)
                done += 1
    return iter(tape.events)


@dataclass(frozen=True)
class Holes:
    """What a replay shows, in bytes: ``comes`` and goes, ``mixed`` as above, ``held`` and ``stuck`` holes."""

    comes: float
    mixed: float
    held: float
    stuck: float


def holes(step: Step) -> Holes:
    """Replay a step, then again with ever less memory, until it no longer fits."""
    tape = list(events(step))
    peak = replay(tape)
    square = step.hidden**2 / step.tensor
    comes = peak.allocated - step.layers * 12 * square * (4 + step.state_bytes)
    enough, short = peak.reserved, peak.allocated - (2 << 20)
    while enough - short > comes / 200:
        middle = (enough + short) // 2
        fits = replay(tape, capacity_bytes=middle).out_of_memory_event is None
        enough, short = (middle, short) if fits else (enough, middle)
    row = step.length * step.micro * step.hidden * 2
    cut, score = row / step.tensor, 0 if step.flash else step.heads / step.tensor * step.length**2 * step.micro
    block = (5 * row + 12 * cut + 5 * score if step.full else 0) + max(8 * cut, 4 * score) + 2 * row + 8 * square
    loss = 8 * step.length * step.micro * step.vocabulary
    return Holes(comes, min(block, loss), peak.reserved - peak.allocated, enough - peak.allocated)


def grid() -> list[Step]:
    """Steps of one device with and without a head, and of pipeline stages."""
    whole = itertools.product(
        ((24, 2048, 16, 2048), (24, 1024, 16, 1024), (16, 4096, 32, 2048), (12, 768, 12, 1024)),
        (1, 2, 8), (True, False), (True, False), (0, 50304, 128256),
    )  # fmt: skip
    stages = itertools.product(
        ((6, 14336, 8, 12), (12, 14336, 8, 6), (18, 12288, 4, 4), (10, 8192, 2, 4)), (1, 2, 4), (True, False)
    )
    return [
        Step(layers, hidden, heads, length, micro, 1, 1, 3, full, flash, vocabulary, 1.5)
        for (layers, hidden, heads, length), micro, full, flash, vocabulary in whole
    ] + [
        Step(layers, hidden, 64, 2048, micro, tensor, flying, flying + 4, True, flash, 0, 1.0)
        for (layers, hidden, tensor, flying), micro, flash in stages
    ]


def main() -> None:
    """Print the fit and its residuals' fifth and ninety-fifth percentiles, as shares of what comes and goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", action="store_true", help="print every step")
    asked = parser.parse_args()
    steps = grid()
    shown = [holes(step) for step in steps]
    if asked.rows:
        for step, each in zip(steps, shown, strict=True):
            held, stuck, mixed = (part / each.comes for part in (each.held, each.stuck, each.mixed))
            print(f"{step.name:45} {each.comes / 2**30:6.2f} GiB: mixed {mixed:.3f} held {held:.3f} stuck {stuck:.3f}")
    for name, full in (("full", True), ("kept", False)):
        these = [each for step, each in zip(steps, shown, strict=True) if step.full == full]
        share = np.array([each.stuck / each.comes for each in these])
        terms = np.stack([np.ones(len(these)), np.array([each.mixed / each.comes for each in these])], axis=1)
        fit = np.linalg.lstsq(terms, share, rcond=None)[0]
        least, most = np.quantile(share - terms @ fit, (0.05, 0.95))
        print(f"holes_{name}_share={fit[0]:.3f}\nholes_{name}_mixing={fit[1]:.3f}")
        print(f"holes_{name}_residual_least={least:.3f}\nholes_{name}_residual_most={most:.3f}")


if __name__ == "__main__":
    main()
