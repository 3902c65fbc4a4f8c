"""The live view of a run in a terminal: a line for each stage as it ends, a bar for the one at work."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from thrifty.spec.events import (
    CheckpointDamaged,
    CheckpointFailed,
    CheckpointsRemoved,
    Compiled,
    Evaluated,
    Event,
    Narrowed,
    Planned,
    RateLowered,
    Resumed,
    RolledBack,
    Skipped,
    StageDone,
    StageStarted,
    StepDone,
    Warned,
)
from thrifty.spec.events import Progress as Progressed
from thrifty.spec.layout import arithmetic_of
from thrifty.spec.units import format_bytes, format_seconds, format_usd

REDRAW_SECONDS = 0.2


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
            case StageDone(stage, says, spent):
                self.bar.update(self.task, visible=False)
                memory = format_bytes(spent.peak_rss_bytes)
                self.console.print(
                    f"  [green]✓[/] {stage:<11} {format_seconds(spent.wall_s):>8} {memory:>10}  {escape(says)}",
                    highlight=False,
                    soft_wrap=True,
                )
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
            case Evaluated(step, epoch, metrics, best):
                shown = [
                    f"{name} {metrics[name]:.4g}" for name in ("accuracy", "bits_per_byte", "loss") if name in metrics
                ]
                self.metrics = f"val {shown[0].split()[1]}{' best' if best else ''}"
                if not self.console.is_terminal:
                    self.console.print(
                        f"    step {step:,}, epoch {epoch:.2f}: {', '.join(shown)}", highlight=False, soft_wrap=True
                    )
            case Compiled(step, parts, seconds):
                self.started_at += seconds  # the steps that are left take none
                what = "the model" if parts == 1 else f"{parts} blocks"
                self.console.print(
                    f"    compiled {what} in {format_seconds(seconds)}, at step {step:,}",
                    highlight=False,
                    soft_wrap=True,
                )
            case Resumed(step):
                self.console.print(f"    going on from step {step:,}", highlight=False, soft_wrap=True)
            case _:
                if trouble := told(event):
                    self.console.print(f"  [yellow]![/] {escape(trouble)}", highlight=False, soft_wrap=True)

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
        says = (
            f"epoch {event.epoch:.1f}  loss {event.loss:.3f}  {event.samples_per_second:,.0f}/s  "
            f"{self.step_share / event.seconds:.0%} of peak  {format_seconds(left_s)} "
            f"{format_usd(left_s * self.usd_per_second)} left  {self.metrics}"
        )
        self.bar.update(self.task, completed=event.step, total=event.steps, says=says)


def told(event: Event) -> str:
    """Say in a sentence what went wrong and what was done about it; empty for what goes as it should.

    >>> told(Skipped(7, float("nan"), 1.0, 4.2, 0.5))
    'step 7 was skipped: loss nan, gradient norm 1, at most 4.2 was expected; 500 ms wasted'
    """
    match event:
        case Warned(message):
            return message
        case CheckpointFailed(step, reason):
            return f"step {step:,} could not be saved: {reason}; earlier checkpoints are whole, training goes on"
        case CheckpointDamaged(checkpoint, path, reason):
            return f"the checkpoint of step {checkpoint:,} is damaged: {reason}; it is kept as {path}"
        case CheckpointsRemoved(step, files):
            return f"removed to make room for the checkpoint of step {step:,}: {files}"
        case Skipped(step, loss, norm, bound, seconds):
            expected = f", at most {bound:.4g} was expected" if math.isfinite(bound) else ""
            wasted = format_seconds(seconds)
            return f"step {step:,} was skipped: loss {loss:.4g}, gradient norm {norm:.4g}{expected}; {wasted} wasted"
        case RateLowered(step, until, factor):
            return f"step {step:,}: the learning rate is {factor:g} of the schedule's until step {until:,}"
        case RolledBack(step, to, factor, _, _, seconds):
            return (
                f"step {step:,}: back to the weights of step {to:,}, at {factor:g} of the learning rate; "
                f"{format_seconds(seconds)} wasted"
            )
        case Narrowed(step, stage, before, to, reason):
            return f"{stage} at step {step:,}: {to:,} samples at once from here on, {before:,} until now: {reason}"
        case _:
            return ""
