"""Trace one training step on fake tensors: every operator with its FLOPs and bytes, and what memory it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from thrifty.cost.recorder import Loss, ModulePath, Op, record, record_forward
from thrifty.errors import JobError, nearest

Batch = dict[str, tuple[tuple[int, ...], str]]
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Trace:
    """What one micro-batch of training does and holds; all sizes in bytes.

    Attributes:
        ops: forward, loss and backward in order; the optimizer is not among them.
        memory_format: of images and convolution weights.
        parameters: count, each shared one once.
        parameter_tensors: number of tensors that are trained.
        parameter_bytes, gradient_bytes: of those, and of the gradients of those that are trained.
        buffer_bytes: other state of the model, such as running statistics.
        optimizer_bytes: states of the size of the trained parameters.
        input_bytes: the batch itself.
        activation_bytes: storage kept for the backward pass, parameters, buffers and inputs excluded.
        temporary_bytes: the most that lives at once beyond parameters, inputs, gradients and activations.
        live_peak_bytes: the most that lives at once of all that the step makes, gradients included.
        evaluation_bytes: the most that lives at once in a forward pass without gradients over the same batch.
    """

    ops: tuple[Op, ...] = field(repr=False)
    memory_format: str
    parameters: int
    parameter_tensors: int
    parameter_bytes: int
    gradient_bytes: int
    buffer_bytes: int
    optimizer_bytes: int
    input_bytes: int
    activation_bytes: int
    temporary_bytes: int
    live_peak_bytes: int
    evaluation_bytes: int

    @property
    def forward_flops(self) -> int:
        """FLOPs of forward pass and loss."""
        return sum(op.flops for op in self.ops if op.phase == "forward")

    @property
    def backward_flops(self) -> int:
        """FLOPs of the backward pass."""
        return sum(op.flops for op in self.ops if op.phase == "backward")


def trace_step(
    build: Callable[[], nn.Module],
    loss: Loss,
    batch: Batch,
    *,
    precision: Literal["fp32", "bf16"],
    states_per_parameter: int,
    memory_format: Literal["contiguous", "channels_last"] = "contiguous",
) -> Trace:
    """Trace forward, loss and backward of one micro-batch; nothing is computed and no tensor is allocated.

    Args:
        build: makes the model; it runs on fake tensors, so any size will do.
        loss: sum of losses and their weight, of model and batch.
        batch: shape and dtype name by key, such as ``{"x": ((8, 784), "float32")}``.
        precision: ``bf16`` is autocast over fp32 weights.
        states_per_parameter: optimizer states of the size of the parameters: 0 for SGD, 1 momentum, 2 Adam.
        memory_format: of images and convolution weights.

    Raises:
        JobError: an operator of the model cannot be traced or has no formula; names operator and module.

    >>> step = trace_step(
    ...     lambda: nn.Linear(4, 2),
    ...     lambda model, batch: (model(batch["x"]).sum(), 8),
    ...     {"x": ((8, 4), "float32")},
    ...     precision="fp32",
    ...     states_per_parameter=1,
    ... )
    >>> step.forward_flops, step.parameters, step.optimizer_bytes
    (128, 10, 40)
    """
    path = ModulePath()
    with FakeTensorMode(), path.followed():
        model = build().train()
        path.name_modules(model)
        if memory_format == "channels_last":
            _to_channels_last(model)
        tensors = {key: _fake(key, shape, dtype, memory_format) for key, (shape, dtype) in batch.items()}
        step = record(path, model, loss, tensors, precision)
        model.zero_grad(set_to_none=True)
        evaluation = record_forward(path, model.eval(), loss, tensors, precision)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradient_bytes = sum(_bytes(parameter) for parameter in trained)
    return Trace(
        ops=tuple(step.ops),
        memory_format=memory_format,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        parameter_tensors=len(trained),
        parameter_bytes=sum(_bytes(parameter) for parameter in model.parameters()),
        gradient_bytes=gradient_bytes,
        buffer_bytes=sum(_bytes(buffer) for buffer in model.buffers()),
        optimizer_bytes=states_per_parameter * gradient_bytes,
        input_bytes=sum(_bytes(tensor) for tensor in tensors.values()),
        activation_bytes=step.activation_bytes(),
        temporary_bytes=step.peak_bytes(without=step.saved | step.gradients),
        live_peak_bytes=step.peak_bytes(),
        evaluation_bytes=evaluation.peak_bytes(),
    )


def _fake(key: str, shape: tuple[int, ...], dtype: str, memory_format: str) -> Tensor:
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        names = [name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)]
        raise JobError(f"unknown dtype '{dtype}' of batch key '{key}'", nearest=nearest(dtype, names))
    tensor = torch.empty(shape, dtype=kind)
    return tensor.contiguous(memory_format=MEMORY_FORMATS[memory_format]) if len(shape) == 4 else tensor


def _to_channels_last(model: nn.Module) -> None:
    # `model.to` swaps the tensors of a parameter, which fake tensors refuse: they are held by weak references
    changed: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in module.named_parameters(recurse=False):
            if old.dim() == 4:
                new = nn.Parameter(old.detach().contiguous(memory_format=torch.channels_last), old.requires_grad)
                setattr(module, name, changed.setdefault(id(old), new))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
