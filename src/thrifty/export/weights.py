"""Weights to a safetensors file and back into a model; shapes are compared before memory is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from thrifty.errors import BundleError, JobError
from thrifty.models import build
from thrifty.spec import ModelPlan

_AGAIN = "Write the bundle again from its run."
_FILLS = {Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_}


def stored(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that make a model, each once: a tied one goes under its first name alone."""
    seen: set[int] = set()
    kept: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            kept[name] = tensor
    return kept


def save(model: nn.Module, path: Path) -> None:
    """Write a model's weights.

    Raises:
        BundleError: a weight is not finite; such a model has nothing to serve.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in stored(model).items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(
                f"the weights '{name}' hold NaN or infinity", mend="Train again with a lower learning rate."
            )
    save_file(tensors, path)


def load(plan: ModelPlan, path: Path) -> nn.Module:
    """Build the model of a plan and fill it from a file; it comes in ``eval`` mode on the CPU, without gradients.

    The model is first built without memory and compared with the file by name, shape and type, so that a
    description of another model, or of a huge one, is refused cheaply.

    Raises:
        BundleError: the file is no safetensors file, or holds other weights than the plan has.
    """
    try:
        with safe_open(path, framework="pt") as file:
            _compare(plan, path, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
            model = build(plan)
            with torch.no_grad():
                for name, tensor in stored(model).items():
                    tensor.copy_(_finite(file.get_tensor(name), name, path))
    except SafetensorError as error:
        raise BundleError(f"'{path}' is no safetensors file: {error}", mend=_AGAIN) from None
    return model.eval().requires_grad_(False)


class _Unfilled(TorchFunctionMode):
    """Leaves out the filling of tensors: of ones without memory it fills none, and loads all of torch's compiler."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in _FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _compare(plan: ModelPlan, path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    try:
        with _Unfilled():
            wanted = {name: tuple(tensor.shape) for name, tensor in stored(build(plan, device="meta")).items()}
    except BundleError:  # it says more of the code of an own model than can be said here
        raise
    except (JobError, TypeError, ValueError, KeyError, RuntimeError, AssertionError, ArithmeticError) as error:
        raise BundleError(f"the model '{plan.name}' beside '{path}' cannot be built: {error}", mend=_AGAIN) from None
    for name in sorted(wanted.keys() | shapes.keys()):
        if shapes.get(name) != wanted.get(name):
            raise BundleError(
                f"'{path}' holds '{name}' of shape {shapes.get(name, 'none')}, "
                f"the model '{plan.name}' has {wanted.get(name, 'none')}",
                mend=_AGAIN,
            )


def _finite(tensor: Tensor, name: str, path: Path) -> Tensor:
    if not bool(torch.isfinite(tensor).all()):
        raise BundleError(f"the weights '{name}' in '{path}' hold NaN or infinity", mend=_AGAIN)
    return tensor
