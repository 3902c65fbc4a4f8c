"""The main path of a run: prepare, plan, build, initialise, train, validate, bundle; each stage metered and billed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thrifty import hardware, models
from thrifty.data import Store, content_key, prepare
from thrifty.errors import JobError, SignalledError, StorageError, ThriftyError
from thrifty.files import hold, write_atomic
from thrifty.hardware.pages import give_back, keep_pages, keeping, settled
from thrifty.hardware.runtime import runtime_bytes
from thrifty.ledger import TRAIN, Entry, Ledger, Meter, Stage, add_spent, resident_bytes
from thrifty.names import check_names
from thrifty.runs import Result, RunFolder, folder_for
from thrifty.spec import Compression, Dataset, Device, Job, Plan, Spent, raw_data
from thrifty.spec.beside import Beside
from thrifty.spec.events import (
    Checkpointed,
    Emit,
    Ended,
    Evaluated,
    Event,
    Paused,
    Planned,
    RolledBack,
    Skipped,
    StageDone,
    StageStarted,
    StepDone,
    Warned,
    WentOn,
)
from thrifty.spec.folders import cache_folder
from thrifty.spec.mistakes import Mistakes
from thrifty.spec.traced import Traced
from thrifty.spec.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from torch import nn

    from thrifty.evaluate import Evaluation
    from thrifty.report import Language
    from thrifty.report.to import Writers
    from thrifty.train import Trained
    from thrifty.train.line import Use

# what a job may pin that changes only the order in which sums are rounded
ROUNDING_PINS = {
    "device", "threads", "micro_batch", "checkpointing", "memory_format", "gradient_release", "offload", "data",
    "zero", "loading",
}  # fmt: skip
# rooms whose code decides what is learned: a change in them makes a new run
CODE_ROOMS = ("data", "models", "optim", "planner", "train", "evaluate")
PROMPT_TOKENS = 48
COMPLETION_TOKENS = 96


@dataclass(frozen=True)
class Outcome:
    """What `run` did: the folder, how training ended, the bill, and whether anything had to be done at all."""

    folder: Path
    result: Result
    entry: Entry
    fresh: bool


def run(job: Job, job_text: str, *, runs: Path, ledger: Ledger, emit: Emit, strict: bool = False) -> Outcome:
    """Carry a job the whole way, going on where an earlier attempt ended; do nothing when it is done already.

    Args:
        job: what is wanted; its data path is absolute.
        job_text: the file it came from, kept in the run folder.
        runs: folder of all runs.
        ledger: where the bill is kept.
        emit: is told what happens.
        strict: data of which anything is not used is an error, of a job that is done already too.

    Raises:
        ThriftyError: of the kind that fits; the run can be gone on with once it is mended.
    """
    check_names(job)
    key, course = _keys(job)
    folder = folder_for(runs, job.name, key, course=course)
    attempt = _Run(job, job_text, key, course, folder, ledger, emit, strict)
    if folder.find("result", Result) is None:
        with hold(folder.folder, "run"):
            # another process may have finished it while this one looked at the data
            if folder.find("result", Result) is None:
                return attempt.go()
    return attempt.done_before()


def run_key(job: Job) -> str:
    """Content key of a job: of what it asks for, the bytes of its data and of its model, and the code that decides."""
    return _keys(job)[0]


def _keys(job: Job) -> tuple[str, str]:
    """The key of a run, and that of its course: of what is learned, whichever way it is computed."""
    model = models.content_key(job.model)
    data = content_key(raw_data(job), seed=job.train.seed, cache=cache_folder())

    def key(pins: set[str]) -> str:
        # who is told of a run, and how others like it are searched for, change nothing of it
        left_out: dict[str, Any] = {"data": {"path", "tokenizer"}, "model": True, "plan": pins}
        left_out |= {"report_to": True, "tune": True}
        asked = job.model_dump_json(exclude=left_out)
        return hashlib.sha256(f"{asked}\n{model}\n{data}\n{code_key()}".encode()).hexdigest()[:20]

    return key(set()), key(ROUNDING_PINS)


def code_key() -> str:
    """Content key of the rooms whose code decides what is learned."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for room in CODE_ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:20]


@dataclass
class _Run:
    """One attempt at a run; `go` is read from top to bottom."""

    job: Job
    job_text: str
    key: str
    course: str
    folder: RunFolder
    ledger: Ledger
    emit: Emit
    strict: bool
    device: Device = field(init=False)
    meter: Meter = field(init=False)
    run_id: int = field(init=False)
    attempt: int = field(init=False)
    earlier: Spent = field(init=False)
    whole: Stage = field(init=False)
    bare_bytes: int = field(init=False)
    loaded_bytes: int = 0
    uses: Sequence[Use] = ()

    def go(self) -> Outcome:
        # again in every attempt: a kill may have come between the key and the job
        self.folder.claim(self.key, self.job, self.job_text, course=self.course)
        # packages of others are none of what the run takes, and the folder's attempts are one run to them
        writers = self._writers()
        self.folder.let_go()
        # before the hardware is measured, which loads torch: its memory is part of what the run takes
        self.bare_bytes = resident_bytes()
        loaded = "torch" in sys.modules
        self.emit(StageStarted("hardware"))  # the first run on a machine measures it, for some minutes at worst
        self.device = hardware.here(kind=self.job.plan.device)
        if loaded and self.device.kind == "cpu":
            # a prediction counts them as part of the run
            self.loaded_bytes = runtime_bytes(self.device.cores)["imports"]
        self.folder.keep("device", self.device)
        self._open_bill()
        kept, shown = self.folder.writer(), self.emit

        def emit(event: Event) -> None:
            if isinstance(event, Paused):
                self.meter.rest()
            elif isinstance(event, WentOn):
                self.meter.go_on()
            kept(event)
            shown(event)
            if writers is not None:
                writers(event, shown)

        self.emit = emit
        with settled():
            try:
                with self.meter.stage(peak_above=self.bare_bytes) as self.whole:
                    result = self._stages()
            except ThriftyError as error:
                status: Literal["stopped", "failed"] = "stopped" if isinstance(error, SignalledError) else "failed"
                self.ledger.finish(self.run_id, status=status, metrics={}, reason=str(error))
                kept.flush()
                emit(self._ended(status, str(error), {}))
                if status == "failed":
                    self._show_broken(shown)
                raise
            else:
                kept.flush()
                self.folder.keep("result", result)
                emit(self._ended("done", result.reason, result.test))
            finally:
                kept.flush()
                if writers is not None:
                    writers.close(shown)
                give_back()  # the caller's process may live on
        shutil.rmtree(self.folder.checkpoints, ignore_errors=True)
        (self.folder.folder / "control.json").unlink(missing_ok=True)
        return self._close_bill(result, fresh=True)

    def _ended(self, status: str, reason: str, metrics: dict[str, float]) -> Ended:
        entry = self.ledger.entry(self.folder.folder)
        return Ended(status, reason, metrics, entry.total if entry is not None else Spent())

    def _writers(self) -> Writers | None:
        if not self.job.report_to:
            return None
        from thrifty.report.to import open_writers

        return open_writers(self.job.report_to, name=self.job.name, folder=self.folder.folder)

    def done_before(self) -> Outcome:
        """The run is complete: say so, mending a ledger that a kill left a line behind."""
        if self.strict:
            self._prepare()
        result = self.folder.result()
        entry = self.ledger.entry(self.folder.folder)
        if entry is None or entry.status != "done":
            self.device = self.folder.device()
            self._open_bill()
            return self._close_bill(result, fresh=False)
        return Outcome(self.folder.folder, result, entry, fresh=False)

    def _prepare(self) -> Store:
        job = self.job
        return prepare(raw_data(job), seed=job.train.seed, cache=cache_folder(), emit=self.emit, strict=self.strict)

    def _stages(self) -> Result:
        with self._stage("prepare") as stage:
            store = self._prepare()
            self._keep_dataset(store)
            stage.says = _prepared(store)
        with self._stage("plan") as stage:
            plan = self._plan_to_follow(store)
            give_back()  # traces and probes are done with
            self.folder.keep("plan", plan)
            self.ledger.planned(self.run_id, plan)
            self.emit(Planned(plan, self.device))
            ranks = f"{plan.devices} devices x " if plan.devices > 1 else ""
            batch = f"batch {plan.batch.size} = {ranks}{plan.batch.accumulation} x {plan.batch.micro}"
            again = "" if plan.checkpointing == "none" else f", {plan.checkpointing} checkpointing"
            compiled = {"none": "", "blocks": ", blocks compiled", "whole": ", compiled"}[plan.compile]
            packed = ", documents apart" if plan.task == "language" else ", packed"
            order = {"padded": "", "by_length": ", by length", "packed": packed}[plan.batch.batching]
            stage.says = f"{plan.precision}, {batch}{order}{again}{compiled}, {plan.stop.steps:,} steps"
        with self._stage("build") as stage:
            from thrifty.models import build

            # weights lie in the heap, as the dry run has them
            keep_pages(keeping(plan.device, plan.checkpointing))
            model = build(plan.model, seed=plan.seed)
            count = sum(p.numel() for p in model.parameters())
            stage.says = f"{plan.model.name}, {format_count(count)} parameters"
        with self._stage("initialise") as stage:
            from thrifty.models.init import initialise
            from thrifty.train.scales import measure_scales

            stage.says = initialise(model, plan.init, plan.seed, plan.model)
            if scales := measure_scales(plan, model, store):
                self.emit(scales)
        with self._stage("train", plan) as stage:
            trained = self._train(plan, model, store)
            stage.trouble = trained.gave_up
            stage.says = trained.reason + _kept(trained) + _wasted(trained.wasted_seconds) + _ranks(self._rank_bytes())
        with self._stage("validate") as stage:
            from thrifty.report.held_out import held_out_line
            from thrifty.train import evaluate_split

            tested = evaluate_split(plan, model, store, "test", one_by_one=True)
            self._keep_mistakes(store, tested)
            stage.says = held_out_line(tested.metrics)
        with self._stage("bundle") as stage:
            prompt, completion = self._bundle(plan, model, store, tested.metrics)
            size = sum(path.stat().st_size for path in self.folder.bundle.iterdir())
            stage.says = f"{self.folder.bundle} ({format_bytes(size)})"
        return Result(
            key=self.key,
            reason=trained.reason,
            wasted_s=trained.wasted_seconds,
            loading_share=trained.loading_share,
            rank_bytes=self._rank_bytes(),
            steps=trained.steps,
            best_step=trained.best_step,
            validation=trained.metrics,
            test=tested.metrics,
            confusion=tested.confusion,
            by_label=tested.by_label,
            prompt=prompt,
            completion=completion,
        )

    def _keep_dataset(self, store: Store) -> None:
        self.folder.keep("dataset", store.dataset)
        rejects = store.folder / "rejects.jsonl"
        if rejects.is_file():
            write_atomic(self.folder.rejects, rejects.read_bytes(), purpose="the rejected files")

    def _keep_mistakes(self, store: Store, tested: Evaluation) -> None:
        """Keep what the answers to the test split show one by one."""
        from thrifty.data.shown import raw_folder
        from thrifty.evaluate.mistakes import mistakes_of

        if tested.one_by_one is not None and len(tested.one_by_one.losses):
            source = raw_folder(raw_data(self.job), cache_folder())
            self.folder.keep("mistakes", mistakes_of(store, tested.one_by_one, source))

    def _plan_to_follow(self, store: Store) -> Plan:
        """The plan of an earlier attempt, or a new one; where other pins came since, what is learned stays the same."""
        first = self.folder.find("plan", Plan)
        if first is not None and first.key == self.key:
            return first
        anew = self._plan(store)
        return anew if first is None else _computed_as(first, anew)

    def _plan(self, store: Store) -> Plan:
        from thrifty import planner
        from thrifty.train import probe_steps

        return planner.plan(
            self.job,
            store.dataset,
            self.device,
            key=self.key,
            spent=self._spent(),
            probe=lambda draft: probe_steps(draft, store, self.folder.folder),
            history=planner.seen(self.ledger.entries(limit=planner.HISTORY, worst_first=False), self.device.name),
            held=max(0, self.bare_bytes - self.loaded_bytes),
            traced=lambda found: self.folder.keep("traced", found),
        )

    def _train(self, plan: Plan, model: nn.Module, store: Store) -> Trained:
        steer = self.folder.steering
        if plan.devices == 1:
            from thrifty.train import train

            return train(plan, model, store, self.folder.checkpoints, emit=self.emit, spent=self._spent, steer=steer)
        from thrifty.train.launch import train_on_ranks

        def note(uses: Sequence[Use]) -> None:
            self.uses = uses

        return train_on_ranks(
            plan, model, store, self.folder.checkpoints, emit=self.emit, spent=self._spent, used=note, steer=steer
        )

    def _bundle(self, plan: Plan, model: nn.Module, store: Store, metrics: dict[str, float]) -> tuple[str, str]:
        from thrifty.data.documents.tokenizer import load_tokenizer
        from thrifty.export.bundle import load_bundle, write_bundle

        tokenizer = store.folder / "tokenizer.json"
        write_bundle(
            self.folder.bundle,
            name=self.job.name,
            version=1,
            task=plan.task,
            model=model,
            plan=plan.model,
            data=store.dataset,
            tokenizer=tokenizer if tokenizer.is_file() else None,
            metrics=metrics,
            isa=self.device.isa,
            bill=self._spent(),
        )
        bundle = load_bundle(self.folder.bundle)
        if plan.task != "language":
            return "", ""
        prompt = load_tokenizer(store.folder, store.dataset.end).decode(
            store.array("test", "tokens")[1 : 1 + PROMPT_TOKENS].tolist()
        )
        return prompt, bundle.predict(prompt, max_tokens=COMPLETION_TOKENS)["completion"]

    @contextlib.contextmanager
    def _stage(self, name: str, plan: Plan | None = None) -> Iterator[_Says]:
        """Meter one stage; while it trains, each checkpoint also brings the ledger up to date."""
        says = _Says()
        outer = self.emit
        self.emit(StageStarted(name))
        predicted = plan.cost if plan else None
        steps = 0

        with self.meter.stage(peak_above=self.bare_bytes) as stage:

            def spent() -> Spent:
                if plan is None:
                    return stage.spent()
                own = stage.spent(flops=plan.cost.flops.value * steps / plan.stop.steps, precision=plan.precision)
                return with_ranks(own, self.uses, self.device)

            def emit(event: Event) -> None:
                nonlocal steps
                steps += isinstance(event, StepDone)
                outer(event)
                if isinstance(event, Checkpointed):
                    # said again when the stage ends: a disk that is full for a while must not end training
                    with contextlib.suppress(StorageError):
                        self.ledger.stage(self.run_id, self.attempt, name, spent(), predicted)

            self.emit = emit
            try:
                yield says
            finally:
                self.emit, took = outer, spent()
                self.ledger.stage(self.run_id, self.attempt, name, took, predicted)
        outer(StageDone(name, says.says, took, says.trouble))

    def _rank_bytes(self) -> tuple[int, ...]:
        return tuple(sorted((each.device_peak_bytes or each.peak_rss_bytes for each in self.uses), reverse=True))

    def _spent(self) -> Spent:
        """What the whole run has spent, earlier attempts included."""
        return add_spent(self.earlier, with_ranks(self.whole.spent(), self.uses, self.device))

    def _open_bill(self) -> None:
        from thrifty.planner.devices import all_of, ranks_of

        before = self.ledger.entry(self.folder.folder)
        self.earlier = before.total if before is not None and before.key == self.course else Spent()
        ranks = ranks_of(self.job)
        self.meter = Meter(all_of(self.device, ranks), boards=ranks)
        self.run_id = self.ledger.begin(
            name=self.job.name,
            key=self.course,
            folder=self.folder.folder,
            job=self.job.model_dump_json(),
            device=self.device,
            code=code_key(),
            pid=os.getpid(),
        )
        entry = self.ledger.entry(self.folder.folder)
        assert entry is not None
        self.attempt = entry.attempts

    def _show_broken(self, shown: Emit) -> None:
        """Write the page of a run that broke off while it trained, which may show why; it must not hide the error."""
        entry = self.ledger.entry(self.folder.folder)
        if entry is None or not any(each.stage == TRAIN for each in entry.stages):
            return
        with contextlib.suppress(ThriftyError, OSError):
            shown(Warned(f"what happened until then is in {write_report(self.folder, entry)}"))

    def _close_bill(self, result: Result, *, fresh: bool) -> Outcome:
        self.ledger.finish(self.run_id, status="done", metrics=result.test, reason=result.reason)
        entry = self.ledger.entry(self.folder.folder)
        assert entry is not None
        write_report(self.folder, entry)
        return Outcome(self.folder.folder, result, entry, fresh)


def _computed_as(first: Plan, anew: Plan) -> Plan:
    """The first plan, computed as the new one would have it: the same but for rounding."""
    if first.rows == "used" and (anew.zero or anew.offload):
        without = "plan.zero" if anew.zero else "plan.offload"
        raise JobError(
            f"this run trains of its embedding the rows used alone, and with {without} there are no such rows",
            mend=f"Go on without it: leave {without} out.",
        )
    how = (
        "key", "device", "threads", "devices", "zero", "memory_format", "checkpointing", "gradient_release", "offload",
        "loading", "saving", "cost",
    )  # fmt: skip
    batch = {name: getattr(anew.batch, name) for name in ("micro", "accumulation", "evaluation")}
    spread = {"devices", "zero", "gradient_release", "offload"}
    why = {line.field: line for line in first.why if line.field not in spread} | {
        line.field: line for line in anew.why if line.field in ROUNDING_PINS | spread
    }
    return first.model_copy(
        update={name: getattr(anew, name) for name in how}
        | {"batch": first.batch.model_copy(update=batch), "why": tuple(why.values())}
    )


def with_ranks(spent: Spent, uses: Sequence[Use], device: Device) -> Spent:
    """Add what the ranks of a run used to what its own process did.

    Processor seconds of ranks that have ended are the process's own, as those of its children.
    """
    if not uses:
        return spent
    return spent.model_copy(
        update={
            "cpu_s": spent.cpu_s + sum(each.cpu_s for each in uses),
            "peak_rss_bytes": spent.peak_rss_bytes + sum(each.peak_rss_bytes for each in uses),
            "written_bytes": spent.written_bytes + sum(each.written_bytes for each in uses),
            "device_peak_bytes": max(spent.device_peak_bytes, *(each.device_peak_bytes for each in uses)),
        }
    )


def _kept(trained: Trained) -> str:
    return f"; the weights of step {trained.best_step:,} are the best" if trained.best_step < trained.steps else ""


def _wasted(seconds: float) -> str:
    return f"; {format_seconds(seconds)} of it wasted on steps that were skipped or rolled back" if seconds else ""


def _ranks(rank_bytes: Sequence[int]) -> str:
    from thrifty.report.rows import ranks_text

    return f"; {ranks_text(rank_bytes)}" if rank_bytes else ""


def write_report(folder: RunFolder, entry: Entry, language: Language = "en") -> Path:
    """Write the run's page from its folder and its bill; of a run that has no result, what there is until here.

    Args:
        folder: of the run.
        entry: its line of the ledger.
        language: that the page opens in; it holds both.
    """
    from thrifty.report import Left, write_page
    from thrifty.report.rows import Aside

    events = folder.events()
    result = folder.find("result", Result) or _none_yet(folder, events)
    job = folder.folder / "job.yaml"
    left = Left(
        traced=folder.find("traced", Traced),
        mistakes=folder.find("mistakes", Mistakes),
        beside=folder.find("beside", Beside),
        answerings=folder.answerings(),
        compression=folder.find("compression", Compression),
    )
    return write_page(
        folder.page,
        entry=entry,
        plan=folder.find("plan", Plan),
        dataset=folder.find("dataset", Dataset),
        device=folder.find("device", Device),
        steps=[event for event in events if isinstance(event, StepDone)],
        evaluations=[event for event in events if isinstance(event, Evaluated)],
        others=[event for event in events if not isinstance(event, StepDone | Evaluated)],
        aside=Aside(result.wasted_s, result.rank_bytes, result.loading_share),
        kept=result.best_step,
        confusion=result.confusion,
        by_label=result.by_label,
        prompt=result.prompt,
        completion=result.completion,
        rejects=folder.rejected(),
        job_text=job.read_text(encoding="utf-8", errors="replace") if job.is_file() else "",
        left=left,
        language=language,
    )


def _none_yet(folder: RunFolder, events: Sequence[Event]) -> Result:
    """What there is to show of a run that is under way, or broke off."""
    steps = max((event.step for event in events if isinstance(event, StepDone)), default=0)
    wasted_s = sum(event.seconds for event in events if isinstance(event, Skipped | RolledBack))
    best = max((event.step for event in events if isinstance(event, Evaluated) and event.best), default=0)
    return Result(
        key=folder.key, reason="", steps=steps, best_step=best, validation={}, test={}, confusion=(), prompt="",
        completion="", wasted_s=wasted_s,
    )  # fmt: skip


@dataclass
class _Says:
    """The one line a stage leaves behind, and whether it is not what was wanted."""

    says: str = ""
    trouble: bool = False


def _prepared(store: Store) -> str:
    cleaning = store.dataset.cleaning
    parts = [f"{cleaning.kept:,} kept", f"{cleaning.seen - cleaning.kept:,} rejected"]
    if cleaning.duplicates or cleaning.across_splits:
        copies = "1 duplicate" if cleaning.duplicates == 1 else f"{cleaning.duplicates:,} duplicates"
        # copies within a split may stay, as those of rows of tables do, and are not counted then
        of_them = "" if cleaning.across_splits > cleaning.duplicates else " of them"
        parts.append(f"{copies}, {cleaning.across_splits:,}{of_them} across splits")
    return ", ".join(parts)
