"""What memory a step asks for and gives back, in order, and what is alive at each instant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Role = Literal["working", "gradient", "state"]


@dataclass
class Block:
    """One block of memory that the step asked for.

    Attributes:
        bytes: its size.
        op: index of the operator that asked for it; that of the next one where an allocation is no operator.
        kept: the backward pass needs it.
        role: ``gradient`` or ``state`` (of the optimizer) once it is known to be one, else ``working``.
    """

    bytes: int
    op: int
    kept: bool = False
    role: Role = "working"

    @property
    def holds(self) -> str:
        """What it holds, as bills name it: ``activations``, ``gradients``, ``optimizer states`` or ``temporaries``."""
        if self.role == "working":
            return "activations" if self.kept else "temporaries"
        return {"gradient": "gradients", "state": "optimizer states"}[self.role]


@dataclass(frozen=True)
class Allocations:
    """Blocks, and the order in which they come and go.

    Attributes:
        blocks: every block, by number.
        events: of each a block's number and the index of the operator that runs; where the block is freed, the index
            negated and less one.
    """

    blocks: tuple[Block, ...]
    events: tuple[tuple[int, int], ...]

    def peak_bytes(self, counted: Callable[[Block], bool] = lambda block: True) -> int:
        """The most that lives at once of the blocks that count, replayed in order."""
        live = peak = 0
        for number, op in self.events:
            block = self.blocks[number]
            if counted(block):
                live += block.bytes if op >= 0 else -block.bytes
                peak = max(peak, live)
        return peak

    def kept_bytes(self) -> int:
        """Bytes of the blocks that the backward pass needs, each once."""
        return sum(block.bytes for block in self.blocks if block.kept and block.role == "working")

    def bytes_of(self, role: Role) -> int:
        """Bytes of all blocks of a role."""
        return sum(block.bytes for block in self.blocks if block.role == role)
