"""The precision that a model computes and keeps its weights in, given to it from outside.

Products in bf16: Kalamkar et al. 2019 (arXiv 1905.12322); weights too: Zamirai et al. 2020 (arXiv 2010.06192); fp8:
Micikevicius et al. 2022 (arXiv 2209.05433).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from thrifty.errors import JobError, MissingExtraError
from thrifty.spec.layout import BF16_HELD, arithmetic_of

_DTYPES = {"bf16": torch.bfloat16, "fp8": torch.bfloat16, "fp16": torch.float16}
# products in fp8 take sides that are multiples of this (torch._scaled_mm)
FP8_SIDE = 16
# Ada and Hopper on, which have arithmetic in fp8
FP8_CAPABILITY = (8, 9)


def autocasting(device: str, precision: str) -> contextlib.AbstractContextManager[object]:
    """Return the context in which a forward pass runs at a precision: autocast of 16 bits, or for fp32 nothing at all.

    Layers that compute in fp8 take what autocast of bf16 gives them.
    """
    dtype = _DTYPES.get(arithmetic_of(precision))
    return contextlib.nullcontext() if dtype is None else torch.autocast(device_type=device, dtype=dtype)


def with_precision(model: nn.Module, precision: str, *, accumulating: bool = False) -> nn.Module:
    """Have a model keep its weights as a precision does; returns the model, whose parameters may be others then.

    Of the precisions that hold weights in bf16 these are the parameters of layers with matrices, biases included. Norms
    and other layers of vectors alone stay as they are, and so do buffers: they take next to no memory, and norms are
    where bf16 costs accuracy. In ``fp8`` linear layers compute so, but for the head and those whose sides are no
    multiples of 16; their weights stay.

    Args:
        model: whose weights have their values, and lie on the device that will compute.
        precision: as in a `Plan`.
        accumulating: gradients of several micro-batches are added up: where weights are in bf16, in float32.

    Raises:
        JobError: fp8, on a device that has none; or weights in bf16, where not all are trained.
        MissingExtraError: fp8, and torchao is not installed.

    >>> model = with_precision(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "bf16_compensated")
    >>> [str(each.dtype).removeprefix("torch.") for each in model.parameters()]
    ['bfloat16', 'bfloat16', 'float32', 'float32']
    """
    if precision == "fp8":
        return _in_fp8(model)
    if precision not in BF16_HELD:
        return model
    if not all(each.requires_grad for each in model.parameters()):
        raise JobError(
            f"precision {precision} is for models that are trained whole, and of this one weights are frozen",
            mend="Set plan.precision to bf16, or leave out train.freeze and train.adapter.",
        )
    narrow = {id(each) for module in model.modules() if _has_matrix(module) for each in _own(module).values()}
    _change(model, lambda each: each.to(torch.bfloat16) if id(each) in narrow else each)
    if accumulating:
        for parameter in model.parameters():
            parameter.grad_dtype = torch.float32
    return model


def in_fp32(model: nn.Module) -> nn.Module:
    """Undo `with_precision`: plain layers with weights in float32, each the same number; returns the model."""
    for name, layer in list(model.named_modules()):
        if _is_fp8(layer):
            plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
            plain.weight, plain.bias = layer.weight, layer.bias
            model.set_submodule(name, plain.train(layer.training))
    if any(each.dtype == torch.bfloat16 for each in model.parameters()):
        _change(model, lambda each: each.float() if each.dtype == torch.bfloat16 else each)
    return model


def fp8_layers(model: nn.Module) -> list[str]:
    """Name the layers that compute in fp8 where a device has it: linear ones inside the network, of suitable sides.

    The head is a linear layer after which no module with parameters comes. A layer that shares its weight with another
    module is none of them.

    >>> fp8_layers(nn.Sequential(nn.Linear(32, 48), nn.Linear(48, 40), nn.Linear(40, 48), nn.Linear(48, 16)))
    ['0']
    """
    holders = [id(each) for module in model.modules() for each in _own(module).values()]
    last = [each for each in model.modules() if _own(each)][-1:]
    return [
        name
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear
        and layer not in last
        and layer.in_features % FP8_SIDE == layer.out_features % FP8_SIDE == 0
        and holders.count(id(layer.weight)) == 1
    ]


def check_fp8(device: str) -> None:
    """Check that torchao is installed and a device computes in fp8.

    Raises:
        JobError: it does not.
        MissingExtraError: torchao is not installed.
    """
    _torchao()
    if device != "cuda":
        raise JobError(f"precision fp8 needs a GPU, and the model lies on '{device}'", mend="Take bf16.")
    found = torch.cuda.get_device_capability()
    if found < FP8_CAPABILITY:
        raise JobError(
            f"{torch.cuda.get_device_name()} has no arithmetic in fp8 (compute capability {found[0]}.{found[1]}, "
            f"needed {FP8_CAPABILITY[0]}.{FP8_CAPABILITY[1]})",
            mend="Take bf16.",
        )


def convert_to_fp8(model: nn.Module, *, emulate: bool = False) -> nn.Module:
    """Have the layers of `fp8_layers` compute in fp8, each tensor by a scale of its own; returns the model.

    Args:
        model: any module.
        emulate: round to fp8 and compute in float32, which any device can; for tests.

    Raises:
        MissingExtraError: torchao is not installed.
    """
    _torchao()
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    names = set(fp8_layers(model))
    convert_to_float8_training(
        model, module_filter_fn=lambda _, name: name in names, config=Float8LinearConfig(emulate=emulate)
    )
    return model


def _in_fp8(model: nn.Module) -> nn.Module:
    check_fp8(next(model.parameters()).device.type)
    return convert_to_fp8(model)


def _torchao() -> None:
    try:
        import torchao.float8  # noqa: F401
    except ImportError:
        raise MissingExtraError("precision fp8", package="torchao", extra="fp8") from None


def _is_fp8(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and type(layer).__name__ == "Float8Linear"


def _own(module: nn.Module) -> dict[str, nn.Parameter]:
    return dict(module.named_parameters(recurse=False, remove_duplicate=False))


def _has_matrix(module: nn.Module) -> bool:
    return any(each.dim() >= 2 for each in _own(module).values())


@torch.no_grad()
def _change(model: nn.Module, change: Callable[[nn.Parameter], Tensor]) -> None:
    """Put other parameters in place of a model's, those that are shared still so; of any tensors, fake ones too."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in _own(module).items():
            if id(old) not in made:
                new = change(old)
                made[id(old)] = old if new is old else nn.Parameter(new, old.requires_grad)
            setattr(module, name, made[id(old)])
