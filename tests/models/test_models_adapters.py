"""Adapters and freezing from outside: what stays stays, what is learned is merged away, and the trace knows of both."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thrifty.cost import Trace, peak_bytes, trace_step
from thrifty.errors import BundleError, JobError
from thrifty.models import build
from thrifty.models.adapters import (
    MARK,
    adapting,
    changing,
    frozen_norms,
    head_of,
    merging,
    restore,
    start,
    trained_parameters,
    usual_targets,
)
from thrifty.models.four_bits import FourBits, pack
from thrifty.models.init import initialise
from thrifty.models.losses import cross_entropy
from thrifty.optim import build as optimizer_of
from thrifty.optim import by_name
from thrifty.spec import AdaptPlan, ModelPlan, OptimPlan

GPT = {"vocabulary": 64, "length": 16, "layers": 3, "width": 32, "heads": 4}
BERT = {**GPT, "classes": 5}
RESNET = {
    "stem": "cifar", "block": "basic", "shortcut": "project", "blocks": [2, 2], "widths": [8, 16], "channels": 3,
    "classes": 5,
}  # fmt: skip
MLP = {"inputs": 48, "widths": [32, 32], "classes": 5}
FAMILIES: dict[str, dict[str, Any]] = {"gpt": GPT, "bert": BERT, "resnet": RESNET, "mlp": MLP}


def made(family: str) -> nn.Module:
    model = build(ModelPlan(name="tiny", family=family, arguments=FAMILIES[family]))
    initialise(model, "default", 0)
    return model


def asked(family: str, rows: int = 6) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    if family in {"gpt", "bert"}:
        x = torch.randint(1, 64, (rows, 16), generator=draw)
        return {"x": x, "y": x.roll(1, 1) if family == "gpt" else torch.randint(5, (rows,), generator=draw)}
    side = 4 if family == "mlp" else 12
    return {"x": torch.randn(rows, 3, side, side, generator=draw), "y": torch.randint(5, (rows,), generator=draw)}


def learn(model: nn.Module, batch: dict[str, Tensor], steps: int = 3) -> None:
    model.train()
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=0.02)
    for _ in range(steps):
        cross_entropy(model, batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()


def answers(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(batch["x"])
    return found


def of_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


FROZEN = [
    ("gpt", ("h.0.*", "wte.weight"), {"wpe.weight", "h.1.ln_1.weight", "ln_f.bias"}),
    ("bert", ("blocks.*",), {"tokens.weight", "fc.weight"}),
    ("mlp", ("hidden.[01].bias",), {"hidden.0.weight", "hidden.1.weight", "fc.bias"}),
    ("resnet", ("*bn*",), {"fc.weight"}),
]


@pytest.mark.parametrize(("family", "patterns", "learn_on"), FROZEN, ids=[row[0] for row in FROZEN])
def test_what_is_frozen_stays_and_the_rest_learns(family: str, patterns: tuple[str, ...], learn_on: set[str]) -> None:
    model, batch = made(family), asked(family)
    names = set(model.state_dict())
    adapting(model, AdaptPlan(freeze=patterns))
    before = of_state(model)
    learn(model, batch)
    still = {name for name, each in model.named_parameters() if not each.requires_grad}
    assert still and not still & learn_on
    assert all(torch.equal(before[name], value) == (name in still) for name, value in model.named_parameters())
    assert set(merging(model).state_dict()) == names


def test_frozen_batch_norms_normalise_as_in_evaluation_and_others_do_not() -> None:
    model, batch = made("resnet"), asked("resnet")
    plain = {name for name, each in model.named_modules() if isinstance(each, nn.BatchNorm2d)}
    adapting(model, AdaptPlan(freeze=("*0.bn1.*",)))
    norms = frozen_norms(model)
    assert 0 < len(norms) < len(plain)
    for each in (model, copy.deepcopy(model)):
        before = of_state(each)
        learn(each, batch, 1)
        moved = {
            name for name, value in each.named_buffers() if "running_mean" in name and (value != before[name]).any()
        }
        assert len(moved) == len(plain) - len(norms) and not any("0.bn1" in name for name in moved)
    merging(model).train()
    assert all(each.training for each in norms)


REFUSED = [
    (
        "bert",
        ("blocs.0.*",),
        r"train.freeze: 'blocs\.0\.\*' matches no parameter of the model\. Did you mean 'blocks\.0",
    ),
    ("bert", ("fc",), r"'fc' matches no parameter .* It has: tokens\.weight, .*…"),
    ("mlp", ("*",), r"leaves no parameter to train: \* match all 6\. Leave out what is to learn"),
]


@pytest.mark.parametrize(("family", "patterns", "said"), REFUSED, ids=[row[1][0] for row in REFUSED])
def test_patterns_that_cannot_be_meant(family: str, patterns: tuple[str, ...], said: str) -> None:
    with pytest.raises(JobError, match=said):
        adapting(made(family), AdaptPlan(freeze=patterns))


def traced(family: str, plan: AdaptPlan, optimizer: str = "adamw", precision: Any = "fp32") -> Trace:
    shapes = {
        key: (tuple(each.shape), "float32" if each.is_floating_point() else "int64")
        for key, each in asked(family).items()
    }
    model = ModelPlan(name="tiny", family=family, arguments=FAMILIES[family])
    return trace_step(
        lambda: adapting(build(model), plan), cross_entropy, shapes, precision=precision, optimizer=by_name(optimizer)
    )


@pytest.mark.slow
def test_a_frozen_model_is_foreseen_to_take_less() -> None:
    whole, frozen = traced("gpt", AdaptPlan()), traced("gpt", AdaptPlan(freeze=("w?e.*", "h.0.*", "h.1.*")))
    share = trained_parameters(adapting(made("gpt"), AdaptPlan(freeze=("w?e.*", "h.0.*", "h.1.*")))) / whole.parameters
    assert frozen.parameters == whole.parameters
    assert frozen.gradient_bytes == share * whole.gradient_bytes
    assert frozen.optimizer_bytes == pytest.approx(share * whole.optimizer_bytes, rel=0.01)
    # of three blocks two have no backward pass, nor has the embedding's own part
    assert frozen.backward_flops < 0.6 * whole.backward_flops
    assert frozen.activation_bytes < whole.activation_bytes
    assert frozen.forward_flops == whole.forward_flops
    assert peak_bytes(frozen).value < peak_bytes(whole).value


def test_states_are_kept_of_what_learns_alone() -> None:
    model = adapting(made("bert"), AdaptPlan(freeze=("blocks.*", "tokens.*", "positions.*")))
    plan = OptimPlan(
        optimizer="adamw", schedule="fixed", learning_rate=0.1, momentum=0, betas=(0.9, 0.999), eps=1e-8,
        weight_decay=0.1, warmup_steps=0, total_steps=1, steps_per_epoch=1, decay=1, plateau_patience=0, clip=1,
    )  # fmt: skip
    optimizer = optimizer_of(model, plan)
    cross_entropy(model, asked("bert"))[0].backward()
    optimizer.step()
    assert len(optimizer.state) == len([each for each in model.parameters() if each.requires_grad]) < 10


def test_only_what_changes_is_kept_and_a_changed_base_is_refused() -> None:
    plan, batch = AdaptPlan(freeze=("blocks.*",)), asked("bert")
    model = start(adapting(made("bert"), plan), 0)
    learn(model, batch)
    kept = of_state(model)
    kept = {name: kept[name] for name in changing(model)}
    assert MARK in kept and not any(name.startswith("blocks.") for name in kept)
    model.tokens.weight.requires_grad_(False)  # type: ignore[union-attr]  # as who trains the rows used alone does
    assert "tokens.weight" in changing(model)
    again = start(adapting(made("bert"), plan), 0)
    restore(again, kept)
    assert torch.equal(answers(again, batch), answers(model, batch))
    other = made("bert")
    with torch.no_grad():
        other.blocks[1].mlp.up.weight[0, 0] += 1  # type: ignore[union-attr, index]
    with pytest.raises(BundleError, match="frozen weights of this model are not those that the checkpoint"):
        restore(start(adapting(other, plan), 0), kept)
    assert changing(made("bert")).keys() == made("bert").state_dict().keys()


def test_four_bits_hold_what_they_can_and_give_gradients_to_their_input() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(100, 30)
    weight = layer.weight.detach().clone()
    small = FourBits(layer)
    held = sum(each.numel() * each.element_size() for each in (small.packed, small.sizes))
    assert held < 4.6 / 32 * weight.numel() * 4 + 64
    # of a normal's sixteen levels the widest gap is 0.3 of the largest weight in its block
    assert (small.weight - weight).abs().max() <= 0.16 * weight.abs().max()
    x = torch.randn(7, 100, requires_grad=True)
    out = small(x)
    torch.testing.assert_close(out, nn.functional.linear(x, small.weight, layer.bias))
    out.square().sum().backward()
    expected = (2 * out.detach()) @ small.weight
    torch.testing.assert_close(x.grad, expected)
    again, sizes = pack(small.weight)
    assert torch.equal(again, small.packed) and torch.equal(sizes, small.sizes), "levels are packed without loss"
    assert torch.equal(small.plain().weight, small.weight)


def usual(family: str, kind: str, **changes: Any) -> AdaptPlan:
    model = made(family)
    whole = head_of(model, 5) if family != "gpt" else ()
    values: dict[str, Any] = {"kind": kind, "rank": 4, "alpha": 8.0, "targets": usual_targets(model), "whole": whole}
    return AdaptPlan(**{**values, **changes})


TARGETS = {
    "gpt": ({"h.*.attn.c_attn", "h.*.attn.c_proj", "h.*.mlp.c_fc", "h.*.mlp.c_proj"}, ()),
    "bert": (
        {"blocks.*.attention.qkv", "blocks.*.attention.proj", "blocks.*.mlp.up", "blocks.*.mlp.proj"}, ("fc.*",)
    ),
    "mlp": ({"hidden.*", "fc"}, ("fc.*",)),
}  # fmt: skip


@pytest.mark.parametrize("family", TARGETS)
def test_the_layers_that_get_an_adapter_by_rule(family: str) -> None:
    targets, head = TARGETS[family]
    assert set(usual_targets(made(family))) == targets
    assert head_of(made(family), 5) == (head or head_of(made(family), 5))


class Encoder(nn.Module):
    """Torch's own encoder, which reads the weights of its layers in one fused call, and a head tied to a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.up = nn.Linear(8, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.table.weight


def test_layers_whose_adapter_would_not_be_heard_get_none() -> None:
    assert usual_targets(Encoder()) == ("up",)
    for target in ("encoder.linear1", "head"):
        with pytest.raises(JobError, match=rf"train.adapter.targets: '{target}' matches no layer that an adapter fits"):
            adapting(Encoder(), AdaptPlan(kind="lora", rank=2, alpha=2, targets=(target,)))
    with pytest.raises(JobError, match="name only layers that are frozen or trained whole"):
        adapting(Encoder(), AdaptPlan(kind="lora", rank=2, alpha=2, targets=("up",), freeze=("up.*",)))


ROWS = [(family, kind, base) for family in FAMILIES for kind in ("lora", "dora") for base in ("own", "4bit")]


@pytest.mark.slow  # loads transformers, which peft needs
@pytest.mark.parametrize(("family", "kind", "base"), ROWS)
def test_adapters_learn_and_are_merged_away(family: str, kind: str, base: str) -> None:
    pytest.importorskip("peft")
    model, batch = made(family), asked(family)
    plain = copy.deepcopy(model)
    state = torch.get_rng_state()
    start(adapting(model, usual(family, kind, base=base)), 3)
    assert torch.equal(torch.get_rng_state(), state)
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert all("lora_" in name or name.startswith("fc.") for name in trained)
    assert family == "gpt" or "fc.weight" in trained, "the head is trained itself"
    assert trained_parameters(model) < 0.5 * sum(each.numel() for each in plain.parameters())
    close = {"rtol": 1e-5, "atol": 1e-5} if base == "own" else {"rtol": 0.5, "atol": 0.5}
    torch.testing.assert_close(answers(model, batch), answers(plain, batch), **close)
    before = of_state(model)
    learn(model, batch, 8)
    assert all(torch.equal(value, before[name]) == (name not in trained) for name, value in model.named_parameters())
    adapted = answers(model, batch)
    assert not torch.allclose(adapted, answers(plain, batch), atol=1e-2)
    merging(model)
    assert [*model.state_dict()] == [*plain.state_dict()]
    assert all(
        a.shape == b.shape for a, b in zip(model.state_dict().values(), plain.state_dict().values(), strict=True)
    )
    torch.testing.assert_close(answers(model, batch), adapted, rtol=1e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kind", "base"), ROWS)
def test_a_step_with_adapters_is_traced_as_it_is(family: str, kind: str, base: str) -> None:
    pytest.importorskip("peft")
    plan = usual(family, kind, base=base)
    whole = traced(family, AdaptPlan())
    for precision in ("fp32", "bf16"):
        trace = traced(family, plan, precision=precision)
        model = adapting(made(family), plan)
        assert trace.gradient_bytes == 4 * trained_parameters(model)
        assert trace.parameters == sum(each.numel() for each in model.parameters())
        assert trace.optimizer_bytes < 0.6 * whole.optimizer_bytes
    if base == "4bit" and family in {"gpt", "bert"}:
        assert trace.parameter_bytes < 0.7 * whole.parameter_bytes


@pytest.mark.slow
def test_the_first_values_follow_the_seed_alone() -> None:
    pytest.importorskip("peft")
    models = [start(adapting(made("gpt"), usual("gpt", "dora")), seed) for seed in (1, 1, 2)]
    first, same, other = (model.state_dict() for model in models)
    drawn = [name for name in first if "lora_A" in name]
    assert drawn and all(torch.equal(first[name], same[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in drawn)
    length = first["h.0.attn.c_attn.lora_magnitude_vector.default.weight"]
    torch.testing.assert_close(length, made("gpt").state_dict()["h.0.attn.c_attn.weight"].norm(dim=1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("base", ["own", "4bit"])
def test_models_of_transformers_keep_their_turned_layers(kind: str, base: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from test_models_hf import save
    from test_models_table import text

    from thrifty.models import resolve

    plan = resolve(f"hf:{save(tmp_path, 'gpt2', weights=True)}", text())
    make: Callable[[], nn.Module] = lambda: build(plan)  # noqa: E731
    model = make()
    initialise(model, "own", 0)
    plain, batch = copy.deepcopy(model).eval(), asked("gpt")
    targets = usual_targets(model)
    assert targets[:2] == ("transformer.h.*.attn.c_attn", "transformer.h.*.attn.c_proj")
    start(adapting(model, AdaptPlan(kind=kind, rank=2, alpha=4, targets=targets, base=base)), 0)  # type: ignore[arg-type]
    assert "model.lm_head.weight" not in {name for name, each in model.named_parameters() if each.requires_grad}
    learn(model, batch)
    adapted = answers(model, batch)
    assert [*merging(model).state_dict()] == [*plain.state_dict()]
    torch.testing.assert_close(answers(model, batch), adapted, rtol=1e-4, atol=2e-5)
    assert not torch.allclose(adapted, answers(plain, batch), atol=1e-3)
