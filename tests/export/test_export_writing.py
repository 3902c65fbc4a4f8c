"""Language models that write many texts at once: ours, and those of transformers that ours compute."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from made_bundles import OF_TRANSFORMERS, write_bundle_of_transformers, write_language_bundle

from thrifty.export.bundle import Bundle, load_bundle, rewrite_bundle
from thrifty.export.check import read_info
from thrifty.export.parity import RELATIVE_ROUNDED
from thrifty.export.writing import can_write, writing_model
from thrifty.models.gpt import GPT
from thrifty.models.llama import Llama
from thrifty.spec import BundleInfo, ModelPlan

LENGTH = 48
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


def described(folder: Path, **config: Any) -> BundleInfo:
    """A bundle's description with a config of transformers in the place of its own model."""
    info = read_info(folder)
    arguments = {"config": json.dumps(config), "task": "language", "weights": "", "revision": ""}
    return info.model_copy(update={"model": ModelPlan(name="hf:it", family="hf", arguments=arguments)})


def test_configs_that_ours_compute_are_told_from_others(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_language_bundle(folder)
    assert can_write(read_info(folder))
    more = {"vocab_size": 64, "rms_norm_eps": 1e-6}
    gpt, llama = ({"model_type": kind, **OF_TRANSFORMERS[kind], **more} for kind in ("gpt2", "llama"))
    for config, writes in (
        (gpt, True),
        (llama, True),
        ({**gpt, "activation_function": "relu"}, False),
        ({**gpt, "scale_attn_by_inverse_layer_idx": True}, False),
        ({**llama, "attention_bias": True}, False),
        ({**llama, "rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, False),
        ({**gpt, "n_head": "two"}, False),
        ({"model_type": "bert", "hidden_size": 16}, False),
        ({"model_type": "vit"}, False),
    ):
        assert can_write(described(folder, **config)) == writes, config
    assert not can_write(described(folder, **gpt).model_copy(update={"engine": "openvino"}))


@pytest.fixture(scope="module", params=OF_TRANSFORMERS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp(request.param) / "bundle"
    write_bundle_of_transformers(folder, kind=request.param, length=LENGTH)
    return load_bundle(folder)


def twin_of(bundle: Bundle) -> GPT | Llama:
    assert isinstance(bundle.model, torch.nn.Module)
    found = writing_model(bundle.model, bundle.info.model, LENGTH)
    assert isinstance(found, GPT | Llama)
    return found


@pytest.mark.slow
@needs_transformers
def test_ours_with_the_same_weights_answers_the_same(bundle: Bundle) -> None:
    twin = twin_of(bundle)
    assert twin.length == LENGTH and not twin.training
    x = torch.randint(bundle.info.data.vocabulary, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(twin(x), bundle.model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@needs_transformers
def test_in_bf16_too(bundle: Bundle, tmp_path: Path) -> None:
    rewrite_bundle(tmp_path / "rounded", bundle, precision="bf16")
    twin = twin_of(load_bundle(tmp_path / "rounded"))
    assert {each.dtype for each in twin.parameters()} == {torch.bfloat16}
    x = torch.randint(bundle.info.data.vocabulary, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        apart = (twin(x).float() - bundle.model(x)).abs().max() / bundle.model(x).abs().max()
    assert apart < RELATIVE_ROUNDED
