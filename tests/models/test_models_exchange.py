"""Weights of transformers in models of ours: the same logits, gradients and files; broken directories say why."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from thrifty.errors import BundleError, JobError
from thrifty.models import MODELS, build
from thrifty.models.exchange import FORMS, form_of, load_weights, read_plan, save
from thrifty.models.exchange.resnet import STATISTICS
from thrifty.models.exchange.weights import collect
from thrifty.models.init import initialise
from thrifty.models.speech import PADDING
from thrifty.spec import ModelPlan

transformers_installed = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)

VOCABULARY, LENGTH = 64, 16
GPT2 = {
    "vocab_size": VOCABULARY, "n_positions": LENGTH, "n_layer": 2, "n_embd": 16, "n_head": 2, "bos_token_id": 0,
    "eos_token_id": 0,
}  # fmt: skip
LLAMA = {
    "vocab_size": VOCABULARY, "max_position_embeddings": LENGTH, "num_hidden_layers": 2, "hidden_size": 16,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 40,
}  # fmt: skip
LONGER = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}  # fmt: skip
BERT = {
    "vocab_size": VOCABULARY, "max_position_embeddings": LENGTH, "num_hidden_layers": 2, "hidden_size": 16,
    "num_attention_heads": 4, "intermediate_size": 64, "num_labels": 3,
}  # fmt: skip
RESNET = {"depths": [2, 1], "num_labels": 3, "embedding_size": 16}
BASIC = {**RESNET, "layer_type": "basic", "hidden_sizes": [16, 24]}
IMAGES = {"resnet": 40, "vit": 12}
VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "image_size": IMAGES["vit"], "patch_size": 4, "num_labels": 3,
}  # fmt: skip
WAV2VEC2 = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "conv_dim": [12, 12, 12], "conv_kernel": [10, 3, 2], "conv_stride": [5, 2, 2], "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 10, "vocab_size": 9,
    "num_labels": 3, "mask_time_prob": 0.0,
}  # fmt: skip
STABLE = {**WAV2VEC2, "feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
# a class of transformers, a type and sizes of its config
THEIRS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", "gpt2", GPT2),
    "llama": ("LlamaForCausalLM", "llama", LLAMA),
    "llama, tied": ("LlamaForCausalLM", "llama", {**LLAMA, "tie_word_embeddings": True}),
    "llama, no groups": ("LlamaForCausalLM", "llama", {**LLAMA, "num_key_value_heads": 4, "rms_norm_eps": 1e-3}),
    "llama 3.1": ("LlamaForCausalLM", "llama", {**LLAMA, "rope_parameters": LONGER}),
    "bert": ("BertForSequenceClassification", "bert", BERT),
    "bert, words": ("BertForMaskedLM", "bert", BERT),
    "resnet": ("ResNetForImageClassification", "resnet", {**RESNET, "hidden_sizes": [64, 96]}),
    "resnet, wider at once": ("ResNetForImageClassification", "resnet", {**BASIC, "num_channels": 1}),
    "resnet 18": (
        "ResNetForImageClassification",
        "resnet",
        {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
    ),
    "resnet 50": ("ResNetForImageClassification", "resnet", {}),
    "wav2vec2": ("Wav2Vec2ForSequenceClassification", "wav2vec2", WAV2VEC2),
    "wav2vec2, transcribing": ("Wav2Vec2ForCTC", "wav2vec2", {**WAV2VEC2, "num_conv_pos_embeddings": 7}),
    "wav2vec2, stable": ("Wav2Vec2ForSequenceClassification", "wav2vec2", STABLE),
    "wav2vec2, stable, transcribing": ("Wav2Vec2ForCTC", "wav2vec2", STABLE),
    "vit": ("ViTForImageClassification", "vit", VIT),
    "vit, gray": ("ViTForImageClassification", "vit", {**VIT, "num_channels": 1, "num_labels": 11}),
}


def theirs(kind: str) -> nn.Module:
    """A model of transformers whose every parameter is random: norms and biases too."""
    import transformers

    architecture, model_type, sizes = THEIRS[kind]
    config = transformers.AutoConfig.for_model(model_type, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = getattr(transformers, architecture)(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.dim() > 1 else 0.5
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def inputs(kind: str) -> Tensor:
    """Pixels, waves, or token numbers; of texts and waves that are padded, the second is shorter."""
    generator = torch.Generator().manual_seed(1)
    family, sizes = THEIRS[kind][1:]
    if family in IMAGES:
        side = IMAGES[family]
        return torch.randn(3, sizes.get("num_channels", 3), side, side, generator=generator)
    if family == "wav2vec2":
        waves = torch.randn(3, 26, 20, generator=generator)
        if sizes is STABLE:
            waves[1, 13, 7:], waves[1, 14:] = PADDING, PADDING
        return waves
    x = torch.randint(1, VOCABULARY, (3, LENGTH - 3), generator=generator)
    if kind.startswith("bert"):
        x[1, 5:] = 0
    return x


def logits_of(reference: nn.Module, x: Tensor) -> Tensor:
    """What a model of transformers answers: of texts and waves it is told what is padding."""
    if x.dim() == 3:
        # a group norm would see padding, which is why its authors' code leaves the mask out
        wave = x.flatten(1)
        real = wave != PADDING
        more = {} if real.all() else {"attention_mask": real.long()}
        return reference(wave.where(real, 0.0), **more).logits  # type: ignore[no-any-return]
    more = {} if x.is_floating_point() else {"attention_mask": (x != 0).long()}
    return reference(x, **more).logits  # type: ignore[no-any-return]


def gradients_of(model: nn.Module) -> Any:
    """The same model with gradients in the place of its parameters."""
    gradients = copy.deepcopy(model)
    for gradient, parameter in zip(gradients.parameters(), model.parameters(), strict=True):
        assert parameter.grad is not None
        gradient.data = parameter.grad
    return gradients


def apart(one: Tensor, other: Tensor) -> float:
    """The distance of two tensors in the length of the second."""
    one, other = one.detach(), other.detach()
    return float((one - other).norm() / other.norm())


def read(folder: Path) -> tuple[ModelPlan, nn.Module]:
    plan = read_plan(folder)
    model = build(plan).eval()
    load_weights(model, plan, folder)
    return plan, model


@pytest.mark.slow
@transformers_installed
@pytest.mark.parametrize("kind", THEIRS)
def test_logits_and_gradients_are_theirs(kind: str, tmp_path: Path) -> None:
    reference, x = theirs(kind), inputs(kind)
    reference.save_pretrained(tmp_path / "theirs")
    plan, model = read(tmp_path / "theirs")
    wanted, found = logits_of(reference, x), model(x)
    if wanted.dim() == 3 and x.dim() == 3:
        # of what has ended only ours says that it has, and where frames end it has one more
        there = (x[:, 1:, 9] != PADDING)[..., None]
        wanted, found = wanted * there, found[:, :-1] * there
    assert apart(found, wanted) <= 1e-5
    pull = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2))
    if pull.shape[:2] == x.shape:
        pull *= (x != 0)[..., None]  # nothing is asked of padding
    wanted.backward(pull)
    found.backward(pull)
    # as transformers names them in a file, which for a ViT are not the names of its parameters
    gradients_of(reference).save_pretrained(tmp_path / "gradients")
    named = load_file(tmp_path / "gradients" / "model.safetensors")
    under_their_names = collect(gradients_of(model), form_of(plan)[1], plan.arguments)
    assert named.keys() == under_their_names.keys()
    for name, gradient in named.items():
        if name.endswith(STATISTICS):
            continue
        if name.endswith(("key.bias", "k_proj.bias")):
            # a softmax forgets it: what there is of a gradient is rounding
            queries = named[name.replace("key", "query").replace("k_proj", "q_proj")].norm()
            assert max(gradient.norm(), under_their_names[name].norm()) < 1e-4 * queries
            continue
        assert apart(under_their_names[name], gradient) <= 1e-5, name


@pytest.mark.slow
@transformers_installed
@pytest.mark.parametrize("kind", THEIRS)
def test_a_model_comes_back_from_either_side_bit_by_bit(kind: str, tmp_path: Path) -> None:
    import transformers

    reference = theirs(kind)
    reference.save_pretrained(tmp_path / "theirs")
    plan, model = read(tmp_path / "theirs")
    save(model, plan, tmp_path / "ours")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    again, told = getattr(transformers, THEIRS[kind][0]).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(told.values()), told
    x = inputs(kind)
    assert torch.equal(logits_of(again.eval(), x), logits_of(reference, x))
    plan_again, model_again = read(tmp_path / "ours")
    assert plan_again.arguments == plan.arguments
    assert torch.equal(model_again(x), model(x))


@pytest.mark.slow
@transformers_installed
def test_a_model_in_several_files_or_without_its_head_is_read_as_one(tmp_path: Path) -> None:
    reference = theirs("llama, tied")
    reference.save_pretrained(tmp_path / "whole")
    reference.save_pretrained(tmp_path / "shards", max_shard_size="6kB")
    reference.model.save_pretrained(tmp_path / "bare")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    x = inputs("llama, tied")
    wanted = read(tmp_path / "whole")[1](x)
    assert torch.equal(read(tmp_path / "shards")[1](x), wanted)
    assert torch.equal(read(tmp_path / "bare")[1](x), wanted)


def plan_of(name: str, **sizes: Any) -> ModelPlan:
    recipe = MODELS[name]
    arguments = {**recipe.arguments, "layers": 1, "vocabulary": VOCABULARY, "length": LENGTH, **sizes}
    return ModelPlan(name=name, family=recipe.family, arguments=arguments)


@pytest.mark.slow
@transformers_installed
@pytest.mark.parametrize("saved_as", ["BertForMaskedLM", "BertModel", "BertForSequenceClassification"])
def test_a_classifier_takes_what_was_trained_on_something_else(saved_as: str, tmp_path: Path) -> None:
    import transformers

    config = transformers.AutoConfig.for_model("bert", **{**BERT, "num_labels": 5})
    other = getattr(transformers, saved_as)(config)
    other.save_pretrained(tmp_path)
    plan = read_plan(tmp_path)
    plan = plan.model_copy(update={"arguments": {**plan.arguments, "classes": 3, "length": LENGTH - 4}})
    model = build(plan)
    filled = load_weights(model, plan, tmp_path)
    new = (
        ["fc.weight", "fc.bias"]
        if saved_as != "BertForMaskedLM"
        else ["pooler.weight", "pooler.bias", "fc.weight", "fc.bias"]
    )
    assert filled.new == tuple(new)
    assert all(name.startswith(("cls.", "classifier.")) for name in filled.unused)
    theirs = {name.removeprefix("bert."): each for name, each in other.state_dict().items()}
    assert torch.equal(model.positions.weight, theirs["embeddings.position_embeddings.weight"][: LENGTH - 4])
    assert torch.equal(model.blocks[1].mlp.up.weight, theirs["encoder.layer.1.intermediate.dense.weight"])


@pytest.mark.slow
@transformers_installed
def test_names_of_the_authors_own_checkpoint_are_understood(tmp_path: Path) -> None:
    theirs("bert").save_pretrained(tmp_path)
    wanted = read(tmp_path)[1].state_dict()
    path = tmp_path / "model.safetensors"
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): each
        for name, each in load_file(path).items()
    }
    save_file(renamed, path)
    assert sum(name.endswith((".gamma", ".beta")) for name in renamed) == 10
    found = read(tmp_path)[1].state_dict()
    assert all(torch.equal(each, wanted[name]) for name, each in found.items())


@pytest.mark.slow
@transformers_installed
@pytest.mark.parametrize("saved_as", ["Wav2Vec2ForPreTraining", "Wav2Vec2Model", "Wav2Vec2ForCTC"])
def test_a_hearer_takes_what_was_trained_on_something_else(saved_as: str, tmp_path: Path) -> None:
    import transformers

    config = transformers.AutoConfig.for_model("wav2vec2", **{**WAV2VEC2, "mask_time_prob": 0.05})
    other = getattr(transformers, saved_as)(config)
    other.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    # as torch called them before 2.0, and published checkpoints do
    older = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    named = {
        next((name.replace(new, old) for new, old in older.items() if new in name), name): each
        for name, each in load_file(path).items()
    }
    save_file(named, path, metadata={"format": "pt"})
    assert sum(name.endswith(("weight_g", "weight_v")) for name in named) == 2
    plan = read_plan(tmp_path)
    assert plan.arguments["transcribes"] == (saved_as == "Wav2Vec2ForCTC")
    wanted = plan.model_copy(update={"arguments": {**plan.arguments, "outputs": 5, "transcribes": False}})
    model = build(wanted)
    filled = load_weights(model, wanted, tmp_path)
    assert filled.new == ("projector.weight", "projector.bias", "fc.weight", "fc.bias")
    assert all("masked_spec" in name or name.startswith(("quantizer", "project_", "lm_")) for name in filled.unused)
    theirs = {name.removeprefix("wav2vec2."): each for name, each in other.state_dict().items()}
    wanted_weight = theirs["encoder.pos_conv_embed.conv.parametrizations.weight.original1"]
    assert torch.equal(model.positions.direction, wanted_weight)


@pytest.mark.slow
@transformers_installed
def test_a_blank_of_another_number_is_token_0_here(tmp_path: Path) -> None:
    import transformers

    config = transformers.AutoConfig.for_model("wav2vec2", **WAV2VEC2, pad_token_id=6)
    reference = transformers.Wav2Vec2ForCTC(config).eval()
    reference.save_pretrained(tmp_path / "theirs")
    plan, model = read(tmp_path / "theirs")
    x = inputs("wav2vec2")
    wanted = logits_of(reference, x)[..., [6, 0, 1, 2, 3, 4, 5, 7, 8]]
    assert apart(model(x)[:, :-1], wanted) <= 1e-5
    save(model, plan, tmp_path / "ours")
    assert torch.equal(read(tmp_path / "ours")[1](x), model(x))
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({**config.to_dict(), "pad_token_id": 9}))
    with pytest.raises(BundleError, match=r"has 9 pad_token_id and ours takes a whole number from 0 to 8"):
        load_weights(model, plan, tmp_path / "theirs")


@pytest.mark.slow
@transformers_installed
def test_where_a_norm_is_over_time_a_wave_is_heard_beside_others_as_theirs_hears_it_alone(tmp_path: Path) -> None:
    reference, x = theirs("wav2vec2"), inputs("wav2vec2")
    reference.save_pretrained(tmp_path)
    x[1, 13, 7:], x[1, 14:] = PADDING, PADDING
    alone = reference(x[1].flatten()[: 13 * 20 + 7][None]).logits
    assert apart(read(tmp_path)[1](x)[1:2], alone) <= 1e-5


@pytest.mark.slow
@transformers_installed
def test_what_ours_cannot_be_of_a_hearer_is_told(tmp_path: Path) -> None:
    import transformers

    for changed, says in (
        ({"add_adapter": True}, r"has true add_adapter and ours takes false"),
        (
            {"conv_dim": [8, 8], "conv_kernel": [3], "conv_stride": [2, 2]},
            r"\[3\] conv_kernel and ours takes a list of 2",
        ),
    ):
        config = transformers.AutoConfig.for_model("wav2vec2", **WAV2VEC2).to_dict()
        config |= {"architectures": ["Wav2Vec2ForCTC"], **changed}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(BundleError, match=says):
            read_plan(tmp_path)


@pytest.mark.parametrize("name", ["gpt-nano", "llama-nano", "llama3.2-1b"])
def test_what_ours_writes_it_reads(name: str, tmp_path: Path) -> None:
    plan = plan_of(name, width=64, heads=8)
    model = build(plan)
    initialise(model, "default", 0)
    save(model, plan, tmp_path)
    again, other = read(tmp_path)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert {key: again.arguments[key] for key in plan.arguments} == {
        key: list(value) if isinstance(value, tuple) else value for key, value in plan.arguments.items()
    }


def plan_of_images(name: str) -> ModelPlan:
    recipe = MODELS[name]
    sizes = {"channels": 3, "classes": 5} | ({"side": 32} if recipe.family == "vit" else {})
    return ModelPlan(name=name, family=recipe.family, arguments={**recipe.arguments, **sizes})


@pytest.mark.parametrize("name", ["vit-nano", "resnet18"])
def test_a_classifier_keeps_what_it_has_but_for_a_head_of_other_classes(name: str, tmp_path: Path) -> None:
    plan = plan_of_images(name)
    model = build(plan)
    save(model, plan, tmp_path, labels=list("abcde"))
    assert read_plan(tmp_path).arguments["classes"] == 5
    wider = plan.model_copy(update={"arguments": {**plan.arguments, "classes": 7}})
    other = build(wider, seed=1)
    assert load_weights(other, wider, tmp_path).new == ("fc.weight", "fc.bias")
    found = other.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in model.state_dict().items() if "fc." not in key)


def test_a_residual_network_for_small_images_has_no_form(tmp_path: Path) -> None:
    plan = plan_of_images("resnet20")
    with pytest.raises(JobError, match=r"stem 'cifar' and shortcuts 'pad' has no form .* resnet18 to resnet152"):
        save(build(plan), plan, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_family_without_a_form_is_told() -> None:
    plan = ModelPlan(name="mlp-small", family="mlp", arguments={"widths": [4], "inputs": 4, "classes": 2})
    with pytest.raises(JobError, match=r"'mlp-small' has no form in Hugging Face's transformers\. Families that have"):
        save(build(plan), plan, Path("nowhere"))
    assert len({form.family for form in FORMS.values()}) == len(FORMS)
