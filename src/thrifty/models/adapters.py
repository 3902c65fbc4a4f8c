"""Fine-tuning from outside: parameters frozen by pattern, low-rank adapters put in through peft and merged away again.

LoRA: Hu et al. 2021 (arXiv 2106.09685); DoRA: Liu et al. 2024 (arXiv 2402.09353).
"""

from __future__ import annotations

import copy
import hashlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import _disable_current_modes

from thrifty.errors import BundleError, JobError, MissingExtraError, nearest
from thrifty.models.four_bits import FourBits
from thrifty.models.logits import Logits
from thrifty.models.recompute import repeated_blocks
from thrifty.spec import AdaptPlan

# the buffer that tells a model with frozen weights: the sha256 of their values, once it has them
MARK = "frozen_sha256"
# beside it, the names of those weights: who steps over a weight in a way of its own may take its gradient away too
_NAMES = "frozen_names"
# they read the weights of their own layers without calling them, so an adapter would not be heard
_FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
_WRAPPER = "model."


def adapting(model: nn.Module, plan: AdaptPlan) -> nn.Module:
    """Freeze what a plan freezes and put its adapters in; returns the model.

    Adapters hold no values until `start`; where weights take no memory, they take none. Frozen batch norms stay in
    ``eval`` mode: statistics that went on moving would change what frozen weights compute.

    Raises:
        JobError: a pattern matches nothing (the nearest name is given), or nothing is left to train.
        MissingExtraError: there are adapters, and peft is not installed.

    >>> model = adapting(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)), AdaptPlan(freeze=("0.*",)))
    >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    ['1.weight', '1.bias']
    """
    if plan == AdaptPlan():
        return model
    parameters = {shown_name(model, name): each for name, each in model.named_parameters(remove_duplicate=False)}
    still = matching(plan.freeze, parameters, "train.freeze", "parameter")
    if plan.kind != "none":
        whole = matching(plan.whole, parameters, "the plan's adapt.whole", "parameter")
        layers = _targets(model, plan, still | whole)
        still |= parameters.keys() - whole
    for name in still:
        parameters[name].requires_grad_(False)
    if plan.kind != "none":
        _put_in(model, layers, plan)
    if not trained_parameters(model):
        raise JobError(
            f"train.freeze leaves no parameter to train: {', '.join(plan.freeze)} match all {len(parameters):,}",
            mend="Leave out what is to learn.",
        )
    for norm in frozen_norms(model):
        norm.training = False
        norm.train = _Still(norm)  # type: ignore[method-assign]
    names = [name for name, each in model.named_parameters(remove_duplicate=False) if not each.requires_grad]
    vars(model)[_NAMES] = frozenset(names)
    model.register_buffer(MARK, torch.zeros(32, dtype=torch.uint8))
    return model


@torch.no_grad()
def start(model: nn.Module, seed: int) -> nn.Module:
    """Give adapters their first values, with which a model answers as before, and note what is frozen; returns it.

    Of the two matrices the first is drawn as `nn.Linear` draws its own, the second is zero (Hu et al. 2021, section
    4.1); DoRA's lengths are those of the model's own weights. Torch's random state is neither read nor changed.
    """
    generator = torch.Generator().manual_seed(seed)
    for _, layer in _adapted(model):
        for name, parameter in layer.named_parameters():
            if name.startswith("lora_A."):
                bound = parameter[0].numel() ** -0.5
                parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
            elif name.startswith("lora_B."):
                parameter.zero_()
            elif name.startswith("lora_magnitude_vector."):
                weight = layer.get_base_layer().weight.detach()
                rows = weight.t() if getattr(layer, "fan_in_fan_out", False) else weight.flatten(1)
                parameter.copy_(torch.linalg.vector_norm(rows, dim=1).view_as(parameter))
    mark = model._buffers.get(MARK)
    if mark is not None:
        mark.copy_(torch.frombuffer(bytearray(_digest(model)), dtype=torch.uint8))
    return model


@torch.no_grad()
def merging(model: nn.Module) -> nn.Module:
    """Put what adapters learned into the model's own weights and take them out; returns the model.

    Names are then those that the model was made with. What was frozen stays without gradients.
    """
    for name, layer in list(_adapted(model)):
        if isinstance(layer.base_layer, FourBits):
            layer.base_layer = layer.base_layer.plain()
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())
    for module in model.modules():
        if isinstance(vars(module).get("train"), _Still):
            del module.train
    if MARK in model._buffers:
        delattr(model, MARK)
        del vars(model)[_NAMES]
    return model


def changing(model: nn.Module) -> dict[str, Tensor]:
    """Return the state that training changes: of a model that `adapting` froze, what is not frozen; else all."""
    if MARK not in model._buffers:
        return model.state_dict()
    return {name: value for name, value in model.state_dict().items() if name not in vars(model)[_NAMES]}


def restore(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put back what `changing` returned; a tensor that goes by two names may come under one.

    Raises:
        BundleError: the frozen weights are not those that it was trained with.
    """
    mark = model._buffers.get(MARK)
    if mark is not None and not torch.equal(mark.cpu(), state[MARK].cpu()):
        raise BundleError(
            "the frozen weights of this model are not those that the checkpoint was trained with",
            mend="Put the model's files back as they were, or train from the start.",
        )
    own = changing(model)
    missing, unexpected = model.load_state_dict(state, strict=False)
    filled = {own[name].data_ptr() for name in own.keys() & state.keys()}
    left = [name for name in missing if name in own and own[name].data_ptr() not in filled]
    assert not left and not unexpected, (left, unexpected)


def trained_parameters(model: nn.Module) -> int:
    """Count what is trained, each shared parameter once."""
    return sum(each.numel() for each in model.parameters() if each.requires_grad)


def frozen_norms(model: nn.Module) -> list[nn.Module]:
    """The batch norms with running statistics whose own parameters are all frozen."""
    norms = [each for each in model.modules() if isinstance(each, _BatchNorm) and each.running_mean is not None]
    return [each for each in norms if (own := list(each.parameters())) and not any(p.requires_grad for p in own)]


def usual_targets(model: nn.Module) -> tuple[str, ...]:
    """Name the layers that get an adapter where a job names none, numbers in names replaced by ``*``.

    The linear layers (and convolutions) of the blocks that a model repeats; where it repeats none, all it has.

    >>> usual_targets(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))
    ('*',)
    """
    layers = _adaptable(model)
    inside = {id(each) for block in repeated_blocks(model) for each in block.modules()}
    names = [name for name, layer in layers.items() if id(layer) in inside] or list(layers)
    return tuple(dict.fromkeys(".".join("*" if part.isdigit() else part for part in name.split(".")) for name in names))


def head_of(model: nn.Module, classes: int) -> tuple[str, ...]:
    """Name the parameters of the layer that tells classes: the last one with as many outputs; none for no such one."""
    found = ""
    for name, module in model.named_modules():
        outputs = getattr(module, "out_features", getattr(module, "out_channels", None))
        if isinstance(module, nn.Linear | nn.Conv2d) and outputs == classes:
            found = shown_name(model, name)
    return (f"{found}.*",) if found else ()


def matching(patterns: Sequence[str], names: Mapping[str, Any], key: str, what: str) -> set[str]:
    """Return the names that any of some patterns match.

    Raises:
        JobError: one matches nothing; the nearest name or pattern is given.
    """
    found: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if fnmatchcase(name, pattern)}
        if not matched:
            parts = [name.split(".") for name in names]
            inside = {".".join((*each[:depth], "*")) for each in parts for depth in range(1, len(each))}
            near = nearest(pattern, sorted({*names, *inside}))
            few = list(names)[:5]
            raise JobError(
                f"{key}: '{pattern}' matches no {what} of the model",
                nearest=near,
                mend=f"It has: {', '.join(few)}{', …' if len(names) > len(few) else ''}.",
            )
        found |= matched
    return found


class _Still:
    """The ``train`` of a norm that stays in ``eval`` mode."""

    def __init__(self, norm: nn.Module) -> None:
        self._norm = norm

    def __call__(self, mode: bool = True) -> nn.Module:
        self._norm.training = False
        return self._norm


def shown_name(model: nn.Module, name: str) -> str:
    """Return a name as the author of the model knows it: without that of our wrapper."""
    return name.removeprefix(_WRAPPER) if isinstance(model, Logits) else name


def _adaptable(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that can get an adapter, by the names that their author knows.

    Not those that share their weights: merging would change the other too. Nor those of a class of its own, whose
    product may be another.
    """
    fused = {id(each) for module in model.modules() if isinstance(module, _FUSED) for each in module.modules()}
    modules = [(name, each) for name, each in model.named_modules() if id(each) not in fused]
    parameters = [each for module in model.modules() for each in module._parameters.values() if each is not None]
    owners = Counter(id(each) for each in parameters)
    kinds = (nn.Linear, nn.Conv2d, *_turned_kinds())
    return {
        shown_name(model, name): each
        for name, each in modules
        if type(each) in kinds and getattr(each, "groups", 1) == 1 and owners[id(each.weight)] == 1
    }


def _turned_kinds() -> tuple[type[nn.Module], ...]:
    """Transformers' linear layer with turned weights, where a model may have one."""
    library = sys.modules.get("transformers.pytorch_utils")
    return (library.Conv1D,) if library is not None else ()


def _targets(model: nn.Module, plan: AdaptPlan, without: set[str]) -> dict[str, nn.Module]:
    """The layers that a plan puts adapters on, by the model's own names; none of ``without``, names of parameters."""
    layers = _adaptable(model)
    if not layers:
        raise JobError(
            "the model has no layer that an adapter fits",
            mend="Adapters fit linear layers and convolutions that are called, and whose weights are theirs alone.",
        )
    found = matching(plan.targets, layers, "train.adapter.targets", "layer that an adapter fits")
    left = {name: each for name, each in layers.items() if name in found and f"{name}.weight" not in without}
    if not left:
        raise JobError(
            f"train.adapter.targets: {', '.join(plan.targets)} name only layers that are frozen or trained whole",
            mend="Name others, or leave it out.",
        )
    prefix = _WRAPPER if isinstance(model, Logits) else ""
    return {prefix + name: each for name, each in left.items()}


def _put_in(model: nn.Module, layers: Mapping[str, nn.Module], plan: AdaptPlan) -> None:
    """Let peft make the adapters over layers without memory, and set the real ones and room for values beneath."""
    library = _library()
    stubs = nn.ModuleList()
    with _disable_current_modes(), torch.device("meta"), warnings.catch_warnings():
        # it says so of Conv1D, and does what it says
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)
        stubs.extend(_stub(each) for each in layers.values())
        config = library.LoraConfig(
            r=plan.rank,
            lora_alpha=plan.alpha,
            lora_dropout=0.0,
            use_dora=plan.kind == "dora",
            target_modules=r"\d+",
        )
        library.inject_adapter_in_model(config, stubs)
    for adapted, (name, layer) in zip(stubs, layers.items(), strict=True):
        _set_over(adapted, layer, plan.base)
        model.set_submodule(name, adapted)


def _set_over(adapted: Any, layer: Any, base: str) -> None:
    """Set an adapter over its real layer, with room for its values."""
    for path, module in adapted.named_modules():
        if not path.startswith("base_layer"):
            for key, blank in list(module.named_parameters(recurse=False)):
                room = torch.empty(blank.shape, dtype=torch.float32, device=layer.weight.device)
                setattr(module, key, nn.Parameter(room))
    adapted.base_layer = FourBits(layer) if base == "4bit" and not isinstance(layer, nn.Conv2d) else layer
    # autocast casts where it must; peft would cast half precision back first
    adapted.cast_input_dtype_enabled = False


def _stub(layer: nn.Module) -> nn.Module:
    """A layer like another, its weights without memory."""
    stub = copy.copy(layer)
    stub._parameters = {
        key: None if each is None else nn.Parameter(torch.empty(each.shape, dtype=each.dtype), requires_grad=False)
        for key, each in layer._parameters.items()
    }
    return stub


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    if "peft" not in sys.modules:
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    yield from ((name, each) for name, each in model.named_modules() if isinstance(each, BaseTunerLayer))


def _digest(model: nn.Module) -> bytes:
    """The sha256 of all frozen parameters, names and values."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if name in vars(model)[_NAMES]:
            values = parameter.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(name.encode() + b"\0")
            digest.update(values.numpy().data)
    return digest.digest()


def _library() -> Any:
    try:
        import peft
    except ImportError:
        raise MissingExtraError("an adapter", package="peft", extra="peft") from None
    return peft
