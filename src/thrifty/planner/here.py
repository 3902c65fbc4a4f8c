"""Answer `thrifty plan` for the machine at hand: the ways tried, the one to take, why, and what would be better."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from thrifty.cost import step_seconds
from thrifty.hardware.pages import keeping
from thrifty.planner.compiling import might_compile
from thrifty.planner.correction import Seen, scaled
from thrifty.planner.explain import quote_of, words
from thrifty.planner.explore import explore
from thrifty.planner.grown import might_grow
from thrifty.planner.holding import base_bytes, timeline
from thrifty.planner.local import Local
from thrifty.planner.moves import askable, check_allowed, off_unless_asked
from thrifty.planner.offers import front_offers, limits_beside, offer
from thrifty.planner.planner import Probe, draft_of, plan_of, prepared_for, since
from thrifty.planner.proven import proof_of
from thrifty.planner.releasing import might_release
from thrifty.planner.rules import Reasons
from thrifty.planner.search import Found, Way
from thrifty.planner.settle import asker_of
from thrifty.planner.whatif import twice
from thrifty.spec import Dataset, Decision, Device, Job, Plan, Probed, Spent
from thrifty.spec.proposal import Doubling, Offer, Probing, Proposal
from thrifty.spec.units import format_bytes

USUAL: dict[str, Any] = {"precision": "fp32", "memory_format": "contiguous", "checkpointing": "none"}
# share of the cores in others' hands from which a measurement of the machine is doubted
DISTURBED_SHARE = 0.1
# ways probed beside the chosen one
PROBED = 3


def propose_here(
    job: Job,
    dataset: Dataset,
    device: Device,
    *,
    key: str,
    history: Sequence[Seen] = (),
    probe: Probe | None = None,
    allowed: Collection[str] = (),
    top: int = 4,
) -> Proposal:
    """Plan a job on this machine and say why.

    Args:
        job: what is wanted.
        dataset: prepared, or declared.
        device: this machine, measured.
        key: content key of the run.
        history: earlier runs here, by which predictions are corrected.
        probe: times a few real steps of a plan: the best ways are tried, and what the prediction missed is told.
        allowed: marked moves that were asked for; the loop here runs none of them yet.
        top: rows of the table, beside the usual way.

    Raises:
        JobError, BudgetError: as `thrifty.planner.plan`.
    """
    began = time.perf_counter()
    check_allowed(allowed)
    why = Reasons([])
    learning, share = prepared_for(job, dataset, device, why)
    with asker_of(share) as asker:
        local = Local(job, learning, dataset, share, history, asker=asker, whole=device)
        proposal = _propose(local, why, key, probe, allowed, top)
    return proposal.model_copy(update={"planning_seconds": time.perf_counter() - began})


def _propose(local: Local, why: Reasons, key: str, probe: Probe | None, allowed: Collection[str], top: int) -> Proposal:
    job, dataset, device = local.job, local.dataset, local.device
    found = explore(local)
    probes: list[tuple[Way, Probed]] = []
    remember = _remembering(local, found, key, probe, probes) if probe else None
    plan = plan_of(local, found, why, key=key, spent=since(Spent()), probe=remember)
    chosen = local.way(_settings(plan, texts=local.batches))
    offers = _offers(local, found, chosen, plan, top)
    quote = quote_of(chosen)
    whole_s = sum(quote.time_goes.values())
    memory = (local.memory[0], f"nine tenths of the {format_bytes(device.memory_bytes)} here")
    return Proposal(
        job=job.name,
        model=plan.model.name,
        where=f"this machine: {device.name}, {device.parts}, {format_bytes(device.memory_bytes)}",
        parameters=local.learning.parameters,
        steps=plan.stop.steps,
        batch=plan.batch.size,
        length=dataset.length,
        offers=tuple(offers),
        front=tuple(offer(way, "front") for way in found.front),
        why=tuple(_first(plan.why)),
        time_goes={name: spent / whole_s for name, spent in quote.time_goes.items()},
        memory_holds=dict(quote.memory_holds),
        limits=limits_beside(plan.cost, job.budget, memory),
        cheaper_still=_cheaper(local, chosen, plan, allowed),
        limited_by=_doublings(local, chosen),
        timeline=timeline(local.trace(chosen.settings), base_bytes(chosen), accumulating=plan.batch.accumulation > 1),
        probed=tuple(_probing(way, probed) for way, probed in probes),
        candidates=found.candidates,
        priced=found.priced,
        notes=(*_notes(device), *_ranks(local, chosen)),
        planning_seconds=0.0,
        plan=plan,
    )


def _remembering(
    local: Local, found: Found, key: str, probe: Probe, probes: list[tuple[Way, Probed]]
) -> Callable[[Plan], Probed]:
    """Probe the best ways now, and answer from that what is asked again."""
    known: dict[tuple[object, ...], Probed] = {}
    texts = local.batches
    ranked = sorted(found.feasible, key=lambda way: way.price.seconds)[:PROBED]
    for way in ranked if found.choice in ranked else [found.choice, *ranked]:
        assert way is not None
        draft = draft_of(local, way, key)
        known[tuple(_settings(draft, texts=texts).values())] = probed = probe(draft)
        probes.append((way, probed))

    def answer(draft: Plan) -> Probed:
        at = tuple(_settings(draft, texts=texts).values())
        return known[at] if at in known else probe(draft)

    return answer


def _settings(plan: Plan, *, texts: bool) -> dict[str, object]:
    batching = {"batching": plan.batch.batching} if texts else {}
    return {
        "precision": plan.precision,
        "memory_format": plan.memory_format,
        "checkpointing": plan.checkpointing,
        **batching,
        "micro_batch": plan.batch.micro,
    }


def _offers(local: Local, found: Found, chosen: Way, plan: Plan, top: int) -> list[Offer]:
    """The chosen way at the cost of its plan; the front; what else was tried; the usual way. All for as many steps."""
    size, share = plan.batch.size, plan.stop.steps / local.learning.stop.steps
    first = offer(chosen, "chosen", batch=size).model_copy(update={"cost": plan.cost})
    rows = [row for row in front_offers(found, top, batch=size) if row.settings != dict(chosen.settings)]
    shown = [first.settings, *(row.settings for row in rows)]
    for way in sorted(found.feasible, key=lambda each: each.price.seconds):
        if len(rows) + 1 < top and dict(way.settings) not in shown:
            rows.append(offer(way, "front", than=chosen.settings, batch=size))
    kept = local.releasing(False) if local.releases else local
    usual = {**USUAL, **({"batching": local.batchings[0]} if local.batches else {})}
    usual["micro_batch"] = min(local.job.plan.micro_batch or kept.largest(usual), local.share)
    if usual["micro_batch"] and (local.releases or usual != dict(chosen.settings)):
        rows = [row for row in rows if row.settings != usual]
        rows.append(offer(kept.way(usual), "usual", remark="as most people run it", batch=size))
    return [first, *(_for_steps(row, share) for row in rows)]


def _for_steps(row: Offer, share: float) -> Offer:
    """The same way for a share of the steps, where a budget cuts the training short."""
    taken = {name: scaled(getattr(row.cost, name), share) for name in ("seconds", "joules", "usd", "flops")}
    mark = "front" if row.mark == "chosen" else row.mark
    return row.model_copy(update={"cost": row.cost.model_copy(update=taken), "mark": mark})


def _first(lines: Sequence[Decision]) -> list[Decision]:
    """What was chosen by comparison comes before what rules decided."""
    return sorted(lines, key=lambda line: line.source not in {"search", "probe", "measured"})


def _cheaper(local: Local, chosen: Way, plan: Plan, allowed: Collection[str]) -> tuple[str, ...]:
    lines = [said] if (said := might_compile(plan, local, chosen)) else []
    lines += [said] if (said := might_release(plan, local, chosen)) else []
    lines += [said] if (said := might_grow(plan, local, chosen)) else []
    off = off_unless_asked(local.device, allowed)
    pins = [
        move for move in off
        if move.runs_here and move.value in askable(move.field, local.device) and move.value != local.job.plan.precision
    ]  # fmt: skip
    for known, says in ((True, "known to learn what fp32 does"), (False, "not proven to learn what fp32 does")):
        named = [
            f"{move.field}: {move.value}"
            for move in pins
            if (proof_of(move.value, local.learning.model.family) is not None) is known
        ]
        if named:
            lines.append(f"less memory, where you pin it (plan): {', '.join(named)}; {says}")
    waiting = [move.name for move in off if not move.runs_here]
    if waiting and local.device.kind != "cpu":
        lines.append(f"{', '.join(waiting)}: priced on a cluster alone so far (--on), and not run here")
    return tuple(lines)


def _doublings(local: Local, chosen: Way) -> tuple[Doubling, ...]:
    """What twice the arithmetic, memory bandwidth and memory of this device would buy; the greatest gain first.

    Rates are compared by the step priced at this device's rates and at twice each; for memory the job is planned anew.
    """
    settings = chosen.settings
    trace = local.typical(settings)
    parts = math.ceil(local.share / settings["micro_batch"])
    plain = local.device.model_copy(update={"kernels": ()})
    faster = {name: twice(rate) for name, rate in plain.flops_per_second.items()}
    changed = {
        "arithmetic": plain.model_copy(update={"flops_per_second": faster}),
        "memory bandwidth": plain.model_copy(update={"bytes_per_second": twice(plain.bytes_per_second)}),
    }

    def seconds(device: Device) -> float:
        kept = keeping(device.kind, settings["checkpointing"])
        return step_seconds(trace, parts, device, settings["precision"], keeping=kept).value

    before = seconds(plain)
    gains = {name: before / seconds(device) for name, device in changed.items()}
    roomy = _with_twice_memory(local, chosen)
    rows = [Doubling(number=name, seconds=chosen.price.seconds / gain, speedup=gain) for name, gain in gains.items()]
    rows.append(
        Doubling(
            number="memory",
            seconds=roomy.price.seconds,
            speedup=chosen.price.seconds / roomy.price.seconds,
            says="" if roomy is chosen else words(roomy.settings, than=chosen.settings),
        )
    )
    return tuple(sorted(rows, key=lambda row: -row.speedup))


def _with_twice_memory(local: Local, chosen: Way) -> Way:
    """The way to take where the job might hold twice as much; the same one unless memory has cut something."""
    for way in local.known.values():
        whole = way.settings["checkpointing"] == "none" and way.settings["micro_batch"] >= local.share
        if whole and local.fits(way):
            return chosen
    other = explore(local.with_memory(2)).choice
    return other if other is not None and other.price.seconds < chosen.price.seconds else chosen


def _notes(device: Device) -> tuple[str, ...]:
    if device.disturbed <= DISTURBED_SHARE:
        return ()
    return (
        f"other processes had {device.disturbed:.0%} of the cores while this machine was measured, so the times are "
        "too long: thrifty hardware --measure, when they rest, or --probe",
    )


def _ranks(local: Local, chosen: Way) -> tuple[str, ...]:
    """Say what a step of several ranks takes, beside one of one device."""
    if local.ranks == 1:
        return ()
    step = local.compared(chosen)
    return (f"{step.says}; {step.between.method}",)


def _probing(way: Way, probed: Probed) -> Probing:
    return Probing(
        says=words(way.settings),
        predicted_step_s=quote_of(way).step_seconds,
        measured_step_s=statistics.median(probed.step_s),
        steps=len(probed.step_s),
    )
