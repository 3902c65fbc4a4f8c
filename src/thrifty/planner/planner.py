"""Plan a job here: every decision with its reason, priced before anything runs, and cut to fit the budget."""

from __future__ import annotations

import contextlib
import math
import time
import typing
from collections.abc import Callable, Sequence

import thrifty.planner.rules as rules
from thrifty.cost import peak_bytes
from thrifty.errors import BudgetError
from thrifty.planner.attention import with_attention
from thrifty.planner.breakdown import breakdown
from thrifty.planner.compiling import with_compile
from thrifty.planner.convolution import with_convolution
from thrifty.planner.correction import Seen
from thrifty.planner.devices import check_devices, check_learning, on_ranks, ranks_of, share_of
from thrifty.planner.explain import MEMORY_TOLD, quote_of
from thrifty.planner.explore import explore
from thrifty.planner.fit import check_left, fit, time_limit
from thrifty.planner.learning import Learning, decide
from thrifty.planner.lengths import evaluation_ratio
from thrifty.planner.loading import SHOWN, loading_of, say_loading
from thrifty.planner.local import Local
from thrifty.planner.moves import name_of
from thrifty.planner.proven import proof_of
from thrifty.planner.rules import Reasons
from thrifty.planner.search import INDIFFERENCE, Found, Settings, Way
from thrifty.planner.settle import asker_of
from thrifty.planner.steps import rows_of
from thrifty.spec import KINDS, BatchPlan, Checkpointing, Cost, Dataset, Device, Interval, Job, Plan, Probed, Spent
from thrifty.spec.traced import Traced
from thrifty.spec.units import format_bytes, format_seconds

# samples validated at once where memory allows: more gain nothing on the machines measured
CHECKPOINT_SECONDS = 10.0
# Ways that the prediction cannot tell apart are probed, this many at most, while that costs less than this share of
# the training; a probe takes about seven steps, ten seconds at most.
CONTENDERS, PROBE_SHARE = 3, 0.02
PROBE_STEPS, PROBE_SECONDS = 7, 10.0
# of what a budget leaves, for the first probe: without one the step is as predicted
FIRST_PROBE_SHARE = 0.1
CHOSEN_FIELDS = ("precision", "memory_format", "checkpointing", "batching", "micro_batch")

_NOTHING = Interval(low=0, value=0, high=0, method="not priced yet")
UNPRICED = Cost(seconds=_NOTHING, peak_bytes=_NOTHING, joules=_NOTHING, usd=_NOTHING, flops=_NOTHING)

Probe = Callable[[Plan], Probed]


def plan(
    job: Job,
    dataset: Dataset,
    device: Device,
    *,
    key: str,
    spent: Spent,
    probe: Probe | None = None,
    history: Sequence[Seen] = (),
    held: int = 0,
    traced: Callable[[Traced], None] | None = None,
) -> Plan:
    """Decide everything a job leaves open.

    Args:
        job: what is wanted.
        dataset: what was prepared.
        device: what it will run on.
        key: content key of the run.
        spent: what the run has spent already; the time that this takes is added to it.
        probe: times a few real steps of a plan; without it, and where a budget leaves no time for it, the step time is
            predicted from the trace alone.
        history: earlier runs on this machine, by which predictions are corrected.
        held: bytes that the process holds already.
        traced: is told where memory and time of the planned step go.

    Raises:
        JobError: a name is in no table, or model and data do not fit.
        BudgetError: the budget is too small for one step and one validation; it says what would be enough.
    """
    why, spending = Reasons([]), since(spent)
    check_left(job, device, spent)
    learning, share = prepared_for(job, dataset, device, why)
    # a rank alone holds the whole of what ranks share out
    probe = None if job.plan.zero else probe
    # real steps tell more than operators do
    with asker_of(share) if probe is None or device.kind == "cuda" else contextlib.nullcontext() as asker:
        local = Local(job, learning, dataset, share, history, asker=asker, held=held, whole=device)
        try:
            found = explore(local)
        except BudgetError:
            trusting = local.trusting()
            if trusting is None:
                raise
            local, found = trusting, explore(trusting)
        check_left(job, device, spending())
        probe = probe if _leaves_a_probe(local, found, spending()) else None
        return plan_of(local, found, why, key=key, spent=spending, probe=probe, traced=traced)


def since(spent: Spent) -> Callable[[], Spent]:
    """Return what tells the spent until now, from what it is at this call on."""
    began = time.perf_counter()
    return lambda: spent.model_copy(update={"wall_s": spent.wall_s + time.perf_counter() - began})


def _leaves_a_probe(local: Local, found: Found, spent: Spent) -> bool:
    """Whether a probe takes little of what the budget leaves."""
    assert found.choice is not None
    left_s = time_limit(local.job, local.device)[0] - spent.wall_s
    return _probe_seconds(found.choice) <= FIRST_PROBE_SHARE * left_s


def _probe_seconds(way: Way) -> float:
    return min(PROBE_SECONDS, PROBE_STEPS * quote_of(way).step_seconds)


def prepared_for(job: Job, dataset: Dataset, device: Device, why: Reasons) -> tuple[Learning, Device]:
    """Decide what is learned, and what of the machine each device has that trains it.

    Raises:
        JobError: a name is in no table, model and data do not fit, or so many devices cannot do it.
    """
    check_devices(job, device)
    device = share_of(device, ranks_of(job))
    learning = with_attention(decide(job, dataset, why), dataset, device, why)
    learning = with_convolution(learning, dataset, device, why, job.plan.precision)
    check_learning(job, learning)
    return learning, device


def plan_of(
    local: Local,
    found: Found,
    why: Reasons,
    *,
    key: str,
    spent: Callable[[], Spent],
    probe: Probe | None = None,
    traced: Callable[[Traced], None] | None = None,
) -> Plan:
    """Make the plan of what was found, probing the ways that the prediction cannot tell apart."""
    ways = contenders(found, time_limit(local.job, local.device)[0] - spent().wall_s)
    # what may not fit is dry-run before it is probed
    ways = ways if probe and not local.doubt else ways[:1]
    drafts = [draft_of(local, way, key) for way in ways]
    chosen, draft, probed = ways[0], drafts[0], Probed(step_s=(), save_s=0.0)
    source: rules.Source = "search"
    if probe and not local.doubt:
        fastest, probed = fastest_of(drafts, probe)
        chosen, draft = ways[fastest], drafts[fastest]
        source = "probe" if len(ways) > 1 else "search"
    fitted = _fitted(local, chosen, draft, probed, spent, why)
    # a dry run knows the heap better than the trace that the way was chosen by
    while fitted.cost.peak_bytes.high > local.sure_bytes and (smaller := local.smaller(chosen)) is not None:
        chosen = smaller
        draft = draft_of(local, chosen, key)
        fitted = _fitted(local, chosen, draft, probed, spent, why)
    if probe and (local.doubt or not any(chosen is way for way in ways)):
        fitted = _fitted(local, chosen, draft, probe(draft), spent, why)
    _say_why(local, found, chosen, why, source)
    say_loading(fitted, local.job, local.device, local.trace(chosen.settings), why)
    fitted = with_compile(fitted, local, chosen, why)
    if local.ranks > 1:
        trace, step = local.trace(chosen.settings), local.compared(chosen)
        fitted = on_ranks(fitted, local.learning, trace, local.freed, local.device, step, why)
    if traced is not None:
        largest, typical = local.trace(chosen.settings), local.typical(chosen.settings)
        accumulating, peak = fitted.batch.accumulation > 1, fitted.cost.peak_bytes.value
        traced(breakdown(largest, typical, local.device, peak_bytes=peak, accumulating=accumulating))
    return fitted.model_copy(update={"why": tuple(why.lines)})


def fastest_of(drafts: Sequence[Plan], probe: Probe) -> tuple[int, Probed]:
    """Probe drafts, the one with the best price first; return the place of the fastest, and its probe.

    Where another is faster than the first, the first is probed once more: a shared machine is slow at times.
    """

    def median_s(probed: Probed) -> float:
        return sorted(probed.step_s)[len(probed.step_s) // 2]

    probes = [probe(each) for each in drafts]
    if min(map(median_s, probes)) < median_s(probes[0]):
        probes[0] = min(probes[0], probe(drafts[0]), key=median_s)
    fastest = min(range(len(drafts)), key=lambda at: median_s(probes[at]))
    return fastest, probes[fastest]


def _fitted(local: Local, way: Way, draft: Plan, probed: Probed, spent: Callable[[], Spent], why: Reasons) -> Plan:
    """Cut a draft to the budget by a dry run of it; what would take the peak past memory is cut first.

    First batches that wait, then the copy of the state that is saved beside training, then the samples of a validation.
    """
    micro = draft.batch.micro
    why.lines = [line for line in why.lines if line.field not in {"loading", "saving"}]  # of a way tried before
    while True:
        held = local.dry_run(way.settings, draft.batch.evaluation)
        traces = (local.typical(way.settings), local.trace(way.settings))
        fitted = fit(
            draft,
            local.job,
            local.dataset,
            local.device,
            traces,
            probed,
            spent(),
            why,
            local.correct,
            held,
            local.waits(way.settings),
        )
        over = fitted.cost.peak_bytes.high > local.sure_bytes
        if over and local.device.kind == "cpu" and draft.loading == "beside" and not local.job.plan.loading:
            draft = draft.model_copy(update={"loading": "between"})
            why.say("loading", SHOWN["between"], f"batches that wait do not fit {local.memory[1]}")
            continue
        if over and local.device.kind == "cpu" and draft.saving == "beside":
            draft = draft.model_copy(update={"saving": "between"})
            why.say("saving", "between steps", f"a copy of the state beside training does not fit {local.memory[1]}")
            continue
        validates = held.heap is not None and held.heap.evaluation > held.heap.step
        if not over or not validates or draft.batch.evaluation <= micro:
            return fitted
        draft = draft.model_copy(update={"batch": draft.batch.model_copy(update={"evaluation": micro})})


def contenders(found: Found, left_s: float) -> list[Way]:
    """Return the chosen way, and those that its prediction may be wrong about, while probing them is cheap.

    Cheap is a small share of the training, or of the seconds that a budget leaves.
    """
    chosen = found.choice
    assert chosen is not None
    seconds = quote_of(chosen).cost.seconds
    rivals = sorted(found.feasible, key=lambda way: way.price.seconds)
    rivals = [way for way in rivals if way is not chosen and way.price.seconds <= seconds.high]
    rivals = [way for way in rivals if not _only_computes_more(way, chosen)]
    affordable = int(PROBE_SHARE * max(0.0, min(seconds.value, left_s)) / _probe_seconds(chosen))
    return [chosen, *rivals[: max(0, min(CONTENDERS, affordable) - 1)]]


def _only_computes_more(way: Way, chosen: Way) -> bool:
    """Whether a way computes again what the chosen one keeps, and takes no more samples at once for it."""
    kinds = typing.get_args(Checkpointing)
    more = kinds.index(way.settings["checkpointing"]) > kinds.index(chosen.settings["checkpointing"])
    return more and way.settings["micro_batch"] <= chosen.settings["micro_batch"]


def draft_of(local: Local, way: Way, key: str) -> Plan:
    """The plan of a way as the rules would have it, without limits."""
    learning, settings = local.learning, way.settings
    micro = settings["micro_batch"]
    return Plan(
        job=local.job.name,
        key=key,
        task=learning.task,
        model=learning.model,
        init=learning.init,
        optim=learning.optim,
        batch=BatchPlan(
            size=learning.size,
            micro=micro,
            accumulation=math.ceil(local.share / micro),
            evaluation=_evaluation_batch(local, settings),
            batching=settings.get("batching", "padded"),
        ),
        stop=learning.stop,
        device="cuda" if local.device.kind == "cuda" else "cpu",
        threads=local.job.plan.threads or local.device.threads,
        devices=local.ranks,
        zero=3 if local.job.plan.zero else 0,
        precision=settings["precision"],
        memory_format=settings["memory_format"],
        checkpointing=settings["checkpointing"],
        dropout=rules.dropout(learning.traits)[0],
        rows=rows_of(learning, settings["precision"]),
        gradient_release=local.releases,
        offload=bool(local.job.plan.offload),
        augment=local.job.train.augment,
        progressive=learning.growth.begin if learning.growth is not None else 1.0,
        loading=loading_of(local.job, local.device),
        label_smoothing=local.job.train.label_smoothing,
        adapt=learning.adapt,
        evaluate_every=learning.stop.steps,
        checkpoint_seconds=CHECKPOINT_SECONDS,
        memory=local.job.budget.memory or math.inf,
        seed=local.job.train.seed,
        cost=UNPRICED,
        why=(),
    )


def _say_why(local: Local, found: Found, chosen: Way, why: Reasons, source: rules.Source) -> None:
    """Give a reason for each field that was chosen: the pin, what the others would take, or why there is no other."""
    pins, size = local.job.plan, local.learning.size
    limit = local.memory[1]
    for field in filter(chosen.settings.__contains__, CHOSEN_FIELDS):
        value = chosen.settings[field]
        if field == "batching" and local.learning.apart:
            continue
        if getattr(pins, field) is not None:
            why.say(
                field, value, "asked for in the job", "job", _unproven(local, value) if field == "precision" else ""
            )
            continue
        others = [way for way in found.feasible if way.settings[field] != value]
        facts = {
            "precision": _proven(local, value) if field == "precision" else "",
            "memory_format": rules.memory_format(local.learning.traits)[1],
            "checkpointing": _memory_kept(local, found, chosen),
            "batching": _padding(local, chosen),
            "micro_batch": f"the whole batch fits {limit}" if value == size else f"the batch stays {size:,}; {limit}",
        }
        best = min(others, key=lambda way: way.price.seconds, default=None)
        compared = _compared(chosen, best, field, source) if best else ""
        doubt = _doubt(chosen) if others else rules.DOUBTS.get(field, "")
        why.say(field, value, "; ".join(part for part in (compared, facts[field]) if part), source, doubt)
    if local.releases:
        why.say("gradient_release", *rules.gradient_release(), "job", rules.DOUBTS["gradient_release"])
    if local.job.plan.offload:
        why.say("offload", *rules.offload(), "job", rules.DOUBTS["offload"])
    if local.learning.traits.drops:
        why.say("dropout", *rules.dropout(local.learning.traits))
    precision = chosen.settings["precision"]
    if rows_of(local.learning, precision) != local.learning.rows:
        why.say("rows", "all", f"weights are held in bf16 ({precision}), and rows that wait are float32's")
    threads = (local.device.threads, "each core this process may use" if local.ranks == 1 else "its share of the cores")
    why.take("threads", pins.threads, threads, source="measured")


def _proven(local: Local, precision: str) -> str:
    """What the device gains by bf16, and how it is known that the precision learns what fp32 does."""
    proof = proof_of(precision, local.learning.model.family)
    known = f"; {proof.source}" if proof is not None and precision != "fp32" else ""
    return rules.precision(local.device)[1] + known


def _unproven(local: Local, precision: str) -> str:
    """The doubt about a precision that was asked for."""
    family = local.learning.model.family
    return "" if proof_of(precision, family) else f"not proven to learn what fp32 does on models of family {family}"


def _padding(local: Local, chosen: Way) -> str:
    """What batching has to do with the tokens that texts take, or frames that recordings do."""
    lengths = {how: local.length({**chosen.settings, "batching": how}) for how in local.batchings}
    if None in lengths.values():
        return ""
    said = ", ".join(f"{name_of('batching', how)} {length}" for how, length in lengths.items())
    done = rules.BATCHING[chosen.settings["batching"]]
    what = "frames that a recording" if local.dataset.kind == "audio" else "tokens that a text"
    return f"{done}; {what} takes in the mean: {said}"


def _memory_kept(local: Local, found: Found, chosen: Way) -> str:
    """What the memory has to do with what is computed again."""
    value, limit = chosen.settings["checkpointing"], local.memory[1]
    if not local.repeats:
        return "the model has no repeated blocks to compute again"
    if value == "none":
        return f"what the backward pass needs fits {limit}"
    if any(way.settings["checkpointing"] == "none" for way in found.feasible):
        return f"less is kept for the backward pass; {limit}"
    needed = local.peak({**chosen.settings, "checkpointing": "none", "micro_batch": local.fewest})
    said = "one sample at a time needs" if local.fewest == 1 else f"{local.fewest:,} samples at a time need"
    return f"without it {said} up to {format_bytes(needed.high)}; {limit}"


def _compared(chosen: Way, other: Way, field: str, source: rules.Source) -> str:
    ratio = other.price.seconds / chosen.price.seconds
    name = name_of(field, other.settings[field])
    saved = 1 - other.price.peak_bytes / chosen.price.peak_bytes
    memory = f" and {abs(saved):.0%} {'less' if saved > 0 else 'more'} memory".replace("%", " %")
    memory = memory if field == "checkpointing" and abs(saved) >= MEMORY_TOLD else ""
    if ratio >= 2:
        return f"{name} would take {ratio:.1f} times as long{memory}"
    if abs(ratio - 1) < INDIFFERENCE:
        return f"{name} would take as long{memory}"
    share = f"{abs(ratio - 1):.0%}".replace("%", " %")
    if ratio > 1:
        return f"{name} would take {share} longer{memory}"
    but = "was slower in a probe" if source == "probe" else "may need more memory than there is"
    return f"{name} would take {share} less by the prediction, but {but}"


def _doubt(chosen: Way) -> str:
    seconds = quote_of(chosen).cost.seconds
    return (
        f"the prediction's range is {format_seconds(seconds.low)} to {format_seconds(seconds.high)}: a probe settles it"
    )


def _evaluation_batch(local: Local, settings: Settings) -> int:
    """Samples validated at once: what is worth while, halved until it fits, but never under a micro-batch."""
    dataset, micro, size = local.dataset, settings["micro_batch"], local.learning.size
    batching = settings.get("batching", "padded")
    # a validation of texts is padded: of more at once than are packed it would need more memory than training does
    most = micro if batching == "packed" else max(micro, KINDS[dataset.kind].validated)
    wanted = min(most, dataset.counts["validation"])
    while wanted > micro:
        ratio = evaluation_ratio(dataset, wanted, batch=size, micro=micro, batching=batching)
        peak = peak_bytes(local.trace(settings), evaluation_batch_ratio=ratio, device_kind=local.device.kind)
        if peak.high <= local.memory[0]:
            break
        wanted = max(wanted // 2, micro)
    return wanted
