"""Compilation from outside: the same gradients, one compilation for all blocks, and nothing left when taken away."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from thrifty.errors import JobError
from thrifty.models import build, losses
from thrifty.models.chunked_loss import pull_in_place, pull_of
from thrifty.models.compiling import compile_news, compile_seconds, compiled_parts, compiling, lacking
from thrifty.models.losses import cross_entropy
from thrifty.models.recompute import recomputing, repeated_blocks
from thrifty.spec import ModelPlan
from thrifty.spec.events import Warned

# torch hides the first, which its own compiler causes, but not where warnings are errors; it imports what the second is
# about
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
]

FAMILIES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "gpt": ("blocks", {"vocabulary": 64, "length": 16, "layers": 3, "width": 32, "heads": 4}, (4, 16)),
    "bert": (
        "blocks", {"vocabulary": 64, "length": 16, "layers": 3, "width": 32, "heads": 4, "classes": 5}, (4, 16),
    ),
    "resnet": (
        "whole",
        {"stem": "cifar", "block": "basic", "shortcut": "project", "blocks": [2, 2], "widths": [8, 16],
         "channels": 3, "classes": 5},
        (4, 3, 12, 12),
    ),
}  # fmt: skip
Graphs = Callable[[], int]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graphs]:
    """Start without compiled code; return what counts the graphs that were compiled. All losses go by chunks."""
    monkeypatch.setattr(losses, "LARGE_LOGITS_BYTES", 0)
    torch._dynamo.reset()
    counters.clear()
    yield lambda: int(counters["stats"]["unique_graphs"])
    torch._dynamo.reset()


def made(family: str) -> nn.Module:
    torch.manual_seed(1)
    return build(ModelPlan(name="tiny", family=family, arguments=FAMILIES[family][1])).double()


def batch_of(family: str, samples: int = 4, length: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if family == "resnet":
        x = torch.rand((samples, *FAMILIES[family][2][1:]), dtype=torch.float64, generator=generator)
    else:
        x = torch.randint(1, 64, (samples, length), generator=generator)
    y = torch.randint(5, (samples, length) if family == "gpt" else (samples,), generator=generator)
    if family == "gpt":
        y[0, 3] = losses.IGNORED
    return {"x": x, "y": y}


def learned(model: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
    """The loss, the gradients, and the buffers after them."""
    model.zero_grad()
    loss_sum, weight = cross_entropy(model, batch)
    (loss_sum / weight).backward()
    gradients = [each.grad.clone() for each in model.parameters() if each.grad is not None]
    return [loss_sum.detach(), *gradients, *(each.double().clone() for each in model.buffers())]


def far(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return max(float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True) if b.norm() > 0)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_same_and_blocks_share_one_compilation(family: str, graphs: Graphs) -> None:
    plain = learned(made(family), batch_of(family))
    model = compiling(made(family), FAMILIES[family][0], backend="aot_eager")
    assert far(learned(model, batch_of(family)), plain) < 1e-6
    # a GPT's loss is the second
    assert graphs() == (2 if family == "gpt" else 1)
    learned(model, batch_of(family))
    assert graphs() == (2 if family == "gpt" else 1)
    assert compiled_parts(model) == (1 if family == "resnet" else 3)


@pytest.mark.slow
@pytest.mark.skipif(bool(lacking("cpu")), reason="needs a C++ compiler")
@pytest.mark.timeout(600)
def test_kernels_made_for_a_gpt_give_the_same_gradients(graphs: Graphs) -> None:
    plain, before_s = learned(made("gpt"), batch_of("gpt")), compile_seconds()
    model = compiling(made("gpt"), "blocks")
    assert far(learned(model, batch_of("gpt")), plain) < 1e-6
    assert graphs() == 2
    assert compile_seconds() > before_s


@pytest.mark.slow
def test_names_stay_and_nothing_is_left_when_it_is_taken_away(graphs: Graphs) -> None:
    model, plain = made("gpt"), made("gpt")
    compiling(compiling(model, "whole", backend="aot_eager"), "blocks", backend="aot_eager")
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    # a copy computes with its own weights
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    wanted = learned(plain, batch_of("gpt"))
    assert far(learned(other, batch_of("gpt")), wanted) < 1e-6
    for each in (model, other):
        compiling(each, "none")
        assert compiled_parts(each) == 0
        assert vars(each).keys() == vars(plain).keys()
        assert not each._forward_pre_hooks
        assert all("forward" not in vars(module) for module in each.modules())
    before = graphs()
    assert far(learned(other, batch_of("gpt")), wanted) == 0
    assert graphs() == before


@pytest.mark.slow
def test_compiled_blocks_are_computed_again(graphs: Graphs) -> None:
    plain = learned(made("gpt"), batch_of("gpt"))
    model = recomputing(compiling(made("gpt"), "blocks", backend="aot_eager"), "full")
    assert far(learned(model, batch_of("gpt")), plain) < 1e-6
    assert graphs() == 2
    compiling(recomputing(model, "none"), "none")
    assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.slow
def test_only_usual_batches_that_are_learned_from_compile(graphs: Graphs) -> None:
    model = compiling(made("gpt"), "blocks", samples={4}, backend="aot_eager")
    with torch.no_grad():
        cross_entropy(model, batch_of("gpt"))
    odd = batch_of("gpt", samples=3)
    assert far(learned(model, odd), learned(made("gpt"), odd)) == 0
    assert graphs() == 0
    learned(model, batch_of("gpt"))
    assert graphs() == 2


@pytest.mark.slow
def test_one_compilation_serves_all_lengths_that_vary(graphs: Graphs) -> None:
    model = compiling(made("bert"), "blocks", lengths_vary=True, backend="aot_eager")
    for samples, length in ((4, 16), (4, 8), (3, 12), (2, 10)):
        batch = batch_of("bert", samples, length)
        assert far(learned(model, batch), learned(made("bert"), batch)) < 1e-6
    assert graphs() == 1


@pytest.mark.slow
def test_autocast_reaches_what_is_compiled(graphs: Graphs) -> None:
    model, plain = made("gpt").float(), made("gpt").float()
    compiling(model, "blocks", backend="aot_eager")
    dtypes = []
    for each in (model, plain):
        with torch.autocast("cpu", torch.bfloat16):
            dtypes.append(next(repeated_blocks(each)).mlp(torch.ones(1, 2, 32)).dtype)  # type: ignore[union-attr,operator]
            found = learned(each, batch_of("gpt"))
    assert dtypes == [torch.bfloat16] * 2
    with torch.autocast("cpu", torch.bfloat16):
        assert far(learned(model, batch_of("gpt")), found) < 0.02


@pytest.mark.slow
def test_what_fails_to_compile_runs_as_it_was_made_and_is_told(graphs: Graphs) -> None:
    def fails(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        raise OSError("cc was not found")

    before_s = compile_seconds()
    model = compiling(made("gpt"), "blocks", backend=fails)
    assert far(learned(model, batch_of("gpt")), learned(made("gpt"), batch_of("gpt"))) == 0
    (told,) = compile_news(model, 1, compile_seconds() - before_s)
    assert isinstance(told, Warned)
    assert "cc was not found" in told.message
    before_s = compile_seconds()
    learned(model, batch_of("gpt"))
    assert compile_seconds() == before_s


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_loss_to_compile_is_that_of_the_operators(dtype: torch.dtype) -> None:
    logits = torch.randn(7, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = torch.tensor([0, 8, losses.IGNORED, 3, 3, losses.IGNORED, 1])
    for ours, theirs in zip(
        pull_of(logits, y, losses.IGNORED), pull_in_place(logits.clone(), y, losses.IGNORED), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_what_cannot_be_compiled_is_told() -> None:
    with pytest.raises(JobError, match=r"block.*Did you mean 'blocks'"):
        compiling(made("gpt"), "block")
    with pytest.raises(JobError, match=r"no repeated blocks.*'whole'"):
        compiling(nn.Linear(2, 2), "blocks")
    with pytest.raises(JobError, match="forward of Block is replaced"):
        compiling(recomputing(made("gpt"), "full"), "blocks")
    assert compiling(nn.Linear(2, 2), "none") is not None


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    assert lacking("cpu") == "a C++ compiler (g++ or clang++)"
    assert lacking("cuda") in {"Triton", "a C compiler (gcc or clang or cc)"}
