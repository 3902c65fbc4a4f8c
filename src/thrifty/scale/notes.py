"""What a reader must know of an answer beside its figures: where it is a guess, and what would make it less of one."""

from __future__ import annotations

from thrifty.scale.buy import MOST_SPREAD
from thrifty.scale.layout import MOST_PASSES
from thrifty.spec.scaling import REPEATS, Scaled
from thrifty.spec.units import format_count

# a model so many times larger than the largest small run is far outside of what was seen
FAR = 10.0
# of runs about their curve, from where the law is doubted: with 1.5 % one was 5 % off nine times up (benchmarks.scale)
LOUD = 0.01
# a loss within this share of another is nearly as good; what takes at most this share of it for that is worth a word
NEARLY, CHEAPER = 0.01, 0.5
# of a kind of data on which E + A / N^a + B / D^b was published to hold
_PUBLISHED = "tokens"


def notes_of(scaled: Scaled, batch: int, *, on: bool) -> tuple[str, ...]:
    """Return the notes of an answer, a sentence each, the gravest first.

    Args:
        scaled: the answer, without notes.
        batch: samples of a step of the runs that the curve is fitted to.
        on: the budget is spent on another machine.
    """
    best, curve, unit = scaled.offers[scaled.best], scaled.curve, scaled.unit
    largest = max(run.size.parameters for run in scaled.runs)
    notes = []
    if not scaled.determined:
        low, high = scaled.parameters.low, scaled.parameters.high
        if high > MOST_SPREAD * low:
            why = (
                f"the best size lies between {format_count(low)} and {format_count(high)} parameters nine times in ten"
            )
        else:
            why = f"the runs do not tell the curve's {' and '.join(curve.bounds)}"
        notes.append(f"the small runs do not say which size: {why}; give them more, with --fit")
    if curve.noise > LOUD:
        notes.append(
            f"the runs lie {curve.noise:.1%} about the curve".replace("%", " %")
            + ": a part of that may be the law's own, of which its intervals know nothing"
        )
    if best.size.parameters > FAR * largest:
        times = best.size.parameters / largest
        notes.append(f"the size is {times:,.0f} times the largest that ran: far outside of what was seen")
    if best.data_bound:
        notes.append(
            f"the data end it before the budget does, after {best.epochs:.1f} passes over {format_count(curve.unique)} "
            f"{unit}: beyond {MOST_PASSES} passes nothing was tried; more data would buy more"
        )
    elif best.epochs > 1:
        notes.append(
            f"{best.epochs:.1f} passes over {format_count(curve.unique)} {unit}: what is seen again is counted as "
            f"worth less by Muennighoff et al. 2023: at most {REPEATS:g} passes' worth, drawn between half and twice it"
        )
    quantity = scaled.budget.quantity
    takes = getattr(best, quantity)
    alike = [each for each in scaled.offers if each.loss.value <= (1 + NEARLY) * best.loss.value]
    cheapest = min(alike, key=lambda each: float(getattr(each, quantity)))
    if getattr(cheapest, quantity) <= CHEAPER * takes:
        share = f"{getattr(cheapest, quantity) / takes:.0%}".replace("%", " %")
        over = f"{cheapest.loss.value / best.loss.value - 1:.1%}".replace("%", " %")
        notes.append(f"{cheapest.size.model} should come within {over} of that loss for {share} of what it takes")
    places = [place for place, offer in enumerate(scaled.offers) if offer.share > 0]
    if scaled.best in (0, len(scaled.offers) - 1) and len(scaled.offers) > 1 and places:
        end = "smallest" if scaled.best == 0 else "largest"
        notes.append(f"it is the {end} of the sizes compared; another beyond it may be better")
    if best.batch != batch:
        notes.append(f"batches of {best.batch:,} learned more a sample than of {batch:,}, which the curve is fitted to")
    longest = max(run.data for run in scaled.runs)
    if best.data > 4 * longest:
        root = (best.data / longest) ** 0.5
        notes.append(
            f"on {best.data / longest:,.0f} times the data of the small runs a batch up to about {root:.0f} times as "
            "large should learn as well (it grows by the root of the data: Zhang et al. 2024, arXiv 2410.21676), where "
            "more devices share a step"
        )
    if unit != _PUBLISHED:
        notes.append("that losses go by this law is published for text that goes on; here the noise tells how well")
    if on:
        notes.append("the small runs ran here, and are not part of the budget")
    return tuple(notes)
