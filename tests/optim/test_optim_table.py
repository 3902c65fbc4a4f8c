"""Every optimizer follows its paper's rule, trains, resumes bit by bit, can be traced, and holds what it should."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from references import RULES, State, Valley, plan, valley
from torch import Tensor, nn

from thrifty.cost import trace_step
from thrifty.cost.heap import _Allocating, _dry_step, _mallinfo
from thrifty.errors import JobError
from thrifty.models.gpt import GPT
from thrifty.models.resnet import ResNet
from thrifty.optim import OPTIMIZERS, build, by_name, evaluating
from thrifty.optim.eight_bit import AdamW8bit, levels
from thrifty.optim.groups import RULES as KINDS
from thrifty.optim.groups import sort_parameters, tell_rules
from thrifty.optim.muon import Muon, orthogonal
from thrifty.optim.soap import LONGEST_SIDE

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
# at which the small network learns in 150 steps
RATES = {"adagrad": 0.1, "lion": 0.005, "adafactor": 0.1, "lamb": 0.02, "rmsprop": 0.01, "schedule_free": 0.05}
ADAPTIVE = {"adam", "adamw", "nadam", "muon", "soap", "adamw_8bit"}


class Net(nn.Module):
    """A small network with each kind of parameter: convolution, norm, bias, embedding, matrix, head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 8)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.inner = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 7)

    def forward(self) -> Tensor:
        x_BT = torch.arange(21).view(3, 7) % 7
        hidden = self.conv(self.embedding(x_BT).transpose(1, 2)).transpose(1, 2)
        logits = self.fc(self.inner(self.norm(hidden)).relu())
        return nn.functional.cross_entropy(logits.flatten(0, 1), (x_BT.flatten() * 3 + 1) % 7)


def steps(model: Valley | Net, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        loss = model()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def test_every_optimizer_has_its_reference() -> None:
    assert RULES.keys() == OPTIMIZERS.keys()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_follows_its_rule(name: str) -> None:
    own, model = plan(name, learning_rate=0.002), Valley()
    optimizer = build(model, own)
    parts = {"w": own, "v": own.model_copy(update={"weight_decay": 0.0})}
    at = {part: getattr(model, part).detach().clone() for part in parts}
    states: dict[str, State] = {part: {} for part in parts}
    for t in range(1, 51):
        for part, decaying in parts.items():
            point = at[part].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(valley(point), point)
            at[part] = RULES[name](at[part], gradient, states[part], decaying, t)
        steps(model, optimizer, 1)
        for part, expected in at.items():
            torch.testing.assert_close(getattr(model, part).detach(), expected, rtol=1e-9, atol=1e-11)
    assert all((at[part] - getattr(Valley(), part)).abs().max() > 0.01 for part in parts)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_trains(name: str) -> None:
    model = Net()
    rate = RATES.get(name, 0.02 if name in ADAPTIVE else 0.2)
    optimizer = build(model, plan(name, learning_rate=rate, weight_decay=1e-4))
    first = steps(model, optimizer, 150)[0]
    with evaluating(optimizer):
        assert model().item() < 0.2 * first


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_resumes_bit_by_bit(name: str) -> None:
    def twelve(model: Net, optimizer: torch.optim.Optimizer) -> None:
        steps(model, optimizer, 9)
        with evaluating(optimizer):
            model()
        steps(model, optimizer, 3)

    straight, broken, resumed = Net(), Net(), Net()
    optimizer = build(straight, plan(name))
    twelve(straight, optimizer)
    twelve(straight, optimizer)
    optimizer = build(broken, plan(name))
    twelve(broken, optimizer)
    file = io.BytesIO()
    torch.save({"model": broken.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    resumed.load_state_dict(kept["model"])
    optimizer = build(resumed, plan(name))
    optimizer.load_state_dict(kept["optimizer"])
    twelve(resumed, optimizer)
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_matrices_decay_and_nothing_else(name: str) -> None:
    model = Net()
    optimizer = build(model, plan(name, learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, parameter in model.named_parameters():
        assert bool((parameter < 1).all()) == (parameter.dim() >= 2), key
        assert bool((parameter == 1).all()) == (parameter.dim() < 2), key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rate_in_the_groups_is_the_rate_of_the_step(name: str) -> None:
    """The loop writes it there before each step."""
    model = Valley()
    optimizer, before = build(model, plan(name)), model.w.detach().clone()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    steps(model, optimizer, 3)
    assert torch.equal(model.w, before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_tied_weights_are_stepped_once_and_frozen_ones_never(name: str) -> None:
    torch.manual_seed(0)
    model = GPT(vocabulary=16, length=8, layers=2, width=8, heads=2)
    model.h[0].attn.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = build(model, plan(name))
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    for _ in range(2):
        model(torch.arange(16).view(2, 8)).logsumexp(-1).sum().backward()
        optimizer.step()
    for key, value in model.named_parameters():
        assert torch.equal(value, before[key]) != value.requires_grad, key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_without_a_gradient_is_skipped(name: str) -> None:
    model = Net()
    optimizer = build(model, plan(name))
    skipped = {"conv.weight", "inner.weight", "norm.bias", "embedding.weight"}
    for count in range(3):
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        optimizer.zero_grad()
        model().backward()
        for key, value in model.named_parameters():
            if key in skipped and count == 1:
                value.grad = None
        optimizer.step()
        changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
        expected = set(before) - skipped if count == 1 else set(before)
        # a basis is made of the first gradient, which nothing but the decay follows
        assert changed == expected or (name == "soap" and count == 0)


def expected_bytes(name: str, model: nn.Module) -> float:
    """What docs/optimizers.md says that states take."""

    def of(shape: torch.Size) -> float:
        count, rows = shape.numel(), shape[0]
        columns, two = count // rows, 8 * count
        if name == "adafactor":
            return 4 * count if len(shape) < 2 else 4 * count // (shape[-1] * shape[-2]) * (shape[-1] + shape[-2])
        if name == "soap":
            return two + sum(8 * side**2 for side in (rows, columns) if side <= LONGEST_SIDE)
        if name == "adamw_8bit":
            return two if count < 4096 or count % 256 else 2 * count + 2 * 4 * count // 256
        one = {"momentum", "nesterov", "rmsprop", "adagrad", "lion", "muon"}
        return 0 if name in {"gd", "sgd"} else 4 * count if name in one else two

    return sum(
        of(each.shape) if KINDS[kind].hidden or name not in {"muon", "soap"} else 8 * each.numel()
        for kind, found in sort_parameters(model).by_kind.items()
        for each in found
    )


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 96), nn.LayerNorm(96), nn.Linear(96, 64), nn.Linear(64, 10))


def summed(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Any]:
    return model(batch["x"]).float().pow(2).sum(), 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_its_states_take_what_is_said(name: str) -> None:
    model = wide()
    optimizer = build(model, plan(name))
    summed(model, {"x": torch.ones(4, 64)})[0].backward()
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    assert sum(value.nbytes for value in states if value.numel() > 1) == expected_bytes(name, model)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_its_step_can_be_traced(name: str, device: Any) -> None:
    shapes = {"x": ((4, 64), "float32")}
    found = trace_step(wide, summed, shapes, precision="fp32", optimizer=by_name(name), device=device)
    counts = 8 * found.parameter_tensors
    assert 0 <= found.optimizer_bytes - expected_bytes(name, wide()) <= counts
    assert any(op.phase == "optimizer" for op in found.ops)
    assert not any("eigh" in op.name for op in found.ops), "done once, when states are made"


@pytest.mark.skipif(_mallinfo() is None, reason="this C library does not tell what its heap holds")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_its_step_runs_dry(name: str) -> None:
    shapes = {"x": ((4, 1024), "float32")}
    with _Allocating() as heap:
        heap.building = True
        model = nn.Sequential(nn.Linear(1024, 1024), nn.Linear(1024, 1024), nn.Linear(1024, 8))
        heap.building = False
        stepper = by_name(name)(model)
        for _ in range(3):
            _dry_step(heap, model, summed, shapes, stepper, "fp32", 1, torch.contiguous_format)
    weights = sum(each.nbytes for each in model.parameters())
    assert heap.peak_bytes >= 2 * weights + expected_bytes(name, model)


MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "gpt": (
        lambda: GPT(vocabulary=16, length=8, layers=1, width=8, heads=2),
        {"vector": 10, "embedding": 2, "matrix": 4},
    ),
    "net": (Net, {"vector": 5, "embedding": 1, "convolution": 1, "matrix": 1, "head": 1}),
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), {"vector": 2, "matrix": 1, "head": 1}),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.Linear(3, 2)),
        {"vector": 5, "input": 1, "convolution": 1, "head": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_each_parameter_has_the_kind_of_its_module(name: str) -> None:
    make, expected = MODELS[name]
    model = make()
    found = sort_parameters(model).by_kind
    assert {kind: len(each) for kind, each in found.items() if each} == expected
    assert sum(map(len, found.values())) == len(list(model.parameters()))


def test_the_head_tied_to_an_embedding_is_one() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False))
    model[2].weight = model[0].weight
    found = sort_parameters(model).by_kind
    assert [id(each) for each in found["embedding"]] == [id(model[0].weight)]
    assert found["head"] == [] and len(found["matrix"]) == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rules_are_told(name: str) -> None:
    value, reason = tell_rules(name, 0.1)
    assert all(kind in value for kind in KINDS) and "vector: norms and biases" in reason
    assert ("adamw: vector" in value) == (name in {"muon", "soap"})
    assert tell_rules("sgd", 0.0) == ("no decay", "all kinds of parameters are treated alike")


def test_weights_without_memory_have_an_optimizer_too() -> None:
    with torch.device("meta"):
        assert build(nn.Linear(3, 3), plan("adamw"))


def test_an_unknown_name() -> None:
    with pytest.raises(JobError, match=r"unknown optimizer 'adamv'\. Did you mean 'adam"):
        build(Net(), plan("adamv"))
    with pytest.raises(JobError, match=r"unknown optimizer 'moun'\. Did you mean 'muon'\?"):
        by_name("moun")


SHAPES = ((6, 4), (4, 6), (5, 5), (5, 5))


def follow(own: Any, theirs: Any, shapes: Any, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    ours, others = ([nn.Parameter(each.clone()) for each in start] for _ in range(2))
    optimizers = own(ours), theirs(others)
    for _ in range(12):
        for one, other in zip(ours, others, strict=True):
            one.grad = torch.randn(one.shape, generator=generator, dtype=dtype)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    return ours, others


def test_adafactor_takes_the_steps_of_torchs() -> None:
    from thrifty.optim.adafactor import Adafactor

    ours, others = follow(
        lambda params: Adafactor(params, lr=0.05, weight_decay=0.1),
        lambda params: torch.optim.Adafactor(params, lr=0.05, weight_decay=0.1),
        (*SHAPES, (7,), (3, 2, 4, 5)),
        torch.float64,
    )
    for one, other in zip(ours, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_muon_takes_the_steps_of_torchs() -> None:
    ours, others = follow(
        lambda params: Muon(params, lr=0.05, weight_decay=0.1),
        lambda params: torch.optim.Muon(params, lr=0.05, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        SHAPES,
        torch.float32,
    )
    for one, other in zip(ours, others, strict=True):
        # both iterate in bf16, in which they round differently
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 20, 5), (1, 5, 20)])
def test_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    x_KMN = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    before, after = (torch.linalg.svdvals(each.float()) for each in (x_KMN, orthogonal(x_KMN)))
    turned = after[before > 0.05 * before.amax()]
    assert bool((turned > 0.6).all()) and bool((turned < 1.3).all())


def test_a_convolution_is_its_matrix_in_any_memory_order() -> None:
    flat = nn.Parameter(torch.randn(4, 18, generator=torch.Generator().manual_seed(0)))
    deep = nn.Parameter(flat.detach().clone().view(4, 2, 3, 3).contiguous(memory_format=torch.channels_last))
    flat.grad = torch.randn(4, 18, generator=torch.Generator().manual_seed(1))
    deep.grad = flat.grad.clone().view(4, 2, 3, 3).contiguous(memory_format=torch.channels_last)
    for each in (flat, deep):
        Muon([each], lr=0.1).step()
    assert torch.equal(flat, deep.reshape(4, 18))


def test_the_average_of_schedule_free_is_measured_and_the_rest_is_trained() -> None:
    own, model = plan("schedule_free", learning_rate=0.01), Valley()
    optimizer = build(model, own)
    steps(model, optimizer, 30)
    training, state = model.w.detach().clone(), optimizer.state[model.w]
    with evaluating(optimizer):
        average = model.w.detach().clone()
        with pytest.raises(AssertionError, match="train"):
            optimizer.step()
    torch.testing.assert_close(model.w.detach(), training, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(0.1 * state["fast"] + 0.9 * average, training, rtol=1e-12, atol=1e-12)
    assert not torch.equal(average, training)


def test_other_optimizers_keep_their_weights() -> None:
    model = Valley()
    optimizer, before = build(model, plan("adamw")), model.w.detach().clone()
    with evaluating(optimizer):
        assert torch.equal(model.w, before)


def test_a_fault_while_measuring_brings_the_weights_back() -> None:
    model = Valley()
    optimizer = build(model, plan("schedule_free"))
    steps(model, optimizer, 3)
    with pytest.raises(RuntimeError, match="measuring"), evaluating(optimizer):
        raise RuntimeError("measuring")
    optimizer.step()


def test_levels_of_eight_bits_are_dense_near_zero_and_reach_one() -> None:
    for signed, low in ((True, -1.0), (False, 0.0)):
        found = levels(signed)
        assert len(found) == 256 and found == sorted(set(found)) and 0.0 in found
        assert (found[0] > low) == signed and found[-1] == 1.0


def test_eight_bits_stay_near_adamw() -> None:
    def trained(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Linear(64, 64)
        optimizer = build(model, plan(name, learning_rate=1e-3, weight_decay=0.01))
        for step in range(30):
            x = torch.randn(32, 64, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            (model(x) - x.flip(1)).pow(2).mean().backward()
            optimizer.step()
        return model, optimizer

    (own, optimizer), (exact, _) = trained("adamw_8bit"), trained("adamw")
    torch.manual_seed(0)
    start = nn.Linear(64, 64).weight
    moved = (exact.weight - start).norm()
    assert (own.weight - exact.weight).norm() < 0.1 * moved
    assert optimizer.state[own.weight]["first_codes"].dtype == torch.uint8
    # too small to be worth it
    assert optimizer.state[own.bias]["first"].dtype == torch.float32


def test_eight_bits_follow_their_rule_block_by_block() -> None:
    """Dettmers et al. 2022, sections 1.2 to 2.1, in float64: read, update, write as the nearest level."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(64, 64, generator=generator)
    parameter = nn.Parameter(start.clone())
    optimizer = AdamW8bit([parameter], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    w, codes = start.double(), {}
    tables = {name: torch.tensor(levels(name == "m"), dtype=torch.float64) for name in "ms"}
    for t in range(1, 21):
        g = torch.randn(64, 64, generator=generator)
        parameter.grad = g.clone()
        optimizer.step()
        blocks = g.double().view(16, 256)
        for name, keep, fresh in (("m", 0.9, blocks), ("s", 0.99, blocks**2)):
            read = tables[name][codes[name][0]] * codes[name][1] if codes.get(name) else torch.zeros_like(blocks)
            moment = keep * read + (1 - keep) * fresh
            scale = moment.abs().amax(dim=1, keepdim=True)
            nearest = ((moment / scale)[..., None] - tables[name]).abs().argmin(dim=-1)
            codes[name] = (nearest, scale, moment)
        update = codes["m"][2] / (1 - 0.9**t) / ((codes["s"][2] / (1 - 0.99**t)).sqrt() + 1e-8)
        w = w * (1 - 0.01 * 0.1) - 0.01 * update.view(64, 64)
        # where a moment lies between two levels fp32 may take the other one
        off = (parameter.detach().double() - w).abs() > 1e-4
        assert off.double().mean() < 0.002, t


def test_codes_of_eight_bits_survive_a_checkpoint() -> None:
    parameter = nn.Parameter(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
    parameter.grad = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    first, second = AdamW8bit([parameter], lr=0.01), AdamW8bit([parameter], lr=0.01)
    first.step()
    second.load_state_dict(first.state_dict())
    one, other = first.state[parameter], second.state[parameter]
    assert one.keys() == other.keys()
    for key in one.keys() - {"step"}:
        assert one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]), key


def test_soap_leaves_a_long_side_its_own_basis() -> None:
    parameter = nn.Parameter(torch.randn(4, LONGEST_SIDE + 1, generator=torch.Generator().manual_seed(0)))
    model = nn.Module()
    model.register_parameter("w", parameter)
    optimizer = build(model, plan("soap"))
    before = parameter.detach().clone()
    for step in range(12):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
        optimizer.step()
    assert {"left", "left_basis"} <= optimizer.state[parameter].keys()
    assert "right" not in optimizer.state[parameter]
    assert bool(parameter.isfinite().all()) and not torch.equal(parameter, before)


def test_every_optimizer_steps_a_residual_network_in_rows_of_channels() -> None:
    for name in OPTIMIZERS:
        torch.manual_seed(0)
        model = ResNet(
            stem="cifar", block="basic", shortcut="pad", blocks=(1, 1, 1), widths=(4, 8, 16), channels=1, classes=3
        ).to(memory_format=torch.channels_last)
        optimizer = build(model, plan(name, learning_rate=1e-3))
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.randn(4, 1, 8, 8).contiguous(memory_format=torch.channels_last)).logsumexp(1).sum().backward()
            optimizer.step()
        assert all(bool(each.isfinite().all()) for each in model.parameters()), name
        assert math.isfinite(sum(float(each.detach().sum()) for each in model.parameters()))
