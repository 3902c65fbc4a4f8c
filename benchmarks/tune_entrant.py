"""One that tunes, in a process of its own: ``python -m benchmarks.tune_entrant COURSE``; it says what it took.

COURSE is JSON: the way (``random``, ``ours``, ``optuna``, ``asha``), the job, the figure to reach, and trials at most.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from benchmarks.peers.talk import Talk
from thrifty import hardware
from thrifty.api import silent
from thrifty.data import Store, prepare
from thrifty.spec import Budget, Job, Plan, Spent, parse_job, raw_data
from thrifty.spec.events import Event, Tried
from thrifty.spec.folders import cache_folder
from thrifty.spec.tuning import Settings, Space
from thrifty.train import probe_steps
from thrifty.tune.ladder import Ladder, ladder
from thrifty.tune.pricing import Pricer
from thrifty.tune.proposals import distributions
from thrifty.tune.search import Worker
from thrifty.tune.space import default_space
from thrifty.tune.storage import Study
from thrifty.tune.task import Aim, Task
from thrifty.tune.trial import Look, Runner


class ReachedError(Exception):
    """What was to be reached is."""


def cpu_seconds() -> float:
    """Processor seconds of this process and of children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@dataclass
class Course:
    """What is tuned, and how each trial is planned and trained: the same for everybody."""

    job: Job
    store: Store
    pricer: Pricer
    space: Space
    levels: Ladder
    aim: Aim
    folder: Path
    target: float
    trials: int
    best: float = math.nan
    tried: int = 0

    def train(self, settings: Settings, look: Look) -> None:
        """Train a configuration to its end."""
        self.tried += 1
        plan = self.pricer.plan(settings, self.levels)
        runner = Runner(self.store, self.folder, {}, Spent, silent)
        runner.run(self.tried, plan, f"trial-{self.tried}", plan.stop.steps, look)

    def see(self, value: float) -> None:
        """Take note of a validation.

        Raises:
            ReachedError: it is as good as wanted.
        """
        if self.aim.better(value, self.best):
            self.best = value
        if not math.isnan(self.target) and (value >= self.target if self.aim.rises else value <= self.target):
            raise ReachedError


def course_of(asked: dict[str, Any], folder: Path) -> Course:
    """Prepare and plan a job, and take the space that we have for it."""
    job = parse_job(asked["job"])
    store = prepare(raw_data(job), seed=job.train.seed, cache=cache_folder(), emit=silent)
    device = hardware.here(kind="cpu")
    pricer = Pricer(job, store, device, probe=lambda draft: probe_steps(draft, store, folder))
    draft = pricer.plan({})
    return Course(
        job=job,
        store=store,
        pricer=pricer,
        space=default_space(job, draft, store.dataset),
        levels=ladder(draft.stop.steps, draft.optim.steps_per_epoch),
        aim=Aim(goal="best", metric=draft.stop.metric, rises=draft.stop.higher_is_better),
        folder=folder,
        target=math.nan if asked["way"] == "random" else float(asked["target"]),
        trials=int(asked["trials"]),
    )


def by_optuna(course: Course, sampler: optuna.samplers.BaseSampler) -> str:
    """Train what a sampler of Optuna proposes, each configuration to its end."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if course.aim.rises else "minimize", sampler=sampler)
    ranges = distributions(course.space)
    for _ in range(course.trials):
        trial = study.ask(ranges)
        values: list[float] = []

        def look(step: int, value: float, values: list[float] = values) -> None:
            values.append(value)
            course.see(value)

        try:
            course.train(dict(trial.params), look)
        except ValueError:
            # it diverged, or its settings do not go together
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, (max if course.aim.rises else min)(values))
    return f"{course.trials} trials to their ends"


def by_ours(course: Course, seed: int) -> str:
    """Have our worker search, as ``thrifty tune`` does."""
    device = hardware.here(kind="cpu")
    task = Task(
        job=course.job,
        key="bench",
        aim=course.aim,
        space=course.space,
        shares=course.levels.shares,
        sampler="tpe",
        pruner="asha",
        # most are ended early: what ends the search is the processors' time that trials to their ends would take
        trials=10 * course.trials,
        budget=Budget(),
        began_at=time.time(),
        url=str(course.folder / "study.sqlite"),
        store=course.store.folder,
        folder=course.folder,
        device=device,
        seed=seed,
    )

    def emit(event: Event) -> None:
        if isinstance(event, Tried) and event.trial.status != "running":
            course.tried = max(course.tried, event.trial.number + 1)
            if not math.isnan(event.trial.value):
                course.see(event.trial.value)

    study = Study(task.url, task.key, rises=task.aim.rises, emit=silent)
    return Worker(task, study, course.store, course.pricer, spent=Spent, emit=emit).work()


def by_ray(course: Course, seed: int) -> tuple[str, float]:
    """Have Ray Tune's ASHA search at random; returns why it ended, and the CPU-seconds of its trials."""
    from thrifty.serve.ray.cluster import joined, prepare

    prepare(None)
    import ray
    from ray import tune

    asked: dict[str, Any] = {
        "job": course.job.model_dump_json(),
        "store": str(course.store.folder),
        "plans": {name: plan.model_dump_json() for name, plan in course.pricer.plans.items()},
        "shares": course.levels.shares,
        "metric": course.aim.metric,
        "path": list(sys.path),
    }
    ranges = {name: _ray_choice(tune, distribution) for name, distribution in distributions(course.space).items()}
    took: dict[str, float] = {}

    class Watch(tune.Callback):
        """Takes note of each validation, and of what its process took until then."""

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            took[trial.trial_id] = result["cpu_s"]
            course.tried = len(took)
            if course.aim.better(result["value"], course.best):
                course.best = result["value"]

    def stop(trial_id: str, result: dict[str, Any]) -> bool:
        return bool(result["value"] >= course.target if course.aim.rises else result["value"] <= course.target)

    class Stopper(tune.Stopper):
        """Stops all once the target is reached."""

        reached = False

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            type(self).reached = self.reached or stop(trial_id, result)
            return self.reached

        def stop_all(self) -> bool:
            return self.reached

    levels = round(1 / course.levels.shares[0])
    scheduler = tune.schedulers.ASHAScheduler(
        time_attr="training_iteration", max_t=levels, grace_period=1, reduction_factor=3
    )
    with joined(ray, None):
        tuner = tune.Tuner(
            tune.with_resources(_by_one_of_rays, {"cpu": 1}),
            param_space={"settings": ranges, "asked": asked},
            tune_config=tune.TuneConfig(
                metric="value",
                mode="max" if course.aim.rises else "min",
                scheduler=scheduler,
                num_samples=course.trials * 3,
            ),
            run_config=tune.RunConfig(storage_path=str(course.folder), stop=Stopper(), callbacks=[Watch()], verbose=0),
        )
        tuner.fit()
    if Stopper.reached:
        raise ReachedError(str(sum(took.values())))
    return f"{course.tried} trials", sum(took.values())


def _ray_choice(tune: Any, distribution: optuna.distributions.BaseDistribution) -> Any:
    """A distribution of Optuna's as Ray has it."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return tune.choice(list(distribution.choices))
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    return (tune.loguniform if distribution.log else tune.uniform)(distribution.low, distribution.high)


def _by_one_of_rays(config: dict[str, Any]) -> None:
    """A trial in a process of Ray's."""
    asked = config["asked"]
    sys.path[:0] = [each for each in asked["path"] if each not in sys.path]
    from ray import tune

    job, store = Job.model_validate_json(asked["job"]), Store(Path(asked["store"]))
    plans = {name: Plan.model_validate_json(text) for name, text in asked["plans"].items()}
    with tempfile.TemporaryDirectory(prefix="thrifty-ray-") as scratch:
        folder = Path(scratch)
        pricer = Pricer(
            job,
            store,
            hardware.here(kind="cpu"),
            probe=lambda draft: probe_steps(draft, store, folder),
            plans=plans,
        )
        plan = pricer.plan(config["settings"], Ladder(tuple(asked["shares"])))

        def look(step: int, value: float) -> None:
            tune.report({"value": value, "cpu_s": cpu_seconds()})

        try:
            Runner(store, folder, {}, Spent, silent).run(0, plan, "trial", plan.stop.steps, look)
        except ValueError:
            return


def main(text: str) -> None:
    """Tune, and say what it took to reach what was to be reached."""
    asked, talk = json.loads(text), Talk()
    seed, more_s, reached = int(asked["seed"]), 0.0, False
    with tempfile.TemporaryDirectory(prefix="thrifty-bench-tune-") as scratch:
        course = course_of(asked, Path(scratch))
        talk.say("ready")
        ways: dict[str, Callable[[], str]] = {
            "random": lambda: by_optuna(course, optuna.samplers.RandomSampler(seed=seed)),
            "optuna": lambda: by_optuna(course, optuna.samplers.TPESampler(seed=seed)),
            "ours": lambda: by_ours(course, seed),
        }
        try:
            if asked["way"] == "asha":
                says, more_s = by_ray(course, seed)
            else:
                says = ways[asked["way"]]()
        except ReachedError as found:
            says, reached, more_s = "reached", True, float(str(found) or 0.0)
        cpu_s = cpu_seconds() + more_s
    talk.done(
        seed=seed,
        says=says,
        reached=reached,
        best=course.best,
        metric=course.aim.metric,
        trials=course.tried,
        cpu_s=cpu_s,
    )


if __name__ == "__main__":
    main(sys.argv[1])
