"""`Live`: what a server does now, on the terminal of whoever started it: a line for each model, drawn anew each second.

Where stderr is no terminal, one plain line goes there now and then instead, or into the log where there is one.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from thrifty.serve.counted import Counted, count
from thrifty.spec.units import format_joules, format_usd

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from thrifty.serve.metrics import Metrics

logger = logging.getLogger("thrifty.serve.live")

DRAW_SECONDS, PLAIN_SECONDS = 1.0, 10.0
_WINDOW_SECONDS = 5.0  # that rates and times are of, on a terminal
# what a narrow terminal leaves out first
_LEAST_WANTED = ("rows", "money", "queue", "CPU", "energy")
_NAME_WIDTH, _WIDTH = 14, 7


class Live:
    """Shows what a server does while used as a context.

    Args:
        metrics: of the server.
        cores: that it may use, of which the share is told.
        console: on stderr.
        logs: whether the server logs each request, so that a plain line belongs into its log.
    """

    def __init__(self, metrics: Metrics, *, cores: int, console: Console, logs: bool = False) -> None:
        self._metrics, self._cores, self._console, self._logs = metrics, cores, console, logs
        self._window_s = _WINDOW_SECONDS if console.is_terminal else PLAIN_SECONDS
        self._before: deque[tuple[float, Mapping[str, Counted]]] = deque()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="thrifty-live", daemon=True)
        self._stack = contextlib.ExitStack()
        self._show: Callable[[], None] = self._say

    def __enter__(self) -> Live:
        if self._console.is_terminal:
            from rich.live import Live as Drawn

            drawn = Drawn(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            self._stack.enter_context(_above(self._console))
            self._stack.enter_context(drawn)
            self._show = lambda: drawn.update(self._drawn(), refresh=True)
        self._before.append((time.monotonic(), {}))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._stack.close()

    def _work(self) -> None:
        every = DRAW_SECONDS if self._console.is_terminal else PLAIN_SECONDS
        while not self._stopped.wait(every):
            try:
                self._show()
            except Exception:  # it is for people alone: what serves goes on
                logger.exception("the live line cannot be drawn")
                return

    def _say(self) -> None:
        line = plain(self.now())
        if self._logs:
            logger.info("%s", line)
        else:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True, emoji=False)

    def now(self) -> dict[str, dict[str, str]]:
        """Say of each model, by its label, what it did lately and what it took so far."""
        counted, at = count(self._metrics), time.monotonic()
        self._before.append((at, counted))
        while len(self._before) > 2 and at - self._before[1][0] >= self._window_s:
            self._before.popleft()
        then, before = self._before[0]
        return {
            model: self._said(model, now, now.since(before.get(model, Counted())), max(at - then, 1e-9))
            for model, now in sorted(counted.items())
        }

    def _said(self, model: str, now: Counted, lately: Counted, seconds: float) -> dict[str, str]:
        times = self._metrics.recent.quantiles(model, (0.5, 0.99), within_s=seconds)
        median, late = (f"{1000 * each:.1f}" for each in times) if times else ("–", "–")
        return {
            "req/s": f"{lately.requests / seconds:,.1f}",
            "p50 ms": median,
            "p99 ms": late,
            "rows": f"{lately.rows_a_batch:.1f}",
            "queue": f"{now.waiting:,.0f}",
            "shed": f"{now.shed:,.0f}",
            "CPU": f"{lately.cpu_seconds / seconds / self._cores:.0%}",
            "energy": format_joules(now.joules),
            "money": format_usd(now.usd),
        }

    def _drawn(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        now = self.now()
        names = [name for name in _HEADS if name not in _left_out(self._console.width)]
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("serving", no_wrap=True, overflow="ellipsis")
        for name in names:
            table.add_column(_HEADS[name], justify="right", no_wrap=True, min_width=_WIDTH - 2)
        for model, said in now.items():
            table.add_row(Text(printable(model)), *(Text(said[name]) for name in names))
        return table


def on_stderr(metrics: Metrics, *, logs: bool) -> Live:
    """Make the view of a server in this process, on its stderr."""
    from rich.console import Console

    from thrifty.serve.cores import here

    return Live(metrics, cores=len(here()), console=Console(file=sys.stderr), logs=logs)


_HEADS = {
    "req/s": "req/s", "p50 ms": "p50 ms", "p99 ms": "p99 ms", "rows": "batch", "queue": "queue",
    "shed": "shed", "CPU": "CPU", "energy": "energy", "money": "money",
}  # fmt: skip


def _left_out(width: int) -> set[str]:
    room = (width - _NAME_WIDTH) // _WIDTH
    return set(_LEAST_WANTED[: max(0, len(_HEADS) - room)])


def plain(now: Mapping[str, Mapping[str, str]]) -> str:
    """Write what models do on one line.

    >>> plain({})
    'no model is served yet'
    """
    return (
        " | ".join(
            f"{printable(model)}: {said['req/s']} req/s, p50 {said['p50 ms']} ms, p99 {said['p99 ms']} ms, "
            f"{said['rows']} rows a batch, {said['queue']} waiting, {said['shed']} shed, CPU {said['CPU']}, "
            f"{said['energy']} and {said['money']} so far"
            for model, said in now.items()
        )
        or "no model is served yet"
    )


def printable(text: str) -> str:
    r"""Leave out of a name what would steer a terminal.

    >>> printable("pets\x1b[2J")
    'pets?[2J'
    """
    return "".join(each if each.isprintable() else "?" for each in text)


class _Above(io.TextIOBase):
    """A stream whose whole lines are printed above what a console draws."""

    def __init__(self, console: Console) -> None:
        self._console, self._rest = console, ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True, emoji=False)
        return len(text)

    def flush(self) -> None:
        return


@contextlib.contextmanager
def _above(console: Console) -> Iterator[None]:
    """Have what is written to stderr, by logs too, and to a terminal's stdout printed above what a console draws."""
    stream, before = _Above(console), sys.stderr
    handlers = [
        handler
        for handler in logging.getLogger("thrifty").handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is before
    ]
    with contextlib.ExitStack() as stack:
        if sys.stdout.isatty():
            stack.enter_context(contextlib.redirect_stdout(stream))
        stack.enter_context(contextlib.redirect_stderr(stream))
        for handler in handlers:
            handler.setStream(stream)
            stack.callback(handler.setStream, before)
        yield
