"""The units that a model can lose: heads, and channels inside, each with all the numbers that belong to it.

A unit is inside when nothing but its own tensors would notice that it is gone: no stream that others add to, and no
norm across it, has its width. So a model without units whose effect is zero answers the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from thrifty.errors import JobError, nearest
from thrifty.spec import ModelPlan

UnitKind = Literal["heads", "channels"]


@dataclass(frozen=True)
class Axis:
    """Where the numbers of units lie in a tensor.

    Along ``dim`` there are runs, one after the other; in each run the units lie one after the other, every one as many
    numbers wide as ``runs`` says for that run.

    Attributes:
        tensor: its name in the model.
        dim: of it.
        runs: widths of a unit.
    """

    tensor: str
    dim: int
    runs: tuple[int, ...] = (1,)

    def indices(self, count: int, kept: Sequence[int]) -> Tensor:
        """Where along ``dim`` the kept units of so many lie, int64.

        >>> Axis("qkv.weight", 0, (2, 2)).indices(3, [0, 2]).tolist()
        [0, 1, 4, 5, 6, 7, 10, 11]
        """
        units, begin, found = torch.tensor(list(kept), dtype=torch.int64), 0, []
        for width in self.runs:
            found.append((begin + units[:, None] * width + torch.arange(width)).flatten())
            begin += count * width
        return torch.cat(found)


@dataclass(frozen=True)
class Units:
    """Units of one place of a model, any of which can go while one is left.

    Attributes:
        name: of the place.
        kind: what they are.
        count: how many there are.
        axes: where they lie.
        watched: the module where each unit's activation is one run of numbers of a width along the last dimension; of
            images, or of maps, along the second.
        side: of that module.
        counters: attributes of modules that count them, with how many of what is counted a unit has.
    """

    name: str
    kind: UnitKind
    count: int
    axes: tuple[Axis, ...]
    watched: str
    side: Literal["input", "output"] = "input"
    counters: tuple[tuple[str, str, int], ...] = ()


def units_of(model: nn.Module, plan: ModelPlan) -> dict[str, Units]:
    """Find what a model can lose, as it is now: the units of each place by its name, none where a family has none.

    A place is left out where one of its layers is factored, and where a single unit is left.
    """
    find = FAMILIES.get(plan.family)
    if find is None:
        return {}
    names = model.state_dict(keep_vars=True)
    whole = (units for units in find(model) if all(axis.tensor in names for axis in units.axes))
    return {units.name: units for units in whole if units.count > 1}


@torch.no_grad()
def cut(model: nn.Module, units: Units, kept: Sequence[int]) -> None:
    """Leave a model these units of a place, in place and in their order.

    Args:
        model: that has them.
        units: of `units_of`.
        kept: at least one, rising.
    """
    assert kept and list(kept) == sorted(set(kept)) and kept[0] >= 0 and kept[-1] < units.count, kept
    for axis in units.axes:
        owner, _, name = axis.tensor.rpartition(".")
        module = model.get_submodule(owner)
        tensor = getattr(module, name)
        slim = tensor.index_select(axis.dim, axis.indices(units.count, kept).to(tensor.device)).contiguous()
        if isinstance(tensor, nn.Parameter):
            slim = nn.Parameter(slim, requires_grad=tensor.requires_grad)
        setattr(module, name, slim)
        _resize(module)
    for owner, name, each in units.counters:
        setattr(model.get_submodule(owner), name, len(kept) * each)


def cut_as_planned(model: nn.Module, plan: ModelPlan) -> None:
    """Leave a model that was built whole as many units as its plan says.

    Raises:
        JobError: the plan names a place that the model has not, or as many units as were never there.
    """
    places = units_of(model, plan)
    for name, count in plan.kept.items():
        units = places.get(name)
        if units is None:
            raise JobError(
                f"model '{plan.name}' has no units at '{name[:100]}'", nearest=nearest(name, places), mend=_AGAIN
            )
        if not 1 <= count <= units.count:
            raise JobError(f"model '{plan.name}' has {units.count} units at '{name}', not {count}", mend=_AGAIN)
        cut(model, units, range(count))


_AGAIN = "Write the bundle again from its run."


def _resize(module: nn.Module) -> None:
    """Have a layer tell the sizes that its tensors have."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _ConvNd):
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, _BatchNorm):
        module.num_features = len(module.running_mean)  # type: ignore[arg-type]


def _layer(name: str, *, out: bool, runs: tuple[int, ...] = (1,), bias: bool = True) -> list[Axis]:
    """Where units lie that a layer makes, with its bias, or takes."""
    if not out:
        return [Axis(f"{name}.weight", 1, runs)]
    return [Axis(f"{name}.weight", 0, runs), *([Axis(f"{name}.bias", 0, runs)] if bias else [])]


def _norm(name: str) -> list[Axis]:
    return [Axis(f"{name}.{each}", 0) for each in ("weight", "bias", "running_mean", "running_var")]


def _blocks(
    model: nn.Module, blocks: str, attention: str, qkv: str, out: str, mlp: str, up: str, down: str
) -> Iterator[Units]:
    """Heads, and channels inside feed-forward layers, of blocks whose layers have these names."""
    for name, block in model.get_submodule(blocks).named_children():
        at, inside = f"{blocks}.{name}.{attention}", f"{blocks}.{name}.{mlp}"
        heads = int(block.get_submodule(attention).heads)  # type: ignore[arg-type]
        first = model.get_submodule(f"{at}.{qkv}")
        if isinstance(first, nn.Linear):
            width = first.out_features // (3 * heads)
            axes = _layer(f"{at}.{qkv}", out=True, runs=(width,) * 3) + _layer(f"{at}.{out}", out=False, runs=(width,))
            yield Units(at, "heads", heads, tuple(axes), f"{at}.{out}", counters=((at, "heads", 1),))
        wide = model.get_submodule(f"{inside}.{up}")
        if isinstance(wide, nn.Linear):
            axes = _layer(f"{inside}.{up}", out=True) + _layer(f"{inside}.{down}", out=False)
            yield Units(inside, "channels", wide.out_features, tuple(axes), f"{inside}.{down}")


def _encoder(model: nn.Module) -> Iterator[Units]:
    return _blocks(model, "blocks", "attention", "qkv", "proj", "mlp", "up", "proj")


def _gpt(model: nn.Module) -> Iterator[Units]:
    return _blocks(model, "h", "attn", "c_attn", "c_proj", "mlp", "c_fc", "c_proj")


def _llama(model: nn.Module) -> Iterator[Units]:
    """Keys and values with the queries that share them go together: each keeps as many queries."""
    for name, block in model.get_submodule("blocks").named_children():
        at, inside = f"blocks.{name}.attention", f"blocks.{name}.mlp"
        attention = block.get_submodule("attention")
        heads, groups = int(attention.heads), int(attention.kv_heads)  # type: ignore[arg-type]
        first, wide = model.get_submodule(f"{at}.qkv"), model.get_submodule(f"{inside}.gate_up")
        if isinstance(first, nn.Linear):
            each, width = heads // groups, first.out_features // (heads + 2 * groups)
            axes = _layer(f"{at}.qkv", out=True, runs=(each * width, width, width), bias=False)
            axes += _layer(f"{at}.proj", out=False, runs=(each * width,))
            counters = ((at, "heads", each), (at, "kv_heads", 1))
            yield Units(at, "heads", groups, tuple(axes), f"{at}.proj", counters=counters)
        if isinstance(wide, nn.Linear):
            axes = _layer(f"{inside}.gate_up", out=True, runs=(1, 1), bias=False)
            axes += _layer(f"{inside}.proj", out=False)
            yield Units(inside, "channels", wide.out_features // 2, tuple(axes), f"{inside}.proj")


def _speech(model: nn.Module) -> Iterator[Units]:
    channels = int(model.conv_1.out_channels)  # type: ignore[union-attr, arg-type]
    axes = _layer("conv_1", out=True) + _layer("conv_2", out=False)
    yield Units("conv_1", "channels", channels, tuple(axes), "conv_2")
    channels = int(model.conv_2.out_channels)  # type: ignore[union-attr, arg-type]
    if isinstance(model.join, nn.Linear):
        bands = model.join.in_features // channels
        axes = _layer("conv_2", out=True) + _layer("join", out=False, runs=(bands,))
        yield Units("conv_2", "channels", channels, tuple(axes), "join")
    yield from _encoder(model)


def _resnet(model: nn.Module) -> Iterator[Units]:
    """What lies between the convolutions of a block; the width that shortcuts add to stays."""
    for name, module in model.named_modules():
        if not (name.startswith("layer") and hasattr(module, "conv1")):
            continue
        for first, second in ((1, 2), (2, 3)):
            if not hasattr(module, f"conv{second}"):
                continue
            at = f"{name}.conv{first}"
            axes = _layer(at, out=True, bias=False) + _layer(f"{name}.conv{second}", out=False)
            axes += _after(model, at, f"{name}.bn{first}")
            count = int(model.get_submodule(at).out_channels)  # type: ignore[arg-type]
            yield Units(at, "channels", count, tuple(axes), f"{name}.conv{second}")


def _fast_convnet(model: nn.Module) -> Iterator[Units]:
    """All but the first layer, which is not learned: there are no shortcuts."""
    layers = [f"groups.{n}.conv{m}" for n in range(len(model.groups)) for m in (1, 2)]  # type: ignore[arg-type]
    for at, following in zip(layers, [*layers[1:], "fc"], strict=True):
        axes = _layer(at, out=True, bias=False) + _layer(following, out=False)
        axes += _after(model, at, at.replace(".conv", ".bn"))
        count = int(model.get_submodule(at).out_channels)  # type: ignore[arg-type]
        yield Units(at, "channels", count, tuple(axes), following)


def _after(model: nn.Module, convolution: str, norm: str) -> list[Axis]:
    """What follows each channel of a convolution: its norm; or, where that was folded, its bias."""
    folded = isinstance(model.get_submodule(norm), nn.Identity)
    return [Axis(f"{convolution}.bias", 0)] if folded else _norm(norm)


def _hidden(model: nn.Module, last: Axis) -> Iterator[Units]:
    """Channels between plain layers; ``last`` takes those of the last one."""
    layers: nn.ModuleList = model.hidden  # type: ignore[assignment]
    for number, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            takes = last if number + 1 == len(layers) else Axis(f"hidden.{number + 1}.weight", 1)
            axes = (*_layer(f"hidden.{number}", out=True), takes)
            yield Units(f"hidden.{number}", "channels", layer.out_features, axes, f"hidden.{number}", "output")


def _mlp(model: nn.Module) -> Iterator[Units]:
    return _hidden(model, Axis("fc.weight", 1))


def _tabular(model: nn.Module) -> Iterator[Units]:
    return _hidden(model, Axis("head_KHO", 1))


FAMILIES: Mapping[str, Callable[[nn.Module], Iterator[Units]]] = {
    "bert": _encoder,
    "bert_original": _encoder,
    "vit": _encoder,
    "wav2vec2": _encoder,
    "speech": _speech,
    "gpt": _gpt,
    "llama": _llama,
    "resnet": _resnet,
    "fast_convnet": _fast_convnet,
    "mlp": _mlp,
    "tabular": _tabular,
}
