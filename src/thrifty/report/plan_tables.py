"""A `Proposal` in the terminal: what each way takes, the one to take, why, and what would be cheaper; at 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from thrifty.report.words import Pair, english, in_parts, joined, pair, same
from thrifty.spec.proposal import Doubling, Limit, Machine, Offer, Probing, Proposal
from thrifty.spec.units import format_bytes, format_count, format_joules, format_seconds, format_usd

FORMATS = {"peak_bytes": format_bytes, "seconds": format_seconds, "joules": format_joules, "usd": format_usd}
NAMES = {"peak_bytes": "memory", "seconds": "time", "joules": "energy", "usd": "money"}
MARKS = {"chosen": Text("▸", style="green"), "usual": Text("")}
SHOWN_SHARES = 5
SHOWN_REASONS = 6
LEAST_SHARE = 0.005


def proposal_view(proposal: Proposal, *, machines: int = 12) -> RenderableType:
    """Show a proposal: the table first, then a paragraph for each thing a reader asks next.

    Args:
        proposal: what the planner said.
        machines: rows of a search over the catalogue at most.
    """
    parts: list[RenderableType] = [_head(proposal), ""]
    if proposal.machines:
        parts += [_Machines(proposal.machines[:machines]), ""]
    if proposal.offers:
        parts += [_Offers(proposal.offers), ""]
    parts.append(_Paragraphs(paragraphs(proposal)))
    return Group(*parts)


def paragraphs(proposal: Proposal) -> list[tuple[str, str | Pair]]:
    """Return what follows the table, a label and a text each; the page shows the same.

    A text is in both languages, or in the planner's own words, which are English.
    """
    said: list[tuple[str, str | Pair]] = []
    if proposal.chosen is None and not proposal.machines:
        nothing = pair("no way keeps the budget and the memory there is; these changes would do:")
        said.append(("nothing fits", nothing))
    said += [("what would fit" if n == 0 else "", line) for n, line in enumerate(proposal.would_fit)]
    searched = [line for line in proposal.why if line.source in {"search", "measured", "probe"}]
    searched = [line for line in searched if line.reason != "nothing else divides" and line.field != "evaluate_every"]
    reasons = [f"{line.field.replace('_', ' ')} {line.value}: {line.reason}" for line in searched[:SHOWN_REASONS]]
    compared = [line for line in searched[:SHOWN_REASONS] if line.source in {"search", "probe"}]
    doubts = dict.fromkeys(line.doubt for line in compared if line.doubt)
    said += [("why this one" if n == 0 else "", reason) for n, reason in enumerate(reasons)]
    said += [("doubt" if n == 0 else "", doubt) for n, doubt in enumerate(doubts)]
    looks = [line for line in proposal.why if line.field == "evaluate_every"]
    said += [("validated", f"every {line.value} steps: {line.reason}") for line in looks]
    if proposal.time_goes:
        said.append(("where time goes", shares_text(proposal.time_goes)))
    if proposal.memory_holds:
        said.append(("what memory holds", shares_text(proposal.memory_holds)))
    if proposal.limits:
        limits = [limit_text(each) for each in proposal.limits]
        said.append(
            ("your limits", Pair("   ".join(each.en for each in limits), "；".join(each.zh for each in limits)))
        )
    if proposal.limited_by:
        said.append(("what limits it", doublings_text(proposal.limited_by)))
    label = "what to rent" if proposal.machines else "cheaper still"
    said += [(label if n == 0 else "", line) for n, line in enumerate(proposal.cheaper_still)]
    said += [("probed" if n == 0 else "", probing_text(line)) for n, line in enumerate(proposal.probed)]
    said += [("mind" if n == 0 else "", line) for n, line in enumerate(proposal.notes)]
    asked = pair(
        "{ways} ways, {priced} of them priced, in {time}; nothing ran",
        ways=f"{proposal.candidates:,}",
        priced=f"{proposal.priced:,}",
        time=format_seconds(proposal.planning_seconds),
    )
    said.append(("searched", asked))
    return said


def shares_text(parts: dict[str, float]) -> Pair:
    """Say what the largest parts of a whole are.

    >>> shares_text({"products": 3.0, "attention": 1.0}).en
    '75 % products · 25 % attention'
    """
    whole = sum(parts.values()) or 1.0
    ranked = sorted(parts.items(), key=lambda pair: -pair[1])
    shown = [(name, part / whole) for name, part in ranked[:SHOWN_SHARES] if part / whole >= LEAST_SHARE]
    rest = 1 - sum(share for _, share in shown)
    said = [*shown, *([("other", rest)] if rest >= LEAST_SHARE else [])]
    texts = [pair("{share} {what}", share=f"{share:.0%}".replace("%", " %"), what=name) for name, share in said]
    return Pair(" · ".join(each.en for each in texts), " · ".join(each.zh for each in texts))


def limit_text(limit: Limit) -> Pair:
    """Say a limit with its tick: kept, kept if the prediction is not too low, or overstepped."""
    tick = "✓" if limit.high <= limit.limit else "✓ tight" if limit.predicted <= limit.limit else "✗"
    value = f"{FORMATS[limit.quantity](limit.limit)}"
    return pair("{name} {limit} {tick}", name=NAMES[limit.quantity], limit=value, tick=tick)


def doublings_text(rows: Sequence[Doubling]) -> Pair:
    """Say what twice of each number would buy, in one line."""
    said = [
        pair("{number} {share} faster", number=row.number, share=f"{(row.speedup - 1):.0%}".replace("%", " %"))
        for row in rows
    ]
    gains = Pair(" · ".join(each.en for each in said), " · ".join(each.zh for each in said))
    first = rows[0].number if rows[0].speedup > 1.02 else "nothing that a device's numbers say"
    return pair("{first}; with twice the {gains}", first=first, gains=gains)


def probing_text(row: Probing) -> Pair:
    """Say what real steps took beside what was predicted of them."""
    return pair(
        "{way}: {measured} a step over {count}, predicted {due} ({missed})",
        way=in_parts(row.says),
        measured=format_seconds(row.measured_step_s),
        count=row.steps,
        due=format_seconds(row.predicted_step_s),
        missed=f"{row.missed:+.0%}",
    )


def interval_text(offer: Offer) -> str:
    """Say how far the time may be off, each way the same or the two bounds."""
    seconds = offer.cost.seconds
    if seconds.value <= 0:
        return ""
    low, high = 1 - seconds.low / seconds.value, seconds.high / seconds.value - 1
    if abs(low - high) < 0.05:
        return f"±{max(low, high):.0%}".replace("%", " %")
    return f"-{low:.0%} +{high:.0%}".replace("%", " %")


def price_text(usd: float) -> str:
    """Say an amount of money; a machine that nobody lists a price of costs what it costs."""
    return format_usd(usd) if usd else "no price"


def head_text(proposal: Proposal) -> tuple[Pair, Pair]:
    """Return what is planned and where, a line each."""
    steps, batch = f"{proposal.steps:,}", f"{proposal.batch:,}"
    what = joined([same(proposal.model), pair("{count} parameters", count=format_count(proposal.parameters))])
    work = (
        pair("{steps} steps of {batch} x {length} tokens", steps=steps, batch=batch, length=f"{proposal.length:,}")
        if proposal.length
        else pair("{steps} steps of {batch}", steps=steps, batch=batch)
    )
    parts = (same(proposal.job), what, work)
    line = Pair(" · ".join(each.en for each in parts), " · ".join(each.zh for each in parts))
    return line, in_parts(proposal.where)


def _head(proposal: Proposal) -> RenderableType:
    what, where = head_text(proposal)
    return Group(Text(what.en, style="bold"), Text(where.en))


class _Offers:
    """The ways as a table; remarks stand under their way, dim."""

    def __init__(self, offers: Sequence[Offer]) -> None:
        self.offers = offers

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
        table.add_column("", width=1)
        table.add_column("plan", ratio=1)
        for name in ("time", "memory", "energy", "money", ""):
            table.add_column(name, justify="right", no_wrap=True)
        for offer in self.offers:
            table.add_row(MARKS.get(offer.mark, Text("")), _says(offer), *_figures(offer))
        yield Padding(table, (0, 0, 0, 2), expand=False)


class _Machines:
    """The catalogue's machines for a job, the cheapest first."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        self.machines = machines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
        table.add_column("", width=1)
        table.add_column("machine", ratio=1)
        for name in ("time", "money", "energy", "2x gives", ""):
            table.add_column(name, justify="right", no_wrap=True)
        for machine in self.machines:
            cost = machine.offer.cost
            gave = f"{machine.speedup_of_doubling:.2f}x" if machine.speedup_of_doubling else ""
            table.add_row(
                Text("▸" if machine.on_front else "", style="green"),
                Text(machine.name),
                format_seconds(cost.seconds.value),
                price_text(cost.usd.value),
                format_joules(cost.joules.value),
                Text(gave, style="" if machine.pays else "yellow"),
                Text(interval_text(machine.offer), style="dim"),
            )
        yield Padding(table, (0, 0, 0, 2), expand=False)


class _Paragraphs:
    """Labels on the left, texts that wrap on the right."""

    def __init__(self, said: Iterable[tuple[str, str | Pair]]) -> None:
        self.said = said

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column(style="dim", width=17, no_wrap=True)
        table.add_column(ratio=1)
        for label, text in self.said:
            table.add_row(Text(label), Text(english(text)))
        yield Padding(table, (0, 0, 0, 2), expand=False)


def _says(offer: Offer) -> Text:
    if offer.mark == "usual":
        said = Text(f"{offer.remark}: {offer.says}", style="dim")
    else:
        said = Text(offer.says, style="bold" if offer.mark == "chosen" else "")
        if offer.remark:
            said.append(f"\n{offer.remark}", style="dim")
    if not offer.fits:
        said.append(" (does not fit)", style="red")
    return said


def _figures(offer: Offer) -> list[Text]:
    style = "bold" if offer.mark == "chosen" else "dim" if offer.mark == "usual" else ""
    cost = offer.cost
    values = (
        format_seconds(cost.seconds.value),
        format_bytes(cost.peak_bytes.value),
        format_joules(cost.joules.value),
        price_text(cost.usd.value),
    )
    return [*(Text(value, style=style) for value in values), Text(interval_text(offer), style="dim")]
