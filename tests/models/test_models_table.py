"""Names become plans and plans become modules of the published sizes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from thrifty.errors import JobError
from thrifty.models import MODELS, build, dropping, resolve
from thrifty.spec import Cleaning, Dataset, ModelPlan, Sound, Table
from thrifty.spec.table import Column

CLEANING = Cleaning(seen=0, kept=0, rejected={}, duplicates=0, across_splits=0)


def images(channels: int = 3, side: int = 32, classes: int = 10) -> Dataset:
    return Dataset(
        kind="image",
        key="k",
        counts={"train": 8},
        labels=tuple(f"label {n}" for n in range(classes)),
        label_counts={},
        shape=(channels, side, side),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        crop="none",
        vocabulary=0,
        tokens={},
        text_bytes={},
        source_bytes=0,
        stored_bytes=0,
        cleaning=CLEANING,
    )


def text(vocabulary: int = 64, length: int = 16) -> Dataset:
    changes = {"kind": "language", "labels": (), "shape": (length,), "mean": (), "std": (), "vocabulary": vocabulary}
    return images().model_copy(update=changes)


def sentences(vocabulary: int = 64, length: int = 16, classes: int = 2) -> Dataset:
    labels = tuple(f"label {n}" for n in range(classes))
    return text(vocabulary, length).model_copy(update={"kind": "text", "labels": labels})


def recordings(frames: int = 64, bands: int = 40, classes: int = 10) -> Dataset:
    changes = {"kind": "audio", "shape": (frames, bands), "mean": (0.0,) * bands, "std": (1.0,) * bands}
    return images(classes=classes).model_copy(update={**changes, "sound": Sound(rate=8000, bands=bands)})


def waves(classes: int = 10) -> Dataset:
    more = {"shape": (64, 320), "mean": (), "std": (), "sound": Sound(rate=16_000, features="wave")}
    return recordings(classes=classes).model_copy(update=more)


def rows() -> Dataset:
    table = Table(columns=(Column(name="a", kind="number", edges=(0.0, 1.0), missing=True),), target="b")
    shape = (table.numbers + table.codes,)
    more = {"kind": "table", "shape": shape, "mean": (), "std": (), "vocabulary": table.vocabulary, "table": table}
    return images().model_copy(update=more)


def data_for(name: str) -> Dataset:
    made = {"speech": recordings, "tabular": rows, "gpt": text, "llama": text, "wav2vec2": waves}
    made |= dict.fromkeys(("bert", "bert_original", "ngrams"), sentences)
    return made.get(MODELS[name].family, images)()


# He et al. 2015, table 6, gives the CIFAR sizes as 0.27, 0.46, 0.66, 0.85 and 1.7 M; ImageNet's are torchvision's at
# 1000 classes; ViT's timm's; GPT-2's are those of its released weights.
PUBLISHED = {
    "resnet20": (images(), 269_722),
    "resnet32": (images(), 464_154),
    "resnet44": (images(), 658_586),
    "resnet56": (images(), 853_018),
    "resnet110": (images(), 1_727_962),
    "resnet18": (images(classes=1000), 11_689_512),
    "resnet34": (images(classes=1000), 21_797_672),
    "resnet50": (images(classes=1000), 25_557_032),
    "resnet101": (images(classes=1000), 44_549_160),
    "resnet152": (images(classes=1000), 60_192_808),
    "vit-ti16": (images(side=224, classes=1000), 5_717_416),
    "vit-s16": (images(side=224, classes=1000), 22_050_664),
    "vit-b16": (images(side=224, classes=1000), 86_567_656),
    "gpt2": (text(50_257, 1024), 124_439_808),
    "gpt2-medium": (text(50_257, 1024), 354_823_168),
    "gpt2-large": (text(50_257, 1024), 774_030_080),
    "gpt2-xl": (text(50_257, 1024), 1_557_611_200),
    # Llama's are those of its released weights
    "llama-7b": (text(32_000, 2048), 6_738_415_616),
    "llama2-70b": (text(32_000, 4096), 68_976_648_192),
    "llama3-8b": (text(128_256, 8192), 8_030_261_248),
    "llama3-405b": (text(128_256, 8192), 405_853_388_800),
    "llama3.2-1b": (text(128_256, 8192), 1_235_814_400),
    # 22.6 M: 30,522 x 384 of embeddings, six blocks of 1.77 M, 512 positions
    "bert-small": (sentences(30_522, 512), 22_566_146),
    # those of the released weights, with a head of two classes
    "bert-base-original": (sentences(30_522, 512), 109_483_778),
    "bert-large-original": (sentences(30_522, 512), 335_143_938),
    # transformers' own, with a head of ten classes
    "wav2vec2-base": (waves(), 94_570_378),
    "wav2vec2-large": (waves(), 315_702_666),
    "gpt3-125m": (text(50_257, 2048), 125_226_240),
    "gpt3-175b": (text(50_257, 2048), 174_604_259_328),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.slow
def test_published_sizes(name: str) -> None:
    dataset, parameters = PUBLISHED[name]
    model = build(resolve(name, dataset), device="meta")
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_a_plan_survives_its_file(name: str) -> None:
    plan = resolve(name, data_for(name))
    assert ModelPlan.model_validate_json(plan.model_dump_json()) == plan
    assert None not in plan.arguments.values()
    build(plan, device="meta")


def test_the_data_gives_what_the_name_leaves_open() -> None:
    assert resolve("resnet8", images(1, 16, 7)).arguments["channels"] == 1
    assert resolve("resnet8", images(1, 16, 7)).arguments["classes"] == 7
    assert resolve("mlp-small", images(3, 8, 7)).arguments["inputs"] == 192
    arguments = resolve("gpt-nano", text(300, 24)).arguments
    assert (arguments["vocabulary"], arguments["length"]) == (300, 24)


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(JobError, match=r"unknown model 'resnt18'\. Did you mean 'resnet18'\? See: thrifty models\."):
        resolve("resnt18", images())


@pytest.mark.parametrize(("name", "dataset"), [("gpt-nano", images()), ("resnet8", text()), ("mlp-small", text())])
def test_a_family_that_does_not_fit_the_data(name: str, dataset: Dataset) -> None:
    with pytest.raises(JobError, match=f"model '{name}' learns from data of kind") as caught:
        resolve(name, dataset)
    offered = caught.value.mend.removeprefix("For it there are: ").rstrip(".").split(", ")
    assert offered and all(resolve(other, dataset).name == other for other in offered)


def test_hidden_words_are_told_by_some_families() -> None:
    masked = sentences().model_copy(update={"task": "mask", "labels": (), "marks": (4, 0, 1, 2, 3)})
    model = build(resolve("bert-tiny", masked))
    assert model(torch.ones(2, 5, dtype=torch.int64)).shape == (2, 5, 64)
    with pytest.raises(JobError, match=r"'ngrams' tells no hidden words\. Those that do: bert-base, "):
        resolve(next(name for name, each in MODELS.items() if each.family == "ngrams"), masked)


def test_a_plan_of_no_family_or_wrong_arguments() -> None:
    with pytest.raises(JobError, match=r"unknown model family 'resnets'\. Did you mean 'resnet'"):
        build(ModelPlan(name="x", family="resnets", arguments={}))
    with pytest.raises(JobError, match=r"model 'x' cannot be built from .*depth"):
        build(ModelPlan(name="x", family="mlp", arguments={"depth": 3}))


def test_building_leaves_the_random_state_and_repeats() -> None:
    plan = resolve("resnet8", images())
    state = torch.get_rng_state()
    first, second = build(plan), build(plan)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.get_parameter("conv1.weight"), second.get_parameter("conv1.weight"))


@pytest.mark.slow
def test_the_table_loads_no_torch() -> None:
    code = "import sys, thrifty.models, thrifty.optim; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("name", "dataset"), [("gpt-nano", text()), ("bert-tiny", sentences())])
def test_dropout_is_of_training_alone_and_has_no_weights(name: str, dataset: Dataset) -> None:
    plan = resolve(name, dataset)
    plain, dropped = build(plan), build(dropping(plan, 0.5))
    dropped.load_state_dict(plain.state_dict())
    tokens = torch.randint(1, dataset.vocabulary, (2, 8))
    assert torch.equal(dropped.eval()(tokens), plain.eval()(tokens))
    first, second = (dropped.train()(tokens) for _ in range(2))
    assert not torch.equal(first, second)


def test_a_model_that_takes_no_dropout() -> None:
    with pytest.raises(
        JobError, match=r"train.dropout is 0.1, and model 'resnet8' takes no rate of dropout. .*gpt-nano"
    ):
        dropping(resolve("resnet8", images()), 0.1)


def test_images_that_convolutions_would_halve_to_nothing_are_refused() -> None:
    with pytest.raises(
        JobError, match=r"images of 8 pixels a side leave nothing after 3 halvings\. Set data\.size to 9"
    ):
        resolve("convnet-fast", images(side=8))
    assert build(resolve("convnet-fast", images(side=9)), "meta").fc.out_features == 10
