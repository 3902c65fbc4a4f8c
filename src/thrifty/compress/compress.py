"""`compress`: a run's bundle in, a cheaper one out that is not worse; searched, judged, measured and billed."""

from __future__ import annotations

import hashlib
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thrifty import hardware
from thrifty.compress.guard import Guard, MaxDrop
from thrifty.compress.measure import prompts, requests
from thrifty.compress.moves import MOVES, Candidate, Context
from thrifty.compress.payback import pay_back
from thrifty.compress.search import Asked, Found, measured, search
from thrifty.data import Batch, Store, prepare
from thrifty.data.samples import take
from thrifty.errors import DataError, JobError
from thrifty.export.bundle import Bundle, load_bundle, rewrite_bundle, torch_model
from thrifty.export.writing import can_write
from thrifty.files import hold
from thrifty.ledger import Ledger, Meter, Stage, add_spent
from thrifty.runs import RunFolder
from thrifty.spec import Budget, Compression, Device, Objective, raw_data
from thrifty.spec.events import Emit, StageDone, StageStarted
from thrifty.spec.folders import cache_folder

# training rows that moves look at, and how many are computed at once
CALIBRATION_ROWS, AT_ONCE = 256, 32
STAGE = "compress"
# of a budget, what is kept back to judge and write the bundle
ENDING_S = 5.0


@dataclass(frozen=True)
class Wish:
    """What is asked of a compression.

    Attributes:
        max_drop: of the job's metric.
        objective: what should become less.
        batch: rows of a request.
        requests: that will be answered, within which the search has to pay back.
        budget: of the search.
    """

    max_drop: MaxDrop
    objective: Objective
    batch: int
    requests: float
    budget: Budget


def compress_run(folder: RunFolder, wish: Wish, out: Path, *, ledger: Ledger, emit: Emit) -> Compression:
    """Compress the bundle of a run, with the bill in the run's line of the ledger as stage ``compress``.

    Args:
        folder: a run that is done.
        wish: what is asked for.
        out: folder of the bundle to write.
        ledger: that knows the run.
        emit: is told what happens.

    Raises:
        DataError: the ledger does not know the run, or as `compress` raises.
        BundleError: as `compress` raises.
        BusyError: another process works on the run.
    """
    entry = ledger.entry(folder.folder)
    if entry is None:
        raise DataError(f"the ledger has no line for run '{folder.folder}'", mend="Was it made with another ledger?")
    with hold(folder.folder, "compression"):
        device = hardware.here(kind="cpu")
        emit(StageStarted(STAGE))
        with Meter(device).stage() as stage:
            try:
                made = compress(folder, wish, out, stage, device, emit=emit)
            finally:
                ledger.stage(entry.id, entry.attempts, STAGE, stage.spent())
        emit(StageDone(STAGE, made.ended, stage.spent(), trouble=not made.held))
        folder.keep("compression", made)
    return made


def compress(folder: RunFolder, wish: Wish, out: Path, stage: Stage, device: Device, *, emit: Emit) -> Compression:
    """Search moves on the bundle of a run and write the best that was found as a bundle.

    The search is guarded by the validation split; the one that it chooses is judged once more, on the test split, which
    the search has not seen. Moves look at training rows alone.

    Args:
        folder: a run that is done.
        wish: what is asked for.
        out: folder of the bundle to write.
        stage: that the meter has opened for this.
        device: this machine's processor.
        emit: is told what happens.

    Raises:
        JobError: tokens are to come faster of a model that writes none.
        DataError: the data is not that of the run any more, or there are no held-out rows.
        BundleError: the run's bundle is damaged, or what was made does not read back.
    """
    job, run = folder.job(), folder.plan()
    bundle, writes = load_bundle(folder.bundle), wish.objective == "tokens"
    if writes and not can_write(bundle.info):
        raise JobError(
            f"model '{bundle.info.model.name}' writes no text many at once, whose tokens a second could be more",
            mend="Take --objective latency or throughput; a GPT or a Llama writes.",
        )
    store = prepare(raw_data(job), seed=job.train.seed, cache=cache_folder(), emit=emit)
    if store.dataset.key != bundle.info.data.key:
        raise DataError(
            f"the data of '{folder.folder}' has changed since it was trained on", mend="Run its job again first."
        )
    batches = calibration(store, seed=job.train.seed)
    with tempfile.TemporaryDirectory(prefix="thrifty-compress-") as scratch:
        context = Context(
            store=store, run=run, device=device, calibration=batches, objective=wish.objective, batch=wish.batch,
            seconds=math.inf, seed=job.train.seed, scratch=Path(scratch), emit=emit,
        )  # fmt: skip
        reference = Candidate(torch_model(bundle), bundle.info.model)
        guard = Guard(store, run, "validation", wish.max_drop, reference.answers)
        asked = Asked(
            requests=wish.requests,
            seconds_left=lambda: seconds_left(wish.budget, stage, device) - ENDING_S,
            inputs=(prompts if writes else requests)(store, wish.batch, seed=job.train.seed),
        )
        found = search(reference, MOVES, guard, context, asked)
        return _written(found, bundle, reference, wish, out, stage, device, context, asked)


def calibration(store: Store, *, seed: int) -> tuple[Batch, ...]:
    """Draw the training rows that moves may look at."""
    count = store.dataset.counts["train"]
    chosen = np.random.default_rng(seed).permutation(count)[:CALIBRATION_ROWS]
    return tuple(take(store, "train", chosen[start : start + AT_ONCE]) for start in range(0, len(chosen), AT_ONCE))


def hash_of(batches: tuple[Batch, ...]) -> str:
    """Return the sha256 of the rows of batches."""
    digest = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch):
            digest.update(f"{name} {batch[name].dtype} {batch[name].shape}\n".encode())
            digest.update(np.ascontiguousarray(batch[name]).tobytes())
    return digest.hexdigest()


def seconds_left(budget: Budget, stage: Stage, device: Device) -> float:
    """Return the seconds that are left of the tightest part of a budget, at this device's full power and price."""
    spent = stage.spent()
    return min(
        (budget.time or math.inf) - spent.wall_s,
        ((budget.energy or math.inf) - spent.joules) / device.watts(1.0),
        ((budget.money or math.inf) - spent.usd) / max(device.usd_per_hour.value, 1e-9) * 3600,
    )


def _written(
    found: Found,
    bundle: Bundle,
    reference: Candidate,
    wish: Wish,
    out: Path,
    stage: Stage,
    device: Device,
    context: Context,
    asked: Asked,
) -> Compression:
    chosen = found.chosen.candidate
    test = None
    if context.data.counts.get("test", 0):
        test = Guard(context.store, context.run, "test", wish.max_drop, reference.answers).judge(chosen.answers)
    took = measured({"before": reference, "after": chosen}, asked.inputs, context)
    if not chosen.taken:
        took["after"] = took["before"]  # the same model: what noise makes of it is no saving
    spent = stage.spent()
    compression = Compression(
        objective=wish.objective,
        batch=wish.batch,
        max_drop=wish.max_drop.text,
        moves=chosen.taken,
        says=chosen.says,
        validation=found.chosen.verdict,
        test=test,
        calibration=hash_of(context.calibration),
        calibration_rows=sum(len(each["x"]) for each in context.calibration),
        before=took["before"],
        after=took["after"],
        spent=spent,
        payback=pay_back(took["before"], took["after"], spent, device),
        trials=found.tried,
        left_out=found.left_out,
        ended=found.ended,
    )
    judged = test or found.chosen.verdict
    counted = {name: value for name, value in bundle.info.metrics.items() if name in {"samples", "tokens", "words"}}
    form = chosen.form
    rewrite_bundle(
        out,
        bundle,
        chosen.model if form is None else form.made,
        engine="torch" if form is None else form.engine,
        precision=None if form is None else form.precision,
        model=chosen.plan,
        metrics={judged.metric: judged.candidate, **counted},
        bill=add_spent(bundle.info.bill, spent),
        compression=compression,
    )
    return compression
