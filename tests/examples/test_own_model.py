"""A model of the user's own, and one of transformers, the whole way: planned, run, resumed, bundled, asked, served."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from thrifty import api
from thrifty.data import prepare
from thrifty.errors import BundleError, JobError
from thrifty.export.bundle import load_bundle
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.pipeline import Outcome
from thrifty.runs import RunFolder
from thrifty.spec import Plan, Spent, load_job
from thrifty.spec.events import Event, StepDone
from thrifty.train import train

EXAMPLES = Path(__file__).parents[2] / "examples"

# each plans, trains and bundles
pytestmark = pytest.mark.slow


# one way to price: planning is most of a small run
PINNED = {"precision": "fp32", "memory_format": "contiguous", "checkpointing": "none", "compile": "none"}


class Killed(Exception):  # noqa: N818 - a signal, not an error
    """Stands for the end of the process."""


@pytest.fixture
def job(tmp_path: Path, digits: Path) -> Path:
    """The example job with its model, on fewer digits and for two epochs."""
    for name in ("own_model.py", "own_model.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    change(tmp_path / "own_model.yaml", data={"kind": "image", "path": str(digits)}, target=None, train={"epochs": 2})
    return tmp_path / "own_model.yaml"


def change(job: Path, **changes: Any) -> None:
    job.write_text(yaml.safe_dump({**yaml.safe_load(job.read_text()), **changes}))


def run(job: Path) -> Outcome:
    return api.run(job, runs=job.parent / "runs")


def learn(outcome: Outcome, job: Path, folder: Path, cache: Path, *, die_at: int = 0) -> torch.nn.Module:
    """Train a run's plan again, with a checkpoint at each step."""
    plan = RunFolder(outcome.folder).plan().model_copy(update={"checkpoint_seconds": 0.0})
    store = prepare(load_job(job).data, seed=plan.seed, cache=cache, emit=api.silent)  # type: ignore[arg-type]
    model = build(plan.model, seed=plan.seed)
    initialise(model, plan.init, plan.seed)

    def emit(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == die_at:
            raise Killed

    train(plan, model, store, folder, emit=emit, spent=Spent)
    return model


def assert_resumes_with_the_same_bits(outcome: Outcome, job: Path, cache: Path) -> None:
    expected = load_file(outcome.folder / "bundle" / "model.safetensors")
    torch.rand(3)  # what was drawn before does not matter
    for die_at in (3, outcome.result.steps - 1):
        with pytest.raises(Killed):
            learn(outcome, job, job.parent / "checkpoints", cache, die_at=die_at)
    model = learn(outcome, job, job.parent / "checkpoints", cache)
    found = model.state_dict()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_the_example_the_whole_way(job: Path, own_cache: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proposal = api.plan(job, runs=job.parent / "runs")
    assert proposal.model == "own_model:mixer" and proposal.plan is not None
    reasons = {line.field: (line.value, line.reason) for line in proposal.why}
    assert reasons["init"] == ("own", "its own code fills it")
    assert reasons["optimizer"][0] == "adamw"

    first = run(job)
    assert first.fresh and first.result.test["accuracy"] > 0.3
    assert not run(job).fresh, "the same source is not trained twice"
    assert_resumes_with_the_same_bits(first, job, own_cache)
    image = sorted((digits / "7").glob("*.png"))[0]
    answer = api.predict(first.folder, str(image))
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert str(job.parent) not in (first.folder / "bundle" / "bundle.json").read_text()

    source = job.parent / "own_model.py"
    source.write_text(source.read_text().replace("layers: int = 4", "layers: int = 2"))
    with pytest.raises(BundleError, match=r"the code of model 'own_model:mixer' in .* is not as it was"):
        load_bundle(first.folder / "bundle")
    second = run(job)
    assert second.fresh and second.folder != first.folder
    api.predict(second.folder, str(image))

    shutil.move(str(source), str(job.parent / "elsewhere.py"))
    with pytest.raises(JobError, match="there is no module 'own_model'"):
        run(job)
    with pytest.raises(BundleError, match="is not as it was"):
        load_bundle(second.folder / "bundle")
    (job.parent / "kept").mkdir()
    shutil.move(str(job.parent / "elsewhere.py"), str(job.parent / "kept" / "own_model.py"))
    monkeypatch.setenv("THRIFTY_MODELS", f"{job.parent}/kept/own_model:mixer")
    assert load_bundle(second.folder / "bundle").info.model.name == "own_model:mixer"


def test_init_by_name_fills_an_own_model(job: Path) -> None:
    change(job, train={"epochs": 1, "init": "xavier_normal"}, plan=PINNED)
    assert RunFolder(run(job).folder).plan().init == "xavier_normal"
    change(job, train={"epochs": 1, "init": "default"})
    assert RunFolder(run(job).folder).plan().init == "own"


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_language_model_of_transformers(kind: str, tmp_path: Path, sources: Path, own_cache: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes: dict[str, Any] = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 32, "vocab_size": 64}
    if kind == "llama":
        sizes |= {"intermediate_size": 64, "num_key_value_heads": 1}
    transformers.AutoConfig.for_model(kind, bos_token_id=0, eos_token_id=0, **sizes).save_pretrained(tmp_path / "tiny")
    job = tmp_path / "job.yaml"
    data = {"kind": "language", "path": str(sources), "files": "**/*.py", "vocabulary": 300, "length": 32}
    train = {"steps": 12, "batch": 8, "evaluations": 2}
    job.write_text(yaml.safe_dump({"name": "tiny", "data": data, "model": "hf:tiny", "train": train}))
    outcome = run(job)
    plan = Plan.model_validate_json((outcome.folder / "plan.json").read_bytes())
    assert (plan.model.name, plan.model.family, plan.init) == ("hf:tiny", "hf", "own")
    assert (plan.optim.optimizer, plan.optim.betas, plan.optim.clip) == ("adamw", (0.9, 0.95), 1.0)
    assert outcome.result.completion
    assert_resumes_with_the_same_bits(outcome, job, own_cache)
    shutil.rmtree(tmp_path / "tiny")
    assert api.predict(outcome.folder, "import ")["completion"] == api.predict(outcome.folder, "import ")["completion"]


def test_an_image_model_of_transformers_from_weights(tmp_path: Path, digits: Path, own_cache: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_channels=1, num_labels=3
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "net")
    job = tmp_path / "job.yaml"
    data = {"kind": "image", "path": str(digits), "size": 16, "color": "gray"}
    job.write_text(yaml.safe_dump({"name": "net", "data": data, "model": "hf:net", "train": {"epochs": 2}}))
    outcome = run(job)
    plan = RunFolder(outcome.folder).plan()
    assert (plan.optim.optimizer, plan.model.arguments["weights"]) == ("momentum", str(tmp_path / "net"))
    assert "weights trained before" in next(line.reason for line in plan.why if line.field == "learning_rate")
    assert_resumes_with_the_same_bits(outcome, job, own_cache)
    shutil.rmtree(tmp_path / "net")
    answer = api.predict(outcome.folder, str(sorted((digits / "7").glob("*.png"))[0]))
    assert len(answer["probabilities"]) == 10


def test_batch_norm_over_features_is_planned_and_trained(tmp_path: Path, digits: Path) -> None:
    (tmp_path / "flat.py").write_text(
        "from torch import nn\n"
        "def net(classes, channels, height, width):\n"
        "    inside = nn.Linear(channels * height * width, 16)\n"
        "    return nn.Sequential(nn.Flatten(), inside, nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, classes))\n"
    )
    data = {"kind": "image", "path": str(digits)}
    values = {"name": "flat", "data": data, "model": "flat:net", "train": {"epochs": 2, "batch": 4}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(values))
    outcome = run(tmp_path / "job.yaml")
    assert outcome.result.test["accuracy"] > 0.2
    plan = RunFolder(outcome.folder).plan()
    assert plan.optim.optimizer == "momentum" and plan.batch.micro > 2
