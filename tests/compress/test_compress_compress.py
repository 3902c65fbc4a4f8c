"""The whole of a compression: a run trained here, a bundle that is cheaper and not worse, its bill and its page."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent / "report"))
from made_runs import make_device, make_plan

from thrifty import api, hardware
from thrifty.compress import compress as module
from thrifty.compress.compress import calibration, hash_of
from thrifty.compress.guard import Guard, parse_drop
from thrifty.compress.moves import MOVES, Candidate, Context
from thrifty.data import Store, prepare, sweep
from thrifty.errors import DataError, JobError
from thrifty.evaluate import evaluate
from thrifty.export.bundle import load_bundle, rewrite_bundle, torch_model, write_bundle
from thrifty.export.engines import compute_of
from thrifty.hardware.probe import instruction_sets
from thrifty.models import build, resolve
from thrifty.models.init import initialise
from thrifty.models.losses import LOSSES
from thrifty.runs import Result, RunFolder
from thrifty.spec import Spent, load_job, raw_data
from thrifty.spec.folders import cache_folder

pytestmark = pytest.mark.slow
ROWS = 3000


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """What a run leaves over a table of three columns, of which two tell the label; the model learns for a moment."""
    folder = tmp_path_factory.mktemp("trained")
    draw = np.random.default_rng(0)
    a, b, c = draw.normal(size=(3, ROWS)).round(4)
    label = np.where(a + b + draw.normal(0, 0.3, ROWS) > 0, "yes", "no")
    rows = [",".join(map(str, row)) for row in zip(a, b, c, label, strict=True)]
    (folder / "points.csv").write_text("a,b,c,label\n" + "\n".join(rows) + "\n")
    data = {"kind": "table", "path": "points.csv", "target": "label", "split": {"validation": 0.3}}
    text = yaml.safe_dump({"name": "points", "data": data, "task": "classify", "model": "table-mlp-small"})
    (folder / "job.yaml").write_text(text)
    job = load_job(folder / "job.yaml")
    store = prepare(raw_data(job), seed=job.train.seed, cache=cache_folder(), emit=lambda event: None)

    model_plan = resolve("table-mlp-small", store.dataset)
    model = build(model_plan)
    initialise(model, "default", 0, model_plan)
    x, y = (torch.from_numpy(np.array(store.array("train", name))) for name in ("x", "y"))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        LOSSES["classify"](model, {"x": x, "y": y})[0].div(len(y)).backward()
        optimizer.step()

    plan = make_plan()
    stop = plan.stop.model_copy(update={"metric": "accuracy", "higher_is_better": True})
    plan = plan.model_copy(update={"model": model_plan, "stop": stop, "memory_format": "contiguous"})
    run, device = RunFolder(folder / "runs" / "points"), make_device()
    run.folder.mkdir(parents=True)
    run.claim("key", job, text, course="course")
    metrics = evaluate(model, sweep(store, "test", 256), "classify").metrics
    run.keep("plan", plan)
    run.keep("device", device)
    run.keep("dataset", store.dataset)
    write_bundle(
        run.bundle, name="points", version=1, task="classify", model=model, plan=model_plan, data=store.dataset,
        tokenizer=None, metrics=metrics, isa=device.isa, bill=Spent(wall_s=1.0),
    )  # fmt: skip
    validation = evaluate(model, sweep(store, "validation", 256), "classify").metrics
    run.keep(
        "result",
        Result(
            key="key", reason="made", steps=60, best_step=60, validation=validation, test=metrics, confusion=(),
            prompt="", completion="",
        ),
    )  # fmt: skip
    with closing(api.open_ledger(folder / "runs")) as ledger:
        about = {"name": "points", "key": "key", "folder": run.folder, "job": job.model_dump_json(), "code": ""}
        number = ledger.begin(**about, device=device, pid=os.getpid())
        ledger.planned(number, plan)
        ledger.stage(number, 1, "train", Spent(wall_s=1.0))
        ledger.finish(number, status="done", metrics=metrics, reason="made")
    return run


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the machine as one made up: what is measured of it is no part of these tests."""
    monkeypatch.setattr(hardware, "here", lambda **_: make_device())


def _store(run: RunFolder) -> Store:
    job = run.job()
    return prepare(raw_data(job), seed=job.train.seed, cache=cache_folder(), emit=lambda event: None)


def test_a_run_is_compressed(trained: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOVES", {name: MOVES[name] for name in ("openvino", "int8")})
    runs = trained.folder.parent
    made = api.compress(trained.folder, max_drop="2%", objective="size", budget="5min", runs=runs)
    assert made.held
    assert made.validation.held == "within"
    assert made.test is not None and made.test.split == "test"
    assert {each.status for each in made.trials} <= {"reference", "chosen", "held", "over", "unproven"}
    # in fp32 OpenVINO's files are no smaller than torch's, so there was nothing to try for
    assert [each.moves for each in made.trials] == [(), ("int8",)]
    assert made.left_out == {"openvino": "could not beat what was found"}
    assert made.spent.wall_s > 0 and made.spent.joules > 0

    bundle = load_bundle(trained.folder / "compressed")
    assert bundle.info.compression == made
    assert bundle.info.metrics["accuracy"] == pytest.approx(made.test.candidate)
    assert (bundle.info.engine, bundle.info.precision) == ("openvino", "int8")
    assert made.after.bytes < made.before.bytes
    plain = load_bundle(trained.bundle)
    for row in ({"a": 1.0, "b": 0.5, "c": 0.0}, {"a": -1.0, "b": -0.5, "c": 0.0}):
        assert bundle.predict(row)["label"] == plain.predict(row)["label"]

    stages = {each.stage: each.spent for each in api.bill(trained.folder, runs=runs).stages}
    assert stages["compress"].wall_s >= made.spent.wall_s
    assert json.loads((trained.folder / "compression.json").read_text())["objective"] == "size"
    page = trained.page.read_text(encoding="utf-8")
    assert 'id="compressed"' in page and "Drop and size" in page


NEEDS_TORCHAO = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="not installed: torchao (the extra 'torchao')"
)


@pytest.mark.parametrize(
    ("name", "engine"),
    [("int8", "openvino"), ("int8_onnx", "onnx"), ("int8_dynamic", "onnx"),
     pytest.param("int8_torch", "aoti", marks=NEEDS_TORCHAO)],
    ids=str,
)  # fmt: skip
def test_whole_numbers_of_every_engine_are_within_and_answer_from_their_bundle(
    name: str, engine: str, trained: RunFolder, tmp_path: Path
) -> None:
    store, source = _store(trained), load_bundle(trained.bundle)
    # native code is of this processor
    device = make_device().model_copy(update={"isa": instruction_sets()})
    context = Context(
        store=store, run=trained.plan(), device=device, calibration=calibration(store, seed=0),
        objective="latency", batch=1, seconds=math.inf, seed=0, scratch=tmp_path / "scratch",
    )  # fmt: skip
    context.scratch.mkdir()
    ranges = {row.tobytes() for batch in context.calibration for row in batch["x"]}
    assert not ranges & {row.tobytes() for row in store.array("validation", "x")}
    candidate = Candidate(torch_model(source), source.info.model)
    assert MOVES[name].applies(context, candidate) is None
    made = MOVES[name].apply(context, candidate)
    assert made.form is not None and (made.form.engine, made.form.precision) == (engine, "int8")
    verdict = Guard(store, trained.plan(), "validation", parse_drop("2%"), candidate.answers).judge(made.answers)
    assert verdict.held == "within"
    # it computes in whole numbers: what only rounds elsewhere is told by another method
    assert "Tango" in verdict.method
    rewrite_bundle(tmp_path / "bundle", source, made.form.made, engine=engine, precision="int8", model=made.plan)
    read = load_bundle(tmp_path / "bundle")
    for count in (1, 5):
        x = np.array(store.array("validation", "x")[:count], dtype=np.float32)
        np.testing.assert_allclose(
            compute_of(read.model)(x), made.answers(torch.from_numpy(x)).numpy(), rtol=1e-3, atol=1e-3
        )
    if engine == "aoti":
        with zipfile.ZipFile(tmp_path / "bundle" / "model.pt2") as package:
            assert any(b"qlinear_pointwise" in package.read(each) for each in package.namelist())


def test_a_model_that_stays_as_it_is_saves_nothing(trained: RunFolder, tmp_path: Path) -> None:
    """What noise makes of the same model measured twice is no saving."""
    runs = trained.folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOVES", {})
        made = api.compress(trained.folder, folder=tmp_path / "same", runs=runs)
    assert (made.moves, made.held, made.after) == ((), True, made.before)
    assert math.isinf(made.payback.requests)


def test_what_moves_look_at_is_of_the_training_split_alone(trained: RunFolder) -> None:
    store = _store(trained)
    batches = calibration(store, seed=0)
    seen = {row.tobytes() for batch in batches for row in batch["x"]}
    assert len(seen) > 200
    assert seen <= {row.tobytes() for row in store.array("train", "x")}
    held_out = {row.tobytes() for split in ("validation", "test") for row in store.array(split, "x")}
    assert not seen & held_out
    assert hash_of(batches) == hash_of(calibration(store, seed=0)) != hash_of(calibration(store, seed=1))


def test_the_guard_tells_the_same_model_from_a_broken_one(trained: RunFolder) -> None:
    store, model = _store(trained), load_bundle(trained.bundle).model
    guard = Guard(store, trained.plan(), "validation", parse_drop("0.5%"), model)
    assert guard.value == pytest.approx(trained.result().validation["accuracy"])
    same = guard.judge(lambda x: model(x) * (1 + 1e-6))
    assert (same.held, same.low, same.high) == ("within", 0.0, 0.0)
    assert "rounding" in same.method
    assert guard.judge(lambda x: -model(x)).held == "over"
    wild = guard.judge(lambda x: model(x) + 0.05 * torch.randn(len(x), 2, generator=torch.Generator().manual_seed(0)))
    assert wild.rows == store.dataset.counts["validation"]
    assert wild.low <= wild.drop <= wild.high
    assert "Tango" in wild.method


def test_data_that_has_changed_is_refused(trained: RunFolder) -> None:
    job = trained.job()
    table = Path(raw_data(job).path)
    before = table.read_text()
    table.write_text(before + "1.0,1.0,1.0,yes\n")
    try:
        with pytest.raises(DataError, match="has changed"):
            api.compress(trained.folder, runs=trained.folder.parent)
    finally:
        table.write_text(before)


@pytest.mark.parametrize(
    ("asked", "says"),
    [({"objective": "latncy"}, "latency"), ({"max_drop": "lots"}, "--max-drop"), ({"batch": 0}, "batch"),
     ({"budget": "soon"}, "soon"), ({"requests": math.nan}, "requests"), ({"objective": "tokens"}, "writes no text")],
    ids=["objective", "drop", "batch", "budget", "requests", "tokens"],
)  # fmt: skip
def test_what_cannot_be_meant(trained: RunFolder, asked: dict[str, object], says: str) -> None:
    with pytest.raises(JobError, match=says):
        api.compress(trained.folder, runs=trained.folder.parent, **asked)  # type: ignore[arg-type]
