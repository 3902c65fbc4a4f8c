"""Hugging Face models from tiny directories: fitted to the data, loaded from safetensors, and logits out."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_models_table import images, text

from thrifty.cost import trace_step
from thrifty.errors import JobError, MissingExtraError
from thrifty.models import build, check_name, content_key, resolve, traits_of
from thrifty.models.init import initialise
from thrifty.models.logits import Logits
from thrifty.models.losses import cross_entropy
from thrifty.optim import by_name
from thrifty.spec import Dataset, ModelPlan
from thrifty.testing import check_model

# each loads transformers, which takes seconds, and builds a model several times
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed"),
]

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 64, "n_positions": 16, "attn_pdrop": 0.0},
    "llama": {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 64,
    },
    "bert": {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64,
        "max_position_embeddings": 16, "attention_probs_dropout_prob": 0.0,
    },
    "vit": {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
        "patch_size": 4,
    },
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
}  # fmt: skip
KINDS = {"gpt2": text(), "llama": text(), "bert": text(), "vit": images(3, 16, 7), "resnet": images(3, 16, 7)}


def save(folder: Path, kind: str, *, weights: bool = False, **sizes: Any) -> Path:
    """Write a directory as `save_pretrained` does; with weights, those of a model of another seed."""
    import transformers

    place = folder / kind
    config = transformers.AutoConfig.for_model(kind, **{**CONFIGS[kind], **sizes})
    if not weights:
        config.save_pretrained(place)
        return place
    torch.manual_seed(7)
    auto = transformers.AutoModelForCausalLM if "vocab_size" in CONFIGS[kind] else None
    (auto or transformers.AutoModelForImageClassification).from_config(config).save_pretrained(place)
    return place


def asked(dataset: Dataset, batch: int = 4) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    if dataset.kind == "image":
        x = draw.normal(size=(batch, *dataset.shape)).astype(np.float32)
        return {"x": x, "y": draw.integers(len(dataset.labels), size=batch)}
    return {key: draw.integers(dataset.vocabulary, size=(batch, *dataset.shape)) for key in "xy"}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_alone_takes_the_sizes_of_the_data(tmp_path: Path, kind: str) -> None:
    dataset = text(72, 24) if "vocab_size" in CONFIGS[kind] else images(1, 8, 5)
    plan = resolve(f"hf:{save(tmp_path, kind)}", dataset)
    assert (plan.name, plan.family, plan.arguments["weights"]) == (f"hf:{kind}", "hf", "")
    assert ModelPlan.model_validate_json(plan.model_dump_json()) == plan
    model = build(plan)
    x = torch.as_tensor(asked(dataset)["x"])
    wanted = (4, 5) if dataset.kind == "image" else (4, 24, 72)
    assert model(x).shape == wanted
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert initialise(model, "own", 0) == "as its own code has it"


@pytest.mark.parametrize("kind", ["gpt2", "vit", "resnet"])
def test_it_keeps_the_contract_of_a_model(tmp_path: Path, kind: str) -> None:
    plan = resolve(f"hf:{save(tmp_path, kind)}", KINDS[kind])

    def made() -> torch.nn.Module:
        model = build(plan)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return model

    check_model(made, asked(KINDS[kind], 8), "language" if KINDS[kind].kind == "language" else "classify")


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_no_token_sees_those_after_it(tmp_path: Path, kind: str) -> None:
    model = build(resolve(f"hf:{save(tmp_path, kind)}", text())).eval()
    x = torch.as_tensor(asked(text())["x"])
    other = x.clone()
    other[:, 8:] = (other[:, 8:] + 1) % 64
    with torch.no_grad():
        torch.testing.assert_close(model(x)[:, :8], model(other)[:, :8])
        assert not torch.allclose(model(x)[:, 8:], model(other)[:, 8:])


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_step_is_traced_as_it_runs(tmp_path: Path, kind: str) -> None:
    dataset = KINDS[kind]
    plan = resolve(f"hf:{save(tmp_path, kind)}", dataset)
    batch = asked(dataset)
    shapes = {key: (each.shape, "float32" if each.dtype == np.float32 else "int64") for key, each in batch.items()}
    traced = trace_step(lambda: build(plan), cross_entropy, shapes, precision="fp32", optimizer=by_name("adamw"))
    forward = [op.name for op in traced.ops if op.phase == "forward"]
    with torch.profiler.profile() as profile:
        cross_entropy(build(plan), {key: torch.as_tensor(each) for key, each in batch.items()})
    ran = {event.key.removeprefix("aten::") for event in profile.key_averages()}
    kernels = {"_scaled_dot_product_flash_attention_for_cpu", "addmm", "mm", "bmm", "convolution", "embedding"}
    assert set(forward) & kernels == ran & kernels
    assert kind == "resnet" or "_scaled_dot_product_flash_attention_for_cpu" in forward
    assert not {"cumsum", "le", "where"} & set(forward), "a mask is made that the run has no need of"
    assert traced.parameters == sum(parameter.numel() for parameter in build(plan).parameters())


@pytest.mark.parametrize("kind", ["gpt2", "vit"])
def test_weights_of_a_directory_are_loaded(tmp_path: Path, kind: str) -> None:
    import transformers

    sizes = {} if kind == "gpt2" else {"num_labels": 7}
    place = save(tmp_path, kind, weights=True, **sizes)
    auto = transformers.AutoModelForCausalLM if kind == "gpt2" else transformers.AutoModelForImageClassification
    expected = auto.from_pretrained(place).eval()
    plan = resolve(f"hf:{place}", KINDS[kind])
    model = build(plan).eval()
    x = torch.as_tensor(asked(KINDS[kind])["x"])
    with torch.no_grad():
        assert not torch.allclose(model(x), expected(x).logits)
        assert initialise(model, "own", 3) == f"weights of {place}"
        torch.testing.assert_close(model.eval()(x), expected(x).logits)
    assert traits_of(plan).loaded


def test_a_head_for_other_classes_is_new_and_follows_the_seed(tmp_path: Path) -> None:
    plan = resolve(f"hf:{save(tmp_path, 'vit', weights=True, num_labels=3)}", KINDS["vit"])
    models = [build(plan) for _ in range(3)]
    state = torch.get_rng_state()
    said = [initialise(model, "own", seed) for model, seed in zip(models, (1, 1, 2), strict=True)]
    assert torch.equal(torch.get_rng_state(), state)
    assert said[0].endswith("; new: classifier.bias, classifier.weight")
    first, same, other = (model.state_dict()["model.classifier.weight"] for model in models)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(models[0].state_dict()["model.vit.layernorm.weight"], torch.ones(16))


def test_weights_that_do_not_fit_the_config(tmp_path: Path) -> None:
    place = save(tmp_path, "gpt2", weights=True)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    model = build(resolve(f"hf:{place}", text()))
    with pytest.raises(JobError, match=r"do not fit its config: transformer\.h\.2\..* missing or of another shape"):
        initialise(model, "own", 0)


REFUSED: list[tuple[str, dict[str, Any], Dataset, str]] = [
    ("gpt2", {}, text(300, 16), r"weights of 'hf:gpt2' have vocab_size 64, and the data has 300\. Set data.vocabulary"),
    ("gpt2", {}, text(64, 32), r"have max_position_embeddings 16, and the data has 32\. Set data.length: 16"),
    ("vit", {}, images(3, 32), r"have image_size 16, and the data has 32\. Set data.size: 16 in the job"),
    ("vit", {}, images(1, 16), r"have num_channels 3, and the data has 1\. Set data.color: rgb in the job"),
    ("resnet", {}, text(), r"no model of type 'resnet' for the task 'language'\. Types it has: .*gpt2"),
    ("gpt2", {}, images(), r"no model of type 'gpt2' for the task 'classify'"),
]


@pytest.mark.parametrize(("kind", "sizes", "dataset", "said"), REFUSED, ids=[row[3][:40] for row in REFUSED])
def test_data_that_the_weights_are_not_for(
    tmp_path: Path, kind: str, sizes: dict[str, Any], dataset: Dataset, said: str
) -> None:
    with pytest.raises(JobError, match=said):
        resolve(f"hf:{save(tmp_path, kind, weights=True, **sizes)}", dataset)


def test_places_that_hold_no_model(tmp_path: Path) -> None:
    place = save(tmp_path, "gpt2")
    with pytest.raises(JobError, match=r"there is no directory '.*gpt3'.*Did you mean 'gpt2'\? "):
        check_name(f"hf:{tmp_path}/gpt3")
    with pytest.raises(JobError, match=r"has no config\.json"):
        check_name(f"hf:{tmp_path}")
    (place / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(JobError, match=r"pickled \(pytorch_model\.bin\), and a pickle can run code"):
        check_name(f"hf:{place}")
    (place / "pytorch_model.bin").unlink()
    (place / "config.json").write_text("{not json")
    with pytest.raises(JobError, match=r"the model in '.*gpt2' cannot be read"):
        resolve(f"hf:{place}", text())


def test_code_in_a_directory_is_not_run(tmp_path: Path) -> None:
    place = save(tmp_path, "gpt2")
    config = json.loads((place / "config.json").read_text())
    own = {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    (place / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (place / "config.json").write_text(json.dumps({**config, **own}))
    with pytest.raises(JobError, match=r"cannot be read: .*package\.module:function"):
        resolve(f"hf:{place}", text())
    kernel = {"attn_implementation": "someone/kernel", "_attn_implementation": "someone/kernel"}
    (place / "config.json").write_text(json.dumps({**config, **kernel, "auto_map": own["auto_map"]}))
    plan = resolve(f"hf:{place}", text())
    assert "someone" not in plan.arguments["config"] and "auto_map" not in plan.arguments["config"]
    build(plan)
    assert not (tmp_path / "ran").exists()


def test_an_id_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    check_name("hf:openai-community/gpt2")
    assert content_key("hf:openai-community/gpt2") == "hf:openai-community/gpt2"

    def offline(place: str, **options: Any) -> Any:
        assert (place, options) == ("someone/model", {"trust_remote_code": False, "local_files_only": False})
        raise OSError("no network\nat all")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    with pytest.raises(JobError, match=r"'someone/model' cannot be read from the Hugging Face hub: no network\. Check"):
        resolve("hf:someone/model", text())


def test_the_content_of_a_directory_is_its_config_and_weights(tmp_path: Path) -> None:
    place = save(tmp_path, "gpt2", weights=True)
    first = content_key(f"hf:{place}")
    (place / "README.md").write_text("words")
    assert content_key(f"hf:{place}") == first
    moved = place.rename(tmp_path / "moved")
    assert content_key(f"hf:{moved}") == first
    with (moved / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    assert content_key(f"hf:{moved}") != first


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'transformers'.*thrifty\[hf\]"):
        check_name("hf:openai-community/gpt2")


def test_a_user_function_may_return_one(tmp_path: Path) -> None:
    (tmp_path / "wrapped.py").write_text(
        "from transformers import GPT2Config, GPT2LMHeadModel\n"
        "def net(vocabulary, length):\n"
        "    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=length, n_embd=16, n_layer=1,\n"
        "                                      n_head=2, bos_token_id=0, eos_token_id=0))\n"
    )
    model = build(resolve(f"{tmp_path}/wrapped:net", text()))
    assert isinstance(model, Logits)
    assert model(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 5, 64)
