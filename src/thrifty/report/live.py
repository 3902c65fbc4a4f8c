"""The live view of a run in a terminal: a line for each stage as it ends, a bar for the one at work."""

from __future__ import annotations

import textwrap
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from thrifty.report.happened import noted, told
from thrifty.report.rows import metric_name, number_text, share_text
from thrifty.report.trials import tried_line
from thrifty.spec.events import Compiled, Evaluated, Event, Planned, StageDone, StageStarted, StepDone, Tried, WentOn
from thrifty.spec.events import Progress as Progressed
from thrifty.spec.layout import arithmetic_of
from thrifty.spec.metrics import METRICS
from thrifty.spec.units import format_bytes, format_seconds, format_usd

REDRAW_SECONDS = 0.2
# columns before a line's text; what a line must have left to be broken at words; what the bar and its stage take
MARK_WIDTH, LEAST_WIDTH, BAR_WIDTH = 4, 30, 31


class LiveView:
    """Shows the events of a run; an ``emit`` while used as a context. Without a terminal it prints whole lines alone.

    >>> import io
    >>> with LiveView(Console(file=io.StringIO(), width=80)) as show:
    ...     show(StageStarted("prepare"))
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("  ▸ {task.description:<11}", table_column=Column(no_wrap=True, min_width=15)),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[says]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=1, says="", visible=False)
        self.drawn_at = 0.0
        self.started_at = time.perf_counter()
        self.first_step = 0
        self.metrics = ""
        self.step_share = 0.0
        self.usd_per_second = 0.0

    def __enter__(self) -> LiveView:
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.__exit__(kind, error, trace)

    def __call__(self, event: Event) -> None:
        match event:
            case StageStarted(stage):
                self.started_at, self.first_step, self.metrics = time.perf_counter(), 0, ""
                self.bar.update(self.task, description=stage, completed=0, total=None, says="", visible=True)
            case StageDone(stage, says, spent, unwanted):
                self.bar.update(self.task, visible=False)
                memory = format_bytes(spent.device_peak_bytes or spent.peak_rss_bytes)
                mark = "[yellow]![/]" if unwanted else "[green]✓[/]"
                self._print(f"  {mark} ", f"{stage:<11} {format_seconds(spent.wall_s):>8} {memory:>10}  ", says)
            case Planned(plan, device):
                rate = device.flops_per_second.get(arithmetic_of(plan.precision))
                flops = plan.cost.flops.value / plan.stop.steps
                self.step_share = flops / rate.value if rate else 0.0
                self.usd_per_second = device.usd_per_hour.value / 3600
            case Progressed(_, done, total, unit):
                if self._due(done == total):
                    self.bar.update(self.task, completed=done, total=total, says=f"{done:,} of {total:,} {unit}")
            case StepDone():
                self._step(event)
            case Tried():
                self._print("    ", "", tried_line(event))
            case Evaluated(step, epoch, metrics, best):
                shown = [(name, metrics[name]) for name in METRICS if name in metrics]
                self.metrics = f"val {number_text(shown[0][1])}{' best' if best else ''}"
                if not self.console.is_terminal:
                    listed = ", ".join(f"{metric_name(name)} {number_text(value)}" for name, value in shown)
                    self._print("    ", "", f"step {step:,}, epoch {epoch:.2f}: {listed}{', the best' if best else ''}")
            case _:
                if isinstance(event, Compiled | WentOn):
                    self.started_at += event.seconds  # the steps that are left take none
                if trouble := told(event):
                    self._print("  [yellow]![/] ", "", trouble)
                elif says := noted(event):
                    self._print("    ", "", says)

    def _print(self, mark: str, head: str, says: str) -> None:
        """Print a line; in a terminal a long one goes on below where its text began, where there is width for it."""
        indent = MARK_WIDTH + len(head)
        if self.console.is_terminal and indent + LEAST_WIDTH <= self.console.width:
            lines = textwrap.wrap(says, self.console.width - indent, break_long_words=False, break_on_hyphens=False)
            says = f"\n{' ' * indent}".join(lines)
        self.console.print(f"{mark}{escape(head + says)}", highlight=False, soft_wrap=True)

    def _due(self, last: bool) -> bool:
        now = time.perf_counter()
        if last or now - self.drawn_at > REDRAW_SECONDS:
            self.drawn_at = now
            return True
        return False

    def _step(self, event: StepDone) -> None:
        self.first_step = self.first_step or event.step
        if not self._due(event.step == event.steps):
            return
        taken = event.step - self.first_step + 1
        left_s = (time.perf_counter() - self.started_at) / taken * (event.steps - event.step)
        money = f"{format_usd(left_s * self.usd_per_second)} left"
        # as they stand, each with its place in the order in which a narrow terminal keeps them
        parts = [
            (4, f"epoch {event.epoch:.1f}"),
            (0, f"loss {event.loss:.3f}" if event.loss < 1000 else f"loss {event.loss:.3g}"),
            (3, f"{event.samples_per_second:,.0f} samples/s"),
            (5, f"{share_text(self.step_share / event.seconds)} of peak"),
            (2, self.metrics),
            (1, f"{format_seconds(left_s)} left"),
            (6, money),
        ]
        says = fitting([part for part in parts if part[1]], self.console.width - BAR_WIDTH)
        self.bar.update(self.task, completed=event.step, total=event.steps, says=says)


def fitting(parts: list[tuple[int, str]], width: int) -> str:
    """Join texts by two spaces, without those of the highest numbers where all of them are too wide.

    >>> fitting([(1, "epoch 2"), (0, "loss 0.3"), (2, "3 s left")], 20)
    'epoch 2  loss 0.3'
    """
    kept = list(parts)
    while len(kept) > 1 and len("  ".join(text for _, text in kept)) > width:
        kept.remove(max(kept))
    return "  ".join(text for _, text in kept)
