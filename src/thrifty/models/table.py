"""The models by name, and how a name becomes a plan and a plan a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import thrifty.models.hf as hf
import thrifty.models.own as own
import thrifty.models.pretrained as pretrained
import thrifty.models.sized as sized
from thrifty.errors import JobError, unknown_name
from thrifty.spec import Dataset, ModelPlan

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Recipe:
    """A model before it meets data.

    Attributes:
        family: the file it is built from, such as ``resnet``; a key of `FAMILY_KINDS`.
        arguments: what the name fixes; the data gives the rest (classes, channels, vocabulary, length).
        says: one line for a list of models.
    """

    family: str
    arguments: dict[str, Any]
    says: str


def _cifar(depth: int) -> Recipe:
    # He et al. 2015, section 4.2: 6n + 2 layers, three stages of n blocks, option A shortcuts
    blocks = (depth - 2) // 6
    return Recipe(
        "resnet",
        {
            "stem": "cifar",
            "block": "basic",
            "shortcut": "pad",
            "blocks": (blocks, blocks, blocks),
            "widths": (16, 32, 64),
        },
        f"ResNet-{depth} as for CIFAR-10: small images (He et al. 2015, section 4.2)",
    )


def _imagenet(depth: int, block: str, blocks: tuple[int, ...]) -> Recipe:
    return Recipe(
        "resnet",
        {
            "stem": "imagenet",
            "block": block,
            "shortcut": "project",
            "blocks": blocks,
            "widths": (64, 128, 256, 512),
        },
        f"ResNet-{depth} as for ImageNet: images from about 64 pixels (He et al. 2015, table 1)",
    )


def _gpt(layers: int, width: int, heads: int, says: str) -> Recipe:
    return Recipe("gpt", {"layers": layers, "width": width, "heads": heads}, says)


def _bert(layers: int, width: int, heads: int, says: str) -> Recipe:
    return Recipe("bert", {"layers": layers, "width": width, "heads": heads}, says)


def _original(layers: int, width: int, heads: int, size: str) -> Recipe:
    sizes = {"layers": layers, "width": width, "heads": heads}
    return Recipe("bert_original", sizes, f"BERT as published, for weights trained before: {size}")


_TURC = "(Turc et al. 2019, arXiv 1908.08962)"


def _speech(layers: int, width: int, heads: int, channels: int, says: str) -> Recipe:
    sizes = {"layers": layers, "width": width, "heads": heads, "channels": channels, "kernel": 9, "drop": 0.15}
    return Recipe("speech", sizes, says)


def _wav2vec2(layers: int, width: int, heads: int, size: str, **more: Any) -> Recipe:
    # Baevski et al. 2020, section 4.2; what is large is as its authors call it large (LV-60)
    sizes = {
        "channels": (512,) * 7,
        "kernels": (10, 3, 3, 3, 3, 2, 2),
        "strides": (5, 2, 2, 2, 2, 2, 2),
        "norm": "group",
        "bias": False,
        "window": 128,
        "groups": 16,
        "layers": layers,
        "width": width,
        "heads": heads,
        "stable": False,
        "projected": 256,
    }
    return Recipe("wav2vec2", {**sizes, **more}, f"wav2vec 2.0 over raw waves: {size}")


def _gpt3(layers: int, width: int, heads: int, size: str, note: str = "") -> Recipe:
    return _gpt(layers, width, heads, f"the shape of GPT-3 {size} (Brown et al. 2020, table 2.1{note})")


def _vit(patch: int, layers: int, width: int, heads: int, says: str) -> Recipe:
    return Recipe("vit", {"patch": patch, "layers": layers, "width": width, "heads": heads}, says)


def _llama(layers: int, width: int, heads: int, kv_heads: int, ffn: int, says: str, **more: Any) -> Recipe:
    sizes = {"layers": layers, "width": width, "heads": heads, "kv_heads": kv_heads, "ffn": ffn}
    return Recipe("llama", {**sizes, "tied": False, **more}, says)


def _llama3(layers: int, width: int, heads: int, ffn: int, size: str) -> Recipe:
    says = f"the shape of Llama 3 {size} (Grattafiori et al. 2024, arXiv 2407.21783, table 3)"
    return _llama(layers, width, heads, 8, ffn, says, theta=500_000.0)


_TOUVRON = "(Touvron et al. 2023, arXiv 2302.13971, table 2)"


_SMALL_LLAMAS = "(Meta 2024, its model card and config)"
_LONGER = {"tied": True, "theta": 500_000.0, "scaling": (32.0, 1.0, 4.0, 8192)}


def _ngrams(longest: int, buckets: int, power: float, gain: float, says: str) -> Recipe:
    sizes = {"longest": longest, "buckets": buckets, "width": 16, "power": power, "gain": gain}
    return Recipe("ngrams", sizes, f"bag of n-grams: {says}")


def _mlp(*widths: int) -> Recipe:
    return Recipe(
        "mlp", {"widths": widths}, f"plain network over pixels, hidden layers of {', '.join(map(str, widths))}"
    )


def _tabular(members: int, *widths: int) -> Recipe:
    sizes = {"members": members, "pieces": 128, "embedding": 16, "widths": widths, "dropout": 0.1}
    says = f"{members} networks for tables in one trunk, hidden layers of {', '.join(map(str, widths))}"
    return Recipe("tabular", sizes, f"{says} (TabM-mini, Gorishniy et al. 2024)")


MODELS: dict[str, Recipe] = {
    "resnet8": _cifar(8),
    "resnet14": _cifar(14),
    "resnet20": _cifar(20),
    "resnet32": _cifar(32),
    "resnet44": _cifar(44),
    "resnet56": _cifar(56),
    "resnet110": _cifar(110),
    "resnet18": _imagenet(18, "basic", (2, 2, 2, 2)),
    "resnet34": _imagenet(34, "basic", (3, 4, 6, 3)),
    "resnet50": _imagenet(50, "bottleneck", (3, 4, 6, 3)),
    "resnet101": _imagenet(101, "bottleneck", (3, 4, 23, 3)),
    "resnet152": _imagenet(152, "bottleneck", (3, 8, 36, 3)),
    "convnet-fast": Recipe(
        "fast_convnet",
        # Jordan 2024, section 3: the widths of airbench94 and its scale
        {"widths": (64, 256, 256), "scale": 1 / 9},
        "convolutions for small images and few epochs: CIFAR-10 in minutes on a CPU (Jordan 2024)",
    ),
    "vit-nano": _vit(4, 6, 128, 4, "ViT for small images, patches of 4 pixels: 1.2 M parameters"),
    "vit-mini": _vit(4, 8, 192, 6, "ViT for small images, patches of 4 pixels: 3.6 M parameters"),
    "vit-ti16": _vit(16, 12, 192, 3, "the shape of ViT-Ti/16: images from about 128 pixels (Touvron et al. 2021)"),
    "vit-s16": _vit(16, 12, 384, 6, "the shape of ViT-S/16: images from about 128 pixels (Touvron et al. 2021)"),
    "vit-b16": _vit(16, 12, 768, 12, "the shape of ViT-B/16: images from about 128 pixels (Dosovitskiy et al. 2021)"),
    "gpt-nano": _gpt(4, 192, 4, "GPT for minutes on a laptop: 1.8 M parameters beside the embeddings"),
    "gpt-mini": _gpt(6, 384, 6, "GPT for an hour on a CPU: 10.6 M parameters beside the embeddings"),
    "gpt-small": _gpt(8, 512, 8, "GPT for one GPU: 25 M parameters beside the embeddings"),
    "gpt2": _gpt(12, 768, 12, "the shape of GPT-2, 124 M parameters (Radford et al. 2019)"),
    "gpt2-medium": _gpt(24, 1024, 16, "the shape of GPT-2 medium, 355 M parameters (Radford et al. 2019)"),
    "gpt2-large": _gpt(36, 1280, 20, "the shape of GPT-2 large, 774 M parameters (Radford et al. 2019)"),
    "gpt2-xl": _gpt(48, 1600, 25, "the shape of GPT-2 XL, 1.56 G parameters (Radford et al. 2019)"),
    "gpt3-125m": _gpt3(12, 768, 12, "125 M"),
    "gpt3-350m": _gpt3(24, 1024, 16, "350 M"),
    "gpt3-760m": _gpt3(24, 1536, 16, "760 M"),
    # the table's 24 heads of 128 do not add up to its width of 2,048
    "gpt3-1.3b": _gpt3(24, 2048, 16, "1.3 G", "; 16 heads where it says 24"),
    "gpt3-2.7b": _gpt3(32, 2560, 32, "2.7 G"),
    "gpt3-6.7b": _gpt3(32, 4096, 32, "6.7 G"),
    # likewise its 40 heads of 128 and a width of 5,140
    "gpt3-13b": _gpt3(40, 5120, 40, "13 G", "; width 5,120 where it says 5,140"),
    "gpt3-175b": _gpt3(96, 12288, 96, "175 G"),
    # inside, two thirds of four times the width as Llama has it, rounded up to a multiple of 128
    "llama-nano": _llama(
        4, 192, 6, 2, 512, "Llama for minutes on a laptop: 1.6 M parameters beside the embeddings", tied=True
    ),
    "llama-mini": _llama(
        6, 384, 6, 2, 1024, "Llama for an hour on a CPU: 9.4 M parameters beside the embeddings", tied=True
    ),
    "llama-small": _llama(8, 512, 8, 4, 1408, "Llama for one GPU: 23 M parameters beside the embeddings", tied=True),
    "llama-7b": _llama(32, 4096, 32, 32, 11008, f"the shape of Llama 7 G {_TOUVRON}"),
    "llama-13b": _llama(40, 5120, 40, 40, 13824, f"the shape of Llama 13 G {_TOUVRON}"),
    "llama-33b": _llama(60, 6656, 52, 52, 17920, f"the shape of Llama 33 G {_TOUVRON}"),
    "llama-65b": _llama(80, 8192, 64, 64, 22016, f"the shape of Llama 65 G {_TOUVRON}"),
    "llama2-70b": _llama(80, 8192, 64, 8, 28672, "the shape of Llama 2 70 G (Touvron et al. 2023, arXiv 2307.09288)"),
    "llama3-8b": _llama3(32, 4096, 32, 14336, "8 G"),
    "llama3-70b": _llama3(80, 8192, 64, 28672, "70 G"),
    "llama3-405b": _llama3(126, 16384, 128, 53248, "405 G"),
    "llama3.2-1b": _llama(16, 2048, 32, 8, 8192, f"the shape of Llama 3.2 1 G {_SMALL_LLAMAS}", **_LONGER),
    "llama3.2-3b": _llama(28, 3072, 24, 8, 8192, f"the shape of Llama 3.2 3 G {_SMALL_LLAMAS}", **_LONGER),
    "ngrams": _ngrams(6, 131_071, 1.0, 5.0, "runs of up to six characters; tells texts in seconds"),
    "ngrams-short": _ngrams(3, 524_287, 0.5, 0.7, "runs of up to three, in a larger table; for characters of Chinese"),
    "bert-tiny": _bert(2, 128, 2, "BERT for seconds on a laptop: 0.4 M parameters beside the embeddings"),
    "bert-mini": _bert(4, 256, 4, "BERT for a minute on a laptop: 3.2 M parameters beside the embeddings"),
    "bert-small": _bert(6, 384, 6, "BERT for minutes on a CPU: 10.6 M parameters beside the embeddings"),
    "bert-base": _bert(12, 768, 12, "the shape of BERT-base, 110 M parameters (Devlin et al. 2019)"),
    "bert-large": _bert(24, 1024, 16, "the shape of BERT-large, 340 M parameters (Devlin et al. 2019)"),
    "bert-tiny-original": _original(2, 128, 2, f"tiny {_TURC}"),
    "bert-mini-original": _original(4, 256, 4, f"mini {_TURC}"),
    "bert-small-original": _original(4, 512, 8, f"small {_TURC}"),
    "bert-medium-original": _original(8, 512, 8, f"medium {_TURC}"),
    "bert-base-original": _original(12, 768, 12, "base (Devlin et al. 2019)"),
    "bert-large-original": _original(24, 1024, 16, "large (Devlin et al. 2019)"),
    "speech-tiny": _speech(2, 96, 4, 16, "speech for seconds on a laptop: 0.4 M parameters"),
    "speech-mini": _speech(3, 128, 4, 32, "speech for minutes on a laptop: 0.9 M parameters"),
    "speech-small": _speech(8, 256, 4, 64, "speech for hours of recordings: 8.5 M parameters"),
    "wav2vec2-tiny": _wav2vec2(
        2, 64, 4, "to try with, 0.2 M parameters", channels=(32,) * 7, window=32, groups=4, projected=64
    ),
    "wav2vec2-base": _wav2vec2(12, 768, 12, "the shape of base, 95 M parameters (Baevski et al. 2020)"),
    "wav2vec2-large": _wav2vec2(
        24, 1024, 16, "the shape of large, 317 M parameters (LV-60)", norm="layer", bias=True, stable=True
    ),
    "table-mlp-small": _tabular(8, 128, 128),
    "table-mlp": _tabular(16, 256, 256),
    "table-mlp-large": _tabular(32, 512, 512, 512),
    "mlp-small": _mlp(128),
    "mlp-large": _mlp(1024, 1024),
}

OTHER_FORMS = (
    "See: thrifty models. A function of yours is named package.module:function, a Hugging Face model hf:<directory or "
    "id>, one of ours with weights in their layout ours:<directory>, one of another size gpt-nano@3x96 (layers, width)."
)

# the names of `models.schemes.INITS`, which cannot be asked for them without loading torch
INIT_NAMES = (
    "default", "own", "depth_scaled", "zero_residual", "mup", "he_normal", "he_uniform", "he_normal_fan_out",
    "he_uniform_fan_out", "xavier_normal", "xavier_uniform", "lecun_normal", "lecun_uniform", "orthogonal", "normal",
    "truncated_normal", "zeros", "ones",
)  # fmt: skip
# those of `models.fills.CONSTANTS`: a whole model of them would not learn
CONSTANT_INITS = ("zeros", "ones")

FAMILY_KINDS = {
    "resnet": ("image",),
    "fast_convnet": ("image",),
    "vit": ("image",),
    "mlp": ("image",),
    "gpt": ("language",),
    "llama": ("language",),
    "bert": ("text",),
    "bert_original": ("text",),
    "speech": ("audio",),
    "wav2vec2": ("audio",),
    "ngrams": ("text",),
    "tabular": ("table",),
    "own": ("audio", "image", "language", "table", "text"),
    "hf": ("image", "language"),
}


# families whose models can tell hidden words
TELLING_WORDS = ("bert", "bert_original")
# families whose models take a rate of dropout
DROPPING = ("bert", "bert_original", "gpt", "ngrams", "wav2vec2")


def check_name(name: str) -> None:
    """Check that a model's name can be meant, without loading torch or running anything.

    Raises:
        JobError: it is neither in the table nor a function nor a directory or id; the nearest name is given.
        MissingExtraError: it needs a package that is not installed.
    """
    if hf.is_hf(name):
        hf.find(name)
    elif pretrained.is_pretrained(name):
        pretrained.find(name)
    elif own.is_own(name):
        own.find(name)
    else:
        recipe_of(name)


def recipe_of(name: str) -> Recipe:
    """Return the recipe of a model of the table, at the size that its name gives.

    Raises:
        JobError: the table has none of that name, or not at that size.

    >>> recipe_of("gpt-nano@3x96").arguments
    {'layers': 3, 'width': 96, 'heads': 2}
    """
    base, sizes = sized.split_name(name)
    if base not in MODELS:
        raise unknown_name("model", base if sizes else name, MODELS, see=OTHER_FORMS)
    recipe = MODELS[base]
    if sized.SIGN not in name:
        return recipe
    return Recipe(recipe.family, sized.grown(name, recipe.family, recipe.arguments), f"{base} at {sizes}")


def content_key(name: str) -> str:
    """Key of what a model's name stands for: the source of an own one, the files of a directory, else the name.

    Raises:
        JobError: as `check_name`.
    """
    if hf.is_hf(name):
        return hf.content_key(name)
    if pretrained.is_pretrained(name):
        return pretrained.content_key(name)
    return own.find(name).sha256 if own.is_own(name) else name


def resolve(name: str, dataset: Dataset) -> ModelPlan:
    """Give a named model every argument it needs, from its recipe and the data it will learn from.

    Raises:
        JobError: no model has that name (the nearest one is given), or it does not keep the contract on this data.

    >>> from thrifty.models import MODELS
    >>> MODELS["resnet20"].arguments["blocks"]
    (3, 3, 3)
    """
    if hf.is_hf(name):
        return _checked(hf.resolve(name, dataset), dataset)
    if pretrained.is_pretrained(name):
        return pretrained.resolve(name, dataset, FAMILY_KINDS, _from_data)
    if own.is_own(name):
        return _checked(own.resolve(name, dataset), dataset)
    recipe = recipe_of(name)
    (kind,) = FAMILY_KINDS[recipe.family]
    if kind != dataset.kind:
        fits = sorted(other for other, each in MODELS.items() if dataset.kind in FAMILY_KINDS[each.family])
        raise JobError(
            f"model '{name}' learns from data of kind '{kind}', and this is '{dataset.kind}'",
            mend=f"For it there are: {', '.join(fits)}.",
        )
    # lists, as JSON gives them back: a plan equals itself when read from its file
    fixed = {key: list(value) if isinstance(value, tuple) else value for key, value in recipe.arguments.items()}
    return ModelPlan(
        name=name, family=recipe.family, arguments={**fixed, **_from_data(recipe.family, recipe.arguments, dataset)}
    )


def dropping(plan: ModelPlan, rate: float) -> ModelPlan:
    """Return the plan of a model with dropout at this rate.

    Raises:
        JobError: its family takes none.
    """
    if plan.family not in DROPPING:
        fits = sorted(name for name, each in MODELS.items() if each.family in DROPPING)
        raise JobError(
            f"train.dropout is {rate:g}, and model '{plan.name}' takes no rate of dropout",
            mend=f"Leave it out; those that take one: {', '.join(fits)}.",
        )
    return plan.model_copy(update={"arguments": {**plan.arguments, "dropout": rate}})


def _checked(plan: ModelPlan, dataset: Dataset) -> ModelPlan:
    """Return the plan of a model that is not ours once it kept the contract."""
    from thrifty.models.logits import check_logits

    check_logits(
        lambda: build(plan), dataset, plan.name, lambda error: own.failure(error, plan.name, own.files_of(plan))
    )
    return plan


def _from_data(family: str, arguments: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    if dataset.task == "mask" and family not in TELLING_WORDS:
        fits = sorted(name for name, each in MODELS.items() if each.family in TELLING_WORDS)
        raise JobError(
            f"a model of the family '{family}' tells no hidden words", mend=f"Those that do: {', '.join(fits)}."
        )
    if family in {"gpt", "llama"}:
        return {"vocabulary": dataset.vocabulary, "length": dataset.shape[0]}
    if family in {"speech", "wav2vec2"}:
        return _from_sound(family, dataset)
    classes = len(dataset.labels)
    if family == "ngrams":
        return {"classes": classes}
    if family in {"bert", "bert_original"}:
        more = {} if dataset.task == "mask" else {"classes": classes}
        if family == "bert_original" and dataset.separator:
            more["separator"] = dataset.separator
        return {"vocabulary": dataset.vocabulary, "length": dataset.shape[0], **more}
    if family == "tabular":
        table = dataset.table
        assert table is not None
        outputs = 1 if dataset.task == "regress" else classes
        return {
            "numbers": table.numbers, "codes": table.codes, "vocabulary": dataset.vocabulary, "outputs": outputs
        }  # fmt: skip
    channels, height, width = dataset.shape
    if family == "mlp":
        return {"inputs": channels * height * width, "classes": classes}
    if family == "fast_convnet":
        _check_halves(height, len(arguments["widths"]))
    if family == "vit":
        _check_side(height, arguments["patch"])
        return {"channels": channels, "side": height, "classes": classes}
    return {"channels": channels, "classes": classes}


def _from_sound(family: str, dataset: Dataset) -> dict[str, Any]:
    assert dataset.sound is not None
    waves, wanted = dataset.sound.features == "wave", family == "wav2vec2"
    if waves != wanted:
        reads, mend = ("raw waves", "wave") if wanted else ("frames of bands", "log_mel")
        raise JobError(
            f"a model of the family '{family}' reads {reads}, and data.features is {dataset.sound.features}",
            mend=f"Set data.features: {mend}.",
        )
    transcribes = dataset.task == "transcribe"
    outputs = dataset.vocabulary if transcribes else len(dataset.labels)
    bands = {} if waves else {"bands": dataset.shape[1]}
    return {**bands, "outputs": outputs, "transcribes": transcribes}


def _check_side(side: int, patch: int) -> None:
    if side % patch:
        fits = [each for each in (side // patch * patch, (side // patch + 1) * patch) if each]
        raise JobError(
            f"images of {side} pixels a side do not divide into patches of {patch}",
            mend=f"Set data.size: {' or '.join(map(str, fits))}.",
        )


def _check_halves(side: int, groups: int) -> None:
    # a window of 2x2 takes a pixel, then each group halves what is left
    least = 2**groups + 1
    if side < least:
        raise JobError(
            f"images of {side} pixels a side leave nothing after {groups} halvings",
            mend=f"Set data.size to {least} or more, or take a resnet.",
        )


def build(plan: ModelPlan, device: str = "cpu", seed: int = 0) -> nn.Module:
    """Build the module of a plan, with the weights its code draws; `models.init.initialise` gives it real ones.

    Torch's random state is left as it was, and two calls give equal weights.

    Args:
        plan: as `resolve` made it.
        device: where the weights live; ``meta`` takes no memory for them, but for an own model whose code looks at
            values while it is built.
        seed: of the drawing.

    Raises:
        JobError: the plan names no family that exists, arguments that its family does not take, or changes of layers
            that it has not.
        BundleError: the code of an own model is not the one that was planned.
    """
    import torch

    from thrifty.models.bert import BERT
    from thrifty.models.bert_original import OriginalBERT
    from thrifty.models.convolution import use_convolution
    from thrifty.models.factored import factor_as_planned
    from thrifty.models.fast_convnet import FastConvNet
    from thrifty.models.folded import fold_as_planned
    from thrifty.models.gpt import GPT
    from thrifty.models.layers import use_attention
    from thrifty.models.llama import Llama
    from thrifty.models.mlp import MLP
    from thrifty.models.ngrams import NGrams
    from thrifty.models.resnet import ResNet
    from thrifty.models.speech import Speech
    from thrifty.models.tabular import TableMLP
    from thrifty.models.units import cut_as_planned
    from thrifty.models.vit import ViT
    from thrifty.models.wav2vec2 import Wav2Vec2

    families: dict[str, Callable[..., nn.Module]] = {
        "resnet": ResNet,
        "fast_convnet": FastConvNet,
        "gpt": GPT,
        "llama": Llama,
        "bert": BERT,
        "vit": ViT,
        "bert_original": OriginalBERT,
        "ngrams": NGrams,
        "mlp": MLP,
        "speech": Speech,
        "wav2vec2": Wav2Vec2,
        "tabular": TableMLP,
        "own": own.make,
        "hf": hf.make,
    }
    if plan.family not in families:
        raise unknown_name("model family", plan.family, families)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            with torch.device("meta" if device == "meta" else "cpu"):
                model = families[plan.family](**plan.arguments)
        except TypeError as error:
            raise JobError(f"model '{plan.name}' cannot be built from {plan.arguments}: {error}") from error
    cut_as_planned(model, plan)
    factor_as_planned(model, plan)
    fold_as_planned(model, plan)
    use_convolution(use_attention(model, plan.attention), plan.convolution)
    return model if device in {"cpu", "meta"} else model.to(device)
