"""Directories of weights that are read as they are, or say why they cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_models_exchange import plan_of, plan_of_images, read
from torch import Tensor

from thrifty.errors import BundleError
from thrifty.models import build
from thrifty.models.exchange import form_of, read_plan, save
from thrifty.models.init import initialise


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A directory of a small model of ours."""
    plan = plan_of("llama-nano", width=16, heads=4, kv_heads=2, ffn=24)
    model = build(plan)
    initialise(model, "default", 0)
    save(model, plan, tmp_path / "saved")
    return tmp_path / "saved"


def test_halves_become_floats(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    wanted = read(saved)[1]
    save_file({name: each.bfloat16() for name, each in tensors.items()}, saved / "model.safetensors")
    found = read(saved)[1]
    assert {each.dtype for each in found.parameters()} == {torch.float32}
    for one, other in zip(found.parameters(), wanted.parameters(), strict=True):
        assert torch.equal(one, other.bfloat16().float())


def config(**changes: Any) -> Callable[[Path], None]:
    """Change keys of a config; None takes one out."""

    def broken(folder: Path) -> None:
        path = folder / "config.json"
        values = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))

    return broken


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def broken(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        change(found)
        save_file(found, folder / "model.safetensors")

    return broken


def index(**places: Any) -> Callable[[Path], None]:
    """Name the file of each tensor in an index, in the place of the one file."""

    def broken(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(places))

    return broken


def bytes_of(name: str, content: bytes) -> Callable[[Path], None]:
    def broken(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return broken


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


NORM = "model.layers.0.input_layernorm.weight"
GATE = "model.layers.0.mlp.gate_proj.weight"
BROKEN: list[tuple[Callable[[Path], Any], str]] = [
    (lambda folder: (folder / "config.json").unlink(), r"config.json' cannot be read: No such file"),
    (bytes_of("config.json", b"{"), r"config.json' is no JSON"),
    (bytes_of("config.json", b"[" * 100_000), r"config.json' is no JSON"),
    (bytes_of("config.json", b"[1]"), r"config.json' holds no JSON object"),
    (bytes_of("config.json", b" " * (2**20 + 1)), r"has 1048577 bytes, over the 1048576"),
    (config(model_type="lama"), r"of type 'lama', which is none of ours\. Did you mean 'llama'"),
    (config(model_type=None), r"of type None, which is none of ours"),
    (config(hidden_size=None), r"has no hidden_size and ours takes a whole number from 1"),
    (config(hidden_size="16"), r'has "16" hidden_size and ours takes a whole number'),
    (config(num_hidden_layers=10**6), r"has 1000000 num_hidden_layers and ours takes a whole number from 1 to 1000"),
    (config(vocab_size=True), r"has true vocab_size"),
    (config(rms_norm_eps=-1.0), r"has -1.0 rms_norm_eps and ours takes a number over 0"),
    (config(hidden_act="gelu"), r'has "gelu" hidden_act and ours takes "silu"'),
    (config(attention_bias=True), r"has true attention_bias and ours takes false"),
    (config(rope_parameters={"rope_type": "yarn"}), r'config\.json: rope_parameters\' has "yarn" rope_type'),
    (config(head_dim=8), r"has 8 head_dim and ours takes 4"),
    (config(hidden_size=32, head_dim=8), r"of another shape: .*\[64, 16\], not \[64, 32\].* and 8 more"),
    (config(num_hidden_layers=2), r"missing: 'model\.layers\.1\.\S+ .* and 6 more"),
    (tensors(lambda found: found.pop(NORM)), rf"missing: '{NORM}'\."),
    (tensors(lambda found: found.update(extra=torch.zeros(2))), r"not known: 'extra'\."),
    (tensors(lambda found: found.update({GATE: torch.zeros(3, 16)})), rf"shape: '{GATE}' \[3, 16\], not \[24, 16\]"),
    (tensors(lambda found: found[NORM].fill_(torch.nan)), rf"'{NORM}' in '.*' hold NaN or infinity"),
    (bytes_of("model.safetensors", b"no tensors"), r"is no safetensors file"),
    (lambda folder: (folder / "model.safetensors").unlink(), r"has no model\.safetensors"),
    (pickled, r"are pickled \(pytorch_model\.bin\), and a pickle can run code"),
    (index(), r"index\.json' has no weight_map"),
    (index(weight_map={NORM: "../other.safetensors"}), r"names '\.\./other\.safetensors', no file beside it"),
    (index(weight_map={NORM: "gone.safetensors"}), r"names 'gone\.safetensors', which is not there"),
    (index(weight_map={"ghost": "model-00001-of-00001.safetensors"}), r"lacks 'ghost', which '.*' says it has"),
    (index(weight_map={NORM: "model-00001-of-00001.safetensors"}), r"missing: 'model\.embed_tokens\.weight'"),
]


@pytest.mark.parametrize(("breaks", "says"), BROKEN, ids=[row[1][:40] for row in BROKEN])
def test_a_directory_that_cannot_be_read_says_why(breaks: Callable[[Path], Any], says: str, saved: Path) -> None:
    breaks(saved)
    with pytest.raises(BundleError, match=says):
        read(saved)


PIXELS: list[tuple[str, dict[str, Any], str]] = [
    ("vit-nano", {"image_size": 30}, r"has 30 image_size and ours takes 28"),
    ("vit-nano", {"patch_size": [4, 4]}, r"has \[4, 4\] patch_size and ours takes a whole number"),
    ("vit-nano", {"qkv_bias": False}, r"has false qkv_bias and ours takes true"),
    ("vit-nano", {"layer_norm_eps": 1e-6}, r"has 1e-06 layer_norm_eps and ours takes 1e-12"),
    ("vit-nano", {"id2label": ["a"]}, r'has \["a"\] id2label and ours takes names of classes'),
    ("resnet50", {"layer_type": "wide"}, r'has "wide" layer_type and ours takes "basic" or "bottleneck"'),
    ("resnet50", {"hidden_sizes": [256, 510]}, r"has \[256, 510\] hidden_sizes and ours takes \[256, 508\]"),
    ("resnet50", {"hidden_sizes": 256}, r"has 256 hidden_sizes and ours takes a list of whole numbers"),
    ("resnet50", {"embedding_size": 32}, r"has 32 embedding_size and ours takes 64"),
    ("resnet50", {"depths": [3, 4, 6]}, r"has \[3, 4, 6\] depths and ours takes a list of 4 whole numbers"),
    ("resnet50", {"depths": [3, 4, 6, 0]}, r"takes a list of whole numbers from 1 to 1000"),
    ("resnet50", {"downsample_in_bottleneck": True}, r"has true downsample_in_bottleneck and ours takes false"),
]


@pytest.mark.parametrize(("name", "changes", "says"), PIXELS, ids=[f"{row[0]} {row[1]}" for row in PIXELS])
def test_a_config_that_ours_is_not_says_why(name: str, changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    plan = plan_of_images(name)
    kind, form = form_of(plan)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **form.config(plan.arguments)}))
    assert read_plan(tmp_path).family == plan.family
    config(**changes)(tmp_path)
    with pytest.raises(BundleError, match=says):
        read_plan(tmp_path)
