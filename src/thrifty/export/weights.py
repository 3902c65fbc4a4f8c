"""Weights to a safetensors file and back into a model; shapes are compared before memory is taken."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from thrifty.errors import BundleError, JobError
from thrifty.models import build
from thrifty.models.quantised import rounded
from thrifty.spec import ModelPlan

_AGAIN = "Write the bundle again from its run."
# of a weight that is whole numbers of eight bits: what they are multiplied by, float32 by its first axis
SCALE = ".scale"
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


def save(model: nn.Module, path: Path, *, whole: Collection[str] = ()) -> None:
    """Write a model's weights; those that are named rounded to int8, each with its scales beside it.

    Raises:
        BundleError: a weight is not finite; such a model has nothing to serve.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in stored(model).items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(
                f"the weights '{name}' hold NaN or infinity", mend="Train again with a lower learning rate."
            )
    for name in whole:
        tensors[name], tensors[name + SCALE] = rounded(tensors[name])
    save_file(tensors, path)


def load(plan: ModelPlan, path: Path, *, whole: bool = False) -> nn.Module:
    """Build the model of a plan and fill it from a file; it comes in ``eval`` mode on the CPU, without gradients.

    With ``whole``, weights of the file may be whole numbers with their scales beside them.

    The model is first built without memory and compared with the file by name, shape and type, so that a
    description of another model, or of a huge one, is refused cheaply.

    Raises:
        BundleError: the file is no safetensors file, or holds other weights than the plan has.
    """
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            scaled = {name for name in shapes if whole and name + SCALE in shapes}
            for name in scaled:
                _check_scale(path, name, shapes[name], shapes.pop(name + SCALE))
            _compare(plan, path, shapes)
            model = build(plan)
            with torch.no_grad():
                for name, tensor in stored(model).items():
                    found = _finite(file.get_tensor(name), name, path)
                    if name in scaled:
                        scale = _finite(file.get_tensor(name + SCALE), name + SCALE, path)
                        found = found.float() * scale.float().reshape(-1, *[1] * (found.dim() - 1))
                    tensor.copy_(found)
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


def _check_scale(path: Path, name: str, shape: tuple[int, ...], scale: tuple[int, ...]) -> None:
    if scale != shape[:1]:
        raise BundleError(f"'{path}' holds '{name}' of shape {shape} with scales of shape {scale}", mend=_AGAIN)


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
