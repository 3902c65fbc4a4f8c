"""Initial weights: a family's own, a model's own, He's or Xavier's; the same seed gives the same weights anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from thrifty.errors import unknown_name
from thrifty.models.bert import BERT
from thrifty.models.gpt import GPT
from thrifty.models.hf import load_weights
from thrifty.models.logits import Logits
from thrifty.models.mlp import MLP
from thrifty.models.resnet import ResNet

EMBEDDING_STD = 0.02
POSITION_STD = 0.01

Fill = Callable[[Tensor, torch.Generator], object]


def fans(weight: Tensor) -> tuple[int, int]:
    """Inputs and outputs of one unit of a linear layer [out, in] or convolution [out, in, height, width]."""
    field = math.prod(weight.shape[2:])
    return weight.shape[1] * field, weight.shape[0] * field


def _normal(std: float) -> Fill:
    return lambda weight, generator: weight.normal_(0.0, std, generator=generator)


def _uniform(std: float) -> Fill:
    # a uniform distribution over -a..a has variance a^2 / 3
    bound = math.sqrt(3) * std
    return lambda weight, generator: weight.uniform_(-bound, bound, generator=generator)


def _fill(weight: Tensor, fill: Fill, generator: torch.Generator) -> None:
    """Draw on the CPU in float32, whatever the weight is and wherever it lives."""
    drawn = torch.empty(weight.shape, dtype=torch.float32, device="cpu")
    fill(drawn, generator)
    weight.copy_(drawn)


def _weighted(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            yield name, module.weight


def _embeddings(model: nn.Module, generator: torch.Generator) -> str:
    """Fill lookup tables, whose rows have no fan: normal, as GPT-2's code has it."""
    found = False
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            found = True
            _fill(module.weight, _normal(_embedding_std(name)), generator)
    return f"; embeddings normal {EMBEDDING_STD}, positions {POSITION_STD}" if found else ""


def _embedding_std(name: str) -> float:
    return POSITION_STD if name.endswith(("wpe", "positions")) else EMBEDDING_STD


def _every_weight(model: nn.Module, generator: torch.Generator, fill: Callable[[Tensor], Fill]) -> str:
    for _, weight in _weighted(model):
        _fill(weight, fill(weight), generator)
    return _embeddings(model, generator)


def he_normal(model: nn.Module, generator: torch.Generator) -> str:
    """Variance 2 / fan_in (He et al. 2015, "Delving deep into rectifiers", equation 10)."""
    rest = _every_weight(model, generator, lambda weight: _normal(math.sqrt(2 / fans(weight)[0])))
    return f"He normal, variance 2 / fan_in{rest}"


def he_uniform(model: nn.Module, generator: torch.Generator) -> str:
    """Uniform with the variance of `he_normal`."""
    rest = _every_weight(model, generator, lambda weight: _uniform(math.sqrt(2 / fans(weight)[0])))
    return f"He uniform, variance 2 / fan_in{rest}"


def xavier_normal(model: nn.Module, generator: torch.Generator) -> str:
    """Variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010, equation 12)."""
    rest = _every_weight(model, generator, lambda weight: _normal(math.sqrt(2 / sum(fans(weight)))))
    return f"Xavier normal, variance 2 / (fan_in + fan_out){rest}"


def xavier_uniform(model: nn.Module, generator: torch.Generator) -> str:
    """Uniform with the variance of `xavier_normal` (Glorot and Bengio 2010, equation 16)."""
    rest = _every_weight(model, generator, lambda weight: _uniform(math.sqrt(2 / sum(fans(weight)))))
    return f"Xavier uniform, variance 2 / (fan_in + fan_out){rest}"


def _resnet(model: nn.Module, generator: torch.Generator) -> str:
    """He normal by fan_out on convolutions, which keeps the gradient's variance; no ReLU follows the last layer.

    The last norm of a block starts at one as published, not at zero (Goyal et al. 2017): on nets as shallow as these
    small ones it gains nothing that a warm-up does not.
    """
    for name, weight in _weighted(model):
        std = math.sqrt(1 / fans(weight)[0]) if name == "fc" else math.sqrt(2 / fans(weight)[1])
        _fill(weight, _normal(std), generator)
    return "He normal, variance 2 / fan_out (He et al. 2015)"


def _gpt(model: nn.Module, generator: torch.Generator) -> str:
    """Normal 0.02; what adds to the residual stream by 1 / sqrt(2 layers) less (Radford et al. 2019, section 2.3)."""
    assert isinstance(model, GPT)
    scale = 1 / math.sqrt(2 * len(model.h))
    for name, weight in _weighted(model):
        _fill(weight, _normal(EMBEDDING_STD * (scale if name.endswith("c_proj") else 1)), generator)
    rest = _embeddings(model, generator)
    return f"normal {EMBEDDING_STD}, residual projections by 1 / sqrt({2 * len(model.h)}) less (GPT-2){rest}"


def _bert(model: nn.Module, generator: torch.Generator) -> str:
    """Normal 0.02 (Devlin et al. 2019); what adds to the residual stream less, as in GPT-2, for norms come first.

    A truncated normal as in BERT's code differs from it in one draw of twenty.
    """
    assert isinstance(model, BERT)
    scale = 1 / math.sqrt(2 * len(model.blocks))
    for name, weight in _weighted(model):
        _fill(weight, _normal(EMBEDDING_STD * (scale if name.endswith("proj") else 1)), generator)
    rest = _embeddings(model, generator)
    return f"normal {EMBEDDING_STD}, residual projections by 1 / sqrt({2 * len(model.blocks)}) less{rest}"


FAMILY_DEFAULTS: dict[type[nn.Module], Callable[[nn.Module, torch.Generator], str]] = {
    ResNet: _resnet,
    GPT: _gpt,
    BERT: _bert,
    MLP: he_normal,
}


def own(model: nn.Module, generator: torch.Generator) -> str:
    """Keep what the model's own code has drawn, or load the weights that it names."""
    if isinstance(model, Logits) and model.weights:
        return load_weights(model, generator.initial_seed())
    return "as its own code has it"


def default(model: nn.Module, generator: torch.Generator) -> str:
    """What the authors of the model's family used; `he_normal` for a module of no family here."""
    return FAMILY_DEFAULTS.get(type(model), he_normal)(model, generator)


INITS: dict[str, Callable[[nn.Module, torch.Generator], str]] = {
    "default": default,
    "own": own,
    "he_normal": he_normal,
    "he_uniform": he_uniform,
    "xavier_normal": xavier_normal,
    "xavier_uniform": xavier_uniform,
}


@torch.no_grad()
def initialise(model: nn.Module, name: str, seed: int) -> str:
    """Give a model its initial weights, in place; return one line that says what was done.

    Weights depend on the model's shape, ``name`` and ``seed`` alone, whatever the device; torch's own random state is
    neither read nor changed. Biases become 0, norms 1 and 0, and running statistics start afresh; ``own`` leaves all as
    the model's own code has it.

    Raises:
        JobError: there is no initialiser of that name; the nearest one is given.
    """
    if name not in INITS:
        raise unknown_name("initialiser", name, INITS)
    if name == "own":
        return own(model, torch.Generator().manual_seed(seed))
    for module in model.modules():
        if isinstance(module, _NormBase):
            module.reset_running_stats()
        if isinstance(module, _NormBase | nn.LayerNorm) and module.weight is not None:
            nn.init.ones_(module.weight)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)
    return INITS[name](model, torch.Generator().manual_seed(seed))
