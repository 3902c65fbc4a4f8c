"""What the terminal's tables and the page both say, row by row, as text with units."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from thrifty import hardware
from thrifty.ledger import TRAIN, Comparison, Entry
from thrifty.spec import KINDS, METRICS, Budget, Dataset, Device, Interval, Plan, Spent
from thrifty.spec.transcripts import are_words
from thrifty.spec.units import format_bytes, format_count, format_joules, format_seconds, format_usd

UNKNOWN = "–"
WASTED = "wasted"
WASTED_METHOD = (
    "part of training: steps that were skipped, and those whose weights were rolled back; energy and money by their "
    "share of its time"
)

QUANTITIES: dict[str, tuple[str, Callable[[float], str]]] = {
    "seconds": ("time", format_seconds),
    "peak_bytes": ("peak memory", format_bytes),
    "joules": ("energy", format_joules),
    "usd": ("money", lambda usd: usd_text(usd)),
    "flops": ("work", lambda flops: flop_text(flops)),
}


# of the time of steps; beyond it, waiting for batches is worth a word
LOADING_SHARE = 0.03


class Aside(NamedTuple):
    """What a bill says of training beside its ledger line.

    Attributes:
        wasted_s: seconds of it on steps that were skipped or rolled back.
        rank_bytes: peak memory of each rank; empty where one process trained.
        loading_share: of the time of steps, in which they waited for their batches.
    """

    wasted_s: float = 0.0
    rank_bytes: tuple[int, ...] = ()
    loading_share: float = 0.0


NOTHING = Aside()


class SpentRow(NamedTuple):
    """One stage of the bill."""

    stage: str
    time: str
    cpu: str
    memory: str
    written: str
    work: str
    of_peak: str
    energy: str
    money: str


class ComparedRow(NamedTuple):
    """One quantity of training; ``inside`` is True, False, or None where there is nothing to compare."""

    quantity: str
    predicted: str
    range: str
    due: str
    measured: str
    difference: str
    inside: bool | None


class BudgetRow(NamedTuple):
    """One limit: what is asked, what is predicted, and whether it ``fits``, is ``tight`` or ``breaks``."""

    quantity: str
    limit: str
    predicted: str
    verdict: str


class HardwareRow(NamedTuple):
    """One figure of a device: measured beside the maker's, and the share of it that was reached."""

    quantity: str
    measured: str
    datasheet: str
    share: str
    source: str


def flop_text(flops: float) -> str:
    """Print a number of floating-point operations.

    >>> flop_text(1.5e12), flop_text(12)
    ('1.5 TFLOP', '12 FLOP')
    """
    text = format_count(flops)
    return f"{text}FLOP" if text[-1].isalpha() else f"{text} FLOP"


def ranks_text(rank_bytes: Sequence[int]) -> str:
    """Print the peak memory of the ranks of a run.

    >>> ranks_text((600 * 2**20, 580 * 2**20))
    '2 ranks of 580 to 600 MiB'
    """
    low, high = format_bytes(min(rank_bytes)), format_bytes(max(rank_bytes))
    if low.split()[-1] == high.split()[-1]:
        low = low.split()[0]
    spread = high if high.startswith(f"{low} ") or low == high else f"{low} to {high}"
    return f"{len(rank_bytes)} ranks of {spread}"


def usd_text(usd: float) -> str:
    """Print money; what a thousandth of a cent does not show is said to be less.

    >>> usd_text(0.0026), usd_text(1e-6)
    ('$0.0026', '< $0.00001')
    """
    return "< $0.00001" if 0 < usd < 5e-6 else format_usd(usd)


def share_text(share: float) -> str:
    """Print a share as a percentage; unknown when it is not above zero.

    >>> share_text(0.583), share_text(0.0042), share_text(0.0004), share_text(0)
    ('58 %', '0.4 %', '< 0.1 %', '–')
    """
    if not share > 0:
        return UNKNOWN
    if share < 0.0005:
        return "< 0.1 %"
    return f"{share:.0%}".replace("%", " %") if share >= 0.0995 else f"{share:.1%}".replace("%", " %")


def difference_text(difference: float) -> str:
    """Print measured against predicted, with a sign.

    >>> difference_text(-0.04), difference_text(4.2), difference_text(float("nan")), difference_text(0.0001)
    ('−4 %', '×5.2', '–', '0 %')
    """
    if math.isnan(difference):
        return UNKNOWN
    if difference >= 1:
        return f"×{difference + 1:.1f}"
    whole = round(difference * 100)
    return f"{'+' if whole > 0 else '−' if whole < 0 else ''}{abs(whole)} %"


def metric_text(name: str, value: float) -> str:
    """Print a metric: a share as a percentage, the rest to four digits.

    >>> metric_text("accuracy", 0.9744), metric_text("bits_per_byte", 1.83456), metric_text("rmse", 44_912.6)
    ('97.4 %', '1.835', '44,913')
    """
    share = name in METRICS and METRICS[name].share
    return f"{value:.1%}".replace("%", " %") if share else number_text(value)


def number_text(value: float) -> str:
    """Print a number to four digits, a large one without its fraction."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def metric_name(name: str) -> str:
    """Print a metric's name.

    >>> metric_name("bits_per_byte")
    'bits per byte'
    """
    return METRICS[name].says if name in METRICS else name.replace("_", " ")


def spent_row(stage: str, spent: Spent) -> SpentRow:
    """Print what a stage took; what was not metered as unknown."""
    peak = spent.device_peak_bytes or spent.peak_rss_bytes
    return SpentRow(
        stage=stage,
        time=format_seconds(spent.wall_s),
        cpu=format_seconds(spent.cpu_s),
        memory=format_bytes(peak),
        written=format_bytes(spent.written_bytes),
        work=flop_text(spent.flops) if spent.flops > 0 else UNKNOWN,
        of_peak=share_text(spent.peak_share),
        energy=format_joules(spent.joules) if spent.joules_method or spent.joules else UNKNOWN,
        money=usd_text(spent.usd) if spent.usd_method or spent.usd else UNKNOWN,
    )


def bill_rows(entry: Entry, aside: Aside = NOTHING) -> tuple[list[SpentRow], SpentRow]:
    """Return a row for each stage, with its attempt where there was more than one, and the total.

    What training wasted stands in a row after it; it is part of that one, and in the sum but once.
    """
    several = len({each.attempt for each in entry.stages}) > 1
    rows = [spent_row(f"{each.stage} {each.attempt}" if several else each.stage, each.spent) for each in entry.stages]
    if aside.wasted_s > 0:
        last = max((at for at, each in enumerate(entry.stages) if each.stage == TRAIN), default=len(rows) - 1)
        rows.insert(last + 1, _wasted_row(entry.training(), aside.wasted_s))
    return rows, spent_row("total", entry.total)


def _wasted_row(spent: Spent, wasted_s: float) -> SpentRow:
    share = min(1.0, wasted_s / spent.wall_s) if spent.wall_s else 0.0
    return SpentRow(
        stage=WASTED,
        time=format_seconds(wasted_s),
        cpu=UNKNOWN,
        memory=UNKNOWN,
        written=UNKNOWN,
        work=UNKNOWN,
        of_peak=UNKNOWN,
        energy=format_joules(share * spent.joules) if spent.joules_method or spent.joules else UNKNOWN,
        money=usd_text(share * spent.usd) if spent.usd_method or spent.usd else UNKNOWN,
    )


def compared_row(each: Comparison) -> ComparedRow:
    """Print one quantity of training, predicted beside measured."""
    name, text = QUANTITIES[each.quantity]
    known = not math.isnan(each.difference)
    return ComparedRow(
        quantity=name,
        predicted=text(each.predicted.value),
        range=range_text(each.due, each.quantity),
        due=text(each.due.value),
        measured=text(each.measured) if known else UNKNOWN,
        difference=difference_text(each.difference),
        inside=each.inside if known else None,
    )


def range_text(interval: Interval, quantity: str) -> str:
    """Print the bounds of an interval; a unit that both have is said once.

    >>> range_text(Interval.around(2**30, 0.25, ""), "peak_bytes")
    '768 MiB – 1.2 GiB'
    >>> range_text(Interval.around(40.0, 0.25, ""), "seconds")
    '30.0 – 50.0 s'
    """
    text = QUANTITIES[quantity][1]
    low, high = text(interval.low), text(interval.high)
    number, _, unit = low.rpartition(" ")
    if number and unit.isalpha() and high.endswith(f" {unit}"):
        low = number
    return f"{low} – {high}" if interval.low != interval.high else high


def notes(entry: Entry, aside: Aside = NOTHING) -> list[tuple[str, str]]:
    """Say how the bill's figures were got: what each note is of, and the method."""
    found = [(WASTED, WASTED_METHOD)] if aside.wasted_s > 0 else []
    if aside.rank_bytes:
        found.append(
            ("memory of train", f"{ranks_text(aside.rank_bytes)}, and what the process that started them holds")
        )
    if aside.loading_share:
        waits = "; training waits for its data" if aside.loading_share > LOADING_SHARE else ""
        found.append(("time of train", f"{share_text(aside.loading_share)} of it waited for batches{waits}"))
    found += [("energy", entry.total.joules_method), ("money", entry.total.usd_method)]
    for each in entry.comparisons():
        found.append((f"predicted {QUANTITIES[each.quantity][0]}", each.predicted.method))
    by_method: dict[str, list[str]] = {}
    for what, method in found:
        if method:
            by_method.setdefault(method, []).append(what)
    said = [(_joined(whats), method) for method, whats in by_method.items()]
    share = entry.work_done()
    if share < 0.995:
        owed = f"training did {share_text(share)} of the planned work ({entry.reason or 'it ended early'})"
        said.append(("difference", f"{owed}; predictions are held against that share"))
    return said


def _joined(names: list[str]) -> str:
    first, rest = names[0], [name.removeprefix("predicted ") for name in names[1:]]
    return f"{', '.join([first, *rest[:-1]])} and {rest[-1]}" if rest else first


def budget_rows(plan: Plan, budget: Budget) -> list[BudgetRow]:
    """Hold the predicted cost against each limit that is set: in the job, or left of it for training in the plan."""
    cost, stop = plan.cost, plan.stop
    limits = {
        "peak_bytes": (budget.memory or math.inf, cost.peak_bytes),
        "seconds": (min(budget.time or math.inf, stop.seconds), cost.seconds),
        "joules": (min(budget.energy or math.inf, stop.joules), cost.joules),
        "usd": (min(budget.money or math.inf, stop.usd), cost.usd),
    }
    return [
        BudgetRow(QUANTITIES[key][0], QUANTITIES[key][1](limit), QUANTITIES[key][1](cost.value), _verdict(cost, limit))
        for key, (limit, cost) in limits.items()
        if math.isfinite(limit)
    ]


def _verdict(cost: Interval, limit: float) -> str:
    return "fits" if cost.high <= limit else "tight" if cost.value <= limit else "breaks"


def hardware_rows(device: Device, compared: Iterable[hardware.Comparison] | None = None) -> list[HardwareRow]:
    """Print what a device can do, measured beside its datasheet, and what it draws and costs."""
    rows = [_rate_row(device, each) for each in (hardware.comparison(device) if compared is None else compared)]
    rows.append(HardwareRow("usable memory", format_bytes(device.memory_bytes), "", "", device.memory_source))
    for name, watts in (("power, idle", device.idle_watts), ("power, busy", device.busy_watts)):
        rows.append(HardwareRow(name, f"{watts.value:.3g} W", "", "", watts.source))
    price = device.usd_per_hour
    rows.append(HardwareRow("price of an hour", format_usd(price.value), "", "", price.source))
    return rows


def _rate_row(device: Device, each: hardware.Comparison) -> HardwareRow:
    sheets = {**device.datasheet_flops_per_second, **device.datasheet_bytes_per_second}
    measured = {**device.flops_per_second, "memory": device.bytes_per_second}
    sources = [found[each.quantity].source for found in (measured, sheets) if each.quantity in found]
    is_memory = each.quantity == "memory"
    text = bandwidth_text if is_memory else rate_text
    return HardwareRow(
        quantity="memory bandwidth" if is_memory else f"matrix products, {each.quantity}",
        measured=text(each.measured),
        datasheet=text(each.datasheet) if each.datasheet else UNKNOWN,
        share=share_text(each.share or 0.0),
        source="; ".join(dict.fromkeys(sources)),
    )


def rate_text(flops_per_second: float) -> str:
    """Print a rate of floating-point operations.

    >>> rate_text(1.68e12)
    '1.7 TFLOP/s'
    """
    return f"{flop_text(flops_per_second)}/s"


def bandwidth_text(bytes_per_second: float) -> str:
    """Print a memory bandwidth in the decimal unit that datasheets use.

    >>> bandwidth_text(27.3e9)
    '27.3 GB/s'
    """
    return f"{bytes_per_second / 1e9:.1f} GB/s"


def cleaning_rows(dataset: Dataset) -> list[tuple[str, str]]:
    """Say what cleaning saw, kept and put aside."""
    cleaning = dataset.cleaning
    rows = [(f"{_cleaned(dataset)} seen", f"{cleaning.seen:,}"), ("kept", f"{cleaning.kept:,}")]
    rows += [(f"repaired: {what}", f"{count:,}") for what, count in sorted(cleaning.repaired.items())]
    rows += [(f"rejected: {reason}", f"{count:,}") for reason, count in sorted(cleaning.rejected.items())]
    rows.append(("exact copies, kept once", f"{cleaning.duplicates:,}"))
    rows.append(("copies across splits, kept held out", f"{cleaning.across_splits:,}"))
    return rows


def _cleaned(dataset: Dataset) -> str:
    """What cleaning counts."""
    return KINDS[dataset.kind].cleaned


def samples_name(dataset: Dataset) -> str:
    """Name the samples of a data set."""
    return KINDS[dataset.kind].samples


def labels_name(dataset: Dataset) -> str:
    """Name what is told: labels, or the words or characters of transcripts."""
    if dataset.task != "transcribe":
        return "labels"
    return "words" if are_words(dataset.labels) else "characters"


def dataset_rows(dataset: Dataset) -> list[tuple[str, str]]:
    """Say what the prepared data is."""
    unit = f"windows of {dataset.shape[0]:,} tokens" if dataset.kind == "language" else samples_name(dataset)
    rows = [(f"{split} split", f"{count:,} {unit}") for split, count in dataset.counts.items()]
    if dataset.kind == "image":
        channels, height, width = dataset.shape
        rows.append(("each image", f"{width} × {height} pixels, {'gray' if channels == 1 else 'colour'}"))
    elif dataset.sound is not None:
        frames, width = dataset.shape
        rows.append(("frames", ", ".join(f"{split} {count:,}" for split, count in dataset.tokens.items())))
        each = f"up to {frames:,} frames of {width} numbers, from {dataset.sound.rate:,} samples a second"
        rows.append(("each recording", each))
    elif dataset.table is not None:
        table, kinds = dataset.table, Counter(column.kind for column in dataset.table.columns)
        rows.append(("told", f"{table.target}, {'a label' if dataset.labels else 'a number'}"))
        rows.append(("learned from", ", ".join(f"{count:,} of kind {kind}" for kind, count in kinds.items())))
        rows.append(("each row", f"{table.numbers:,} numbers, {table.codes:,} codes of {table.vocabulary:,} values"))
    else:
        rows.append(("tokens", ", ".join(f"{split} {count:,}" for split, count in dataset.tokens.items())))
        rows.append(("vocabulary", f"{dataset.vocabulary:,} tokens"))
    if dataset.kind == "text":
        rows.append(("each text", f"up to {dataset.shape[0]:,} tokens"))
    if dataset.labels:
        rows.append((labels_name(dataset), f"{len(dataset.labels):,}"))
    rows.append(("read from", f"{format_bytes(dataset.source_bytes)} of files"))
    rows.append(("prepared store", format_bytes(dataset.stored_bytes)))
    return rows
