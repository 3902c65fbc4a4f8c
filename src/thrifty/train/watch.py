"""Resident memory, watched while a model computes: what would pass a limit is broken off before it does.

On a CPU nothing is raised when memory runs out: the process is ended. So this is asked of the kernel before each layer
and after each gradient. A pass over a micro-batch is not begun where, by the line through what smaller ones needed, it
would pass the limit; and where memory rises higher than it ever was, the coming layer must find as much as it took the
last time, for its share of samples.

Memory is what the kernel counts as resident, files that are mapped into memory included, for the whole process.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from thrifty.hardware.pages import trim
from thrifty.spec.units import format_bytes

STATM = "/proc/self/statm"
# what is left free below a limit: the kernel counts in batches, and small things are not asked about
SLACK_BYTES, SLACK_SHARE = 16 << 20, 0.02
# share of the limit from which each layer is asked about
NEAR = 0.7
POLL_SECONDS = 5e-4


def can_watch() -> bool:
    """Whether this system tells what is resident, as Linux does."""
    return Path(STATM).exists()


class NoRoom(Exception):  # noqa: N818 - a signal, not an error
    """What comes next would pass the limit; nothing of it was done."""

    def __init__(self, resident: float, coming: float, limit: float) -> None:
        super().__init__(
            f"{format_bytes(resident)} are resident and {format_bytes(coming)} more would be, of {format_bytes(limit)}"
        )


@dataclass
class Need:
    """Bytes that a pass needs above what lies in memory between steps, by the size of its micro-batch.

    Attributes:
        fixed: of them that are known not to grow with the size.
        points: the last two sizes that were seen, the smaller first, and what they needed.

    >>> need = Need(fixed=10)
    >>> need.note(2, 30)
    >>> need.at(4), need.note(4, 60), need.at(8)
    (50.0, None, 120.0)
    """

    fixed: float = 0.0
    points: list[tuple[int, float]] = field(default_factory=list)

    def note(self, size: int, needed: float) -> None:
        """Take note of what a size needed; of a size that was seen the most counts, smaller ones tell nothing new."""
        if self.points and size == self.points[-1][0]:
            self.points[-1] = (size, max(needed, self.points[-1][1]))
        elif not self.points or size > self.points[-1][0]:
            self.points = [*self.points[-1:], (size, needed)]

    def at(self, size: int) -> float:
        """What a size will need; 0 before any was seen."""
        if not self.points:
            return 0.0
        least, fewest = self.points[0] if len(self.points) > 1 else (0, min(self.fixed, self.points[0][1]))
        most, needed = self.points[-1]
        return max(0.0, needed + max(0.0, (needed - fewest) / (most - least)) * (size - most))


class Watch:
    """Watches the memory of this process while a model computes; changes nothing of what is computed.

    Args:
        limit: says from what is resident how much may be; asked before each pass, for others may take of it.
        gradients: bytes of the gradients of a step.
    """

    def __init__(self, limit: Callable[[float], float], gradients: float) -> None:
        self._file = os.open(STATM, os.O_RDONLY)
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._ask, self.limit = limit, limit(self.resident())
        self.reserve = 0.0  # for what will be made later, and stay
        self.base = self.highest = self.resident()  # between steps; and since it was last measured
        self._needs = {True: Need(fixed=gradients), False: Need()}
        self._grew: dict[object, tuple[int, float]] = {}  # after each place: the size, and by how much
        self._place: object = None
        self._size, self._training, self._before, self._polled = 0, True, self.base, 0.0
        self._most = 0  # numbers in the largest micro-batch of training
        self._open, self._fresh, self._top, self._largest = False, False, 0.0, 0
        self._root: list[torch.utils.hooks.RemovableHandle] = []
        self._layers: list[torch.utils.hooks.RemovableHandle] = []

    def resident(self) -> float:
        """Bytes resident now."""
        return float(os.pread(self._file, 128, 0).split(b" ", 2)[1]) * self._page

    @property
    def near(self) -> bool:
        """Whether the limit is so near that each layer is asked about."""
        return bool(self._layers)

    @property
    def size(self) -> int:
        """Numbers in the micro-batch of the last pass."""
        return self._size

    @property
    def slack(self) -> float:
        """Bytes below the limit that are left free."""
        return max(SLACK_BYTES, SLACK_SHARE * self.limit)

    @property
    def needed(self) -> float:
        """The most that a step of this run needs, as far as is known, above what lies in memory between steps."""
        return max(self._needs[True].at(self._most), self.highest - self.base)

    def on(self, model: nn.Module, parameters: Iterable[Tensor]) -> None:
        """Watch a model from here on."""
        self._model, self._parameters = model, [each for each in parameters if each.requires_grad]
        self._root = [model.register_forward_pre_hook(self._begin, with_kwargs=True)]

    def off(self) -> None:
        """Leave the model as it was."""
        for handle in (*self._root, *self._layers):
            handle.remove()
        self._root, self._layers = [], []
        os.close(self._file)

    def settle(self) -> None:
        """Measure what lies in memory between steps; freed memory has just been given back."""
        self.base = self.highest = self._before = self.resident()
        self._place, self._open = None, False

    def warmed(self, *, training: bool) -> None:
        """Forget what was seen so far: libraries that were loaded and started are part of what lies in memory now."""
        self._needs[training].points, self._grew, self._open = [], {}, False

    def foreseen(self, size: int, *, training: bool) -> float:
        """Bytes that will be resident at most while a micro-batch of so many numbers is computed."""
        return self.base + self.reserve + self._needs[training].at(size)

    def fits(self, size: int, *, training: bool, share: float = 1.0) -> bool:
        """Whether they are within the limit, or a share of it."""
        return self.foreseen(size, training=training) + self.slack <= share * self.limit

    def ended(self) -> None:
        """A step, or a validation, is computed: remember what it needed, where nothing of others was left at first."""
        if self._open and self._fresh and self._layers:
            self._seen(None)
            self._needs[self._training].note(self._largest, self._top - self.base)
        self._open = False

    def narrowed(self, size: int) -> None:
        """Micro-batches of no more than so many numbers come from here on."""
        self._most = min(self._most, size)

    def refused(self) -> None:
        """The last pass was broken off: so many numbers do not fit."""
        self._needs[self._training].note(self._size, self.limit - self.base)

    @contextlib.contextmanager
    def closely(self) -> Iterator[None]:
        """Ask before each layer while in the block, and of what comes and goes within one too, by a thread."""
        self._each_layer(True)
        done = threading.Event()

        def poll() -> None:
            while not done.is_set():
                self._polled = max(self._polled, self.resident())
                time.sleep(POLL_SECONDS)

        thread = threading.Thread(target=poll, name="thrifty-memory", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def look(self, place: object) -> None:
        """Ask at a place of the model.

        Raises:
            NoRoom: what comes after it would pass the limit.
        """
        resident, higher = self._seen(place)
        coming = self.reserve
        if higher:
            size, most = self._grew.get(place, (self._size, 0.0))
            coming += most * max(1.0, self._size / size)
        if resident + coming + self.slack > self.limit:
            self._before = self._without_holes(resident, coming)

    def _without_holes(self, resident: float, coming: float) -> float:
        """Give back what is free within the heap, where that makes the room that is needed and some more.

        Raises:
            NoRoom: it does not.
        """
        trim()
        less = self.resident()
        if less + coming + 2 * self.slack > self.limit:
            raise NoRoom(resident, coming, self.limit)
        return less

    def _seen(self, place: object) -> tuple[float, bool]:
        """Take note of what is resident at a place; return it, and whether that is more than ever."""
        resident, last = self.resident(), self._place
        top = max(resident, self._polled)
        grew = top - self._before
        if grew > 0 and last is not None:
            size, most = self._grew.get(last, (0, 0.0))
            if self._size > size or (self._size == size and grew > most):
                self._grew[last] = (self._size, grew)
        self._place, self._before, self._polled = place, resident, 0.0
        self._top = max(self._top, top)
        higher = top > self.highest
        self.highest = max(self.highest, top)
        return resident, higher

    def _begin(self, model: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        """A pass begins: see whether it would fit, and whether the limit is so near that each layer must be asked."""
        if self._training != torch.is_grad_enabled():
            self.ended()
        given = (each for each in (*inputs, *named.values()) if isinstance(each, Tensor))
        self._size, self._training = sum(each.numel() for each in given), torch.is_grad_enabled()
        self._most = max(self._most, self._size if self._training else 0)
        resident = self.resident()
        self.limit = self._ask(resident)
        foreseen = self.foreseen(self._size, training=self._training)
        if max(resident, foreseen) > NEAR * self.limit:
            self._each_layer(True)
        if foreseen + self.slack > self.limit:
            raise NoRoom(resident, foreseen - resident, self.limit)
        if resident + self.reserve + self.slack > self.limit:
            resident = self._without_holes(resident, self.reserve)
        self._place, self._before, self._polled = None, resident, 0.0
        if self._open:
            self._largest = max(self._largest, self._size)
        else:
            self._open, self._largest, self._top = True, self._size, resident
            self._fresh = resident <= self.base + SLACK_BYTES

    def relax(self) -> None:
        """Ask before each pass alone, until the limit is near."""
        self._each_layer(False)

    def _each_layer(self, wanted: bool) -> None:
        if wanted == bool(self._layers):
            return
        for handle in self._layers:
            handle.remove()
        self._layers = []
        if wanted:
            leaves = [each for each in self._model.modules() if not any(True for _ in each.children())]
            self._layers += [each.register_forward_pre_hook(self._at(number)) for number, each in enumerate(leaves)]
            self._layers += [
                each.register_post_accumulate_grad_hook(self._at(-1 - number))
                for number, each in enumerate(self._parameters)
            ]

    def _at(self, place: int) -> Callable[..., None]:
        look = self.look
        return lambda *_: look(place)
