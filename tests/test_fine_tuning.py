"""A small directory of weights fine-tuned with an adapter, the whole way: planned, run to a target, resumed, asked."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from thrifty import api
from thrifty.data import Store, prepare, sweep
from thrifty.export.bundle import load_bundle
from thrifty.models import build
from thrifty.models.adapters import MARK
from thrifty.models.init import initialise
from thrifty.runs import RunFolder
from thrifty.spec import ImageData, Spent
from thrifty.spec.events import Event, Resumed, StepDone
from thrifty.train import train

# the machine is measured, then planned for
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (find_spec("peft") and find_spec("transformers")), reason="peft is not installed"),
]

SIDE, SEEN = 16, 6


class Killed(Exception):  # noqa: N818 - a signal, not an error
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def store(digits: Path, own_cache: Path) -> Store:
    data = ImageData(kind="image", path=digits, size=SIDE, color="gray")
    return prepare(data, seed=0, cache=own_cache, emit=api.silent)


@pytest.fixture(scope="module")
def weights(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small transformer that has learned the digits under six, as `save_pretrained` writes it."""
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, image_size=SIDE, patch_size=4,
        num_channels=1, num_labels=SEEN, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    batches = list(sweep(store, "train", 48))
    x, y = (torch.cat([torch.as_tensor(batch[key]) for batch in batches]) for key in "xy")
    x, y = x[y < SEEN], y[y < SEEN].long()
    for _ in range(25):
        for rows in torch.randperm(len(x)).split(32):
            loss = nn.functional.cross_entropy(model(x[rows]).logits, y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert loss.item() < 0.5
    place: Path = tmp_path_factory.mktemp("weights") / "digits-vit"
    model.save_pretrained(place)
    return place


def write_job(folder: Path, weights: Path, digits: Path, **train: Any) -> Path:
    shutil.copytree(weights, folder / "vit")
    job = {
        "name": "tuned",
        "data": {"kind": "image", "path": str(digits), "size": SIDE, "color": "gray"},
        "model": "hf:vit",
        "target": {"accuracy": 0.7},
        "plan": {"precision": "fp32", "threads": 1},
        "train": {"epochs": 40, "batch": 32, "learning_rate": 3e-3, **train},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


@pytest.mark.parametrize("adapter", ["lora", {"kind": "dora", "base": "4bit", "rank": 4}], ids=["lora", "dora 4bit"])
def test_to_a_target_resumed_bundled_and_asked(
    adapter: Any, tmp_path: Path, weights: Path, digits: Path, store: Store
) -> None:
    job = write_job(tmp_path, weights, digits, adapter=adapter)
    outcome = api.run(job, runs=tmp_path / "runs")
    assert outcome.result.reason.startswith("target reached: accuracy")
    folder = RunFolder(outcome.folder)
    plan = folder.plan()
    why = {line.field: line for line in plan.why}
    assert plan.adapt.whole == ("classifier.*",) and not why["adapter"].doubt
    assert why["adapter.targets"].value.startswith("vit.") and "%" in why["trained parameters"].reason

    # what its own layers learned before is still there, but for what the adapters added
    bundled = load_file(outcome.folder / "bundle" / "model.safetensors")
    plain = build(plan.model, seed=plan.seed)
    initialise(plain, plan.init, plan.seed)
    before = plain.state_dict()
    assert before.keys() == bundled.keys()
    moved = {name for name, value in bundled.items() if not torch.equal(value, before[name])}
    adapted = {"q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"}
    assert {name.split(".")[-2] for name in moved} == {*adapted, "classifier"}

    # the same bits after a death at any step
    def learn(die_at: int) -> tuple[nn.Module, list[Event]]:
        events: list[Event] = []

        def emit(event: Event) -> None:
            events.append(event)
            if isinstance(event, StepDone) and event.step == die_at:
                raise Killed

        model = build(plan.model, seed=plan.seed)
        initialise(model, plan.init, plan.seed)
        again = plan.model_copy(update={"checkpoint_seconds": 0.0})
        train(again, model, store, tmp_path / "checkpoints", emit=emit, spent=Spent)
        return model, events

    with pytest.raises(Killed):
        learn(3)
    newest = max((tmp_path / "checkpoints").glob("step-*.pt"))
    kept = torch.load(newest, weights_only=True)["model"]
    assert all("lora_" in name or "classifier" in name or name == MARK for name in kept)
    model, events = learn(0)
    assert isinstance(events[0], Resumed)
    state: dict[str, Tensor] = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in bundled.items())

    # the bundle is that of the plain model: it needs neither the weights nor an adapter
    shutil.rmtree(tmp_path / "vit")
    bundle = load_bundle(outcome.folder / "bundle")
    assert "lora" not in json.dumps(json.loads((outcome.folder / "bundle" / "bundle.json").read_text())["model"])
    answer = api.predict(outcome.folder, str(sorted((digits / "7").glob("*.png"))[0]))
    assert len(answer["probabilities"]) == 10
    x = torch.as_tensor(next(iter(sweep(store, "test", 16)))["x"])
    with torch.no_grad():
        torch.testing.assert_close(bundle.model(x), model.eval()(x))
