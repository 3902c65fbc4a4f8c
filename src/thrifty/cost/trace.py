"""Trace one training step on fake tensors: every operator with its FLOPs and bytes, and what memory it holds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode, unset_fake_temporarily
from torch.optim import Optimizer

from thrifty.cost.allocations import Allocations
from thrifty.cost.ops import tensors_in
from thrifty.cost.recorder import Loss, ModulePath, Op, record, record_forward
from thrifty.errors import JobError, nearest
from thrifty.hardware.capture import Call, Key
from thrifty.models.precision import with_precision
from thrifty.spec import LoopPrecision
from thrifty.spec.device import KernelPoint

Batch = dict[str, tuple[tuple[int, ...], str]]
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Trace:
    """What one micro-batch of training does and holds; all sizes in bytes.

    Attributes:
        ops: forward, loss, backward, clipping and the optimizer's step, in order.
        step: the memory that a first step asks for; the optimizer's states are made in it.
        evaluation: the memory that a forward pass without gradients over the same batch asks for.
        memory_format: of images and convolution weights.
        parameters: count, each shared one once.
        parameter_tensors: number of tensors that are trained.
        parameter_sizes: of each parameter and buffer, in the order they are made.
        parameter_bytes, gradient_bytes: of the parameters, and of the gradients of those that are trained.
        buffer_bytes: other state of the model, such as running statistics.
        input_bytes: the batch itself.
        calls: one of each kind of operator, with blanks for its tensors, to ask a device about it.
        timed: what a device said of them (`thrifty.cost.asked`).
        workspace_bytes: that a GPU's libraries keep for themselves.
        early_state_bytes: states that the optimizer made before its first step.
        releases: parameters are stepped in the backward pass, and gradients of the whole model never lie in memory.
    """

    ops: tuple[Op, ...] = field(repr=False)
    step: Allocations = field(repr=False)
    evaluation: Allocations = field(repr=False)
    memory_format: str
    parameters: int
    parameter_tensors: int
    parameter_sizes: tuple[int, ...] = field(repr=False)
    parameter_bytes: int
    gradient_bytes: int
    buffer_bytes: int
    input_bytes: int
    calls: dict[Key, Call] = field(default_factory=dict, repr=False)
    timed: dict[Key, KernelPoint] = field(default_factory=dict, repr=False)
    workspace_bytes: int = 0
    early_state_bytes: int = 0
    releases: bool = False

    @property
    def forward_flops(self) -> int:
        """FLOPs of forward pass and loss."""
        return sum(op.flops for op in self.ops if op.phase == "forward")

    @property
    def backward_flops(self) -> int:
        """FLOPs of the backward pass, what it computes again included."""
        return sum(op.flops for op in self.ops if op.phase in {"backward", "recompute"})

    @property
    def optimizer_bytes(self) -> int:
        """States of the optimizer."""
        return self.early_state_bytes + self.step.bytes_of("state")

    @cached_property
    def activation_bytes(self) -> int:
        """Kept for the backward pass; parameters, buffers and inputs excluded."""
        return self.step.kept_bytes()

    @cached_property
    def temporary_bytes(self) -> int:
        """The most that lives at once beyond parameters, inputs, gradients, states and activations."""
        return self.step.peak_bytes(lambda block: block.holds == "temporaries")

    @cached_property
    def live_peak_bytes(self) -> int:
        """The most that lives at once of all that a step makes, gradients included, states of the optimizer not."""
        return self.step.peak_bytes(lambda block: block.role != "state")

    @cached_property
    def evaluation_bytes(self) -> int:
        """The most that lives at once in a forward pass without gradients over the same batch."""
        return self.evaluation.peak_bytes()


def trace_step(
    build: Callable[[], nn.Module],
    loss: Loss,
    batch: Batch,
    *,
    precision: LoopPrecision,
    optimizer: Callable[[nn.Module], Optimizer],
    clip: bool = True,
    memory_format: Literal["contiguous", "channels_last"] = "contiguous",
    device: Literal["cpu", "cuda"] = "cpu",
    accumulating: bool = False,
    release: bool = False,
) -> Trace:
    """Trace one optimizer step over one micro-batch; of the step nothing is computed, and no tensor is allocated.

    Args:
        build: makes the model; it runs on fake tensors, so any size will do.
        loss: sum of losses and their weight, of model and batch.
        batch: shape and dtype name by key, such as ``{"x": ((8, 784), "float32")}``.
        precision: as in a `Plan`; ``fp8`` is traced as ``bf16``, whose operators are the same in number.
        optimizer: makes the optimizer of a model; see `thrifty.optim.by_name`.
        clip: the norm of the gradients is clipped.
        memory_format: of images and convolution weights.
        device: whose operators run.
        accumulating: a step has several micro-batches.
        release: parameters are stepped in the backward pass, as `thrifty.optim.release` does.

    Raises:
        JobError: an operator of the model cannot be traced or has no formula; names operator and module.

    >>> step = trace_step(
    ...     lambda: nn.Linear(4, 2),
    ...     lambda model, batch: (model(batch["x"]).sum(), 8),
    ...     {"x": ((8, 4), "float32")},
    ...     precision="fp32",
    ...     optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    ... )
    >>> step.forward_flops, step.parameters, step.optimizer_bytes
    (128, 10, 40)
    """
    path = ModulePath()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, path.followed():
        model = _build(build, mode).train()
        if device != "cpu":
            change_tensors(model, lambda tensor: tensor.to(device))
        path.name_modules(model)
        if memory_format == "channels_last":
            change_tensors(model, _rows_of_channels)
        precision = "bf16" if precision == "fp8" else precision
        with_precision(model, precision, accumulating=accumulating)
        tensors = {key: _fake(key, shape, dtype, memory_format, device) for key, (shape, dtype) in batch.items()}
        stepper = optimizer(model)
        early_states = tensors_in(list(stepper.state.values()))
        step = record(path, model, loss, tensors, precision, stepper, clip, device, release)
        evaluation = record_forward(path, model.eval(), loss, tensors, precision, device)
    ops, allocations = step.finished()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    held = [*model.parameters(), *model.buffers()]
    return Trace(
        ops=ops,
        step=allocations,
        evaluation=evaluation.finished()[1],
        memory_format=memory_format,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        parameter_tensors=len(trained),
        parameter_sizes=tuple(_bytes(tensor) for tensor in held),
        parameter_bytes=sum(_bytes(parameter) for parameter in model.parameters()),
        gradient_bytes=sum(parameter.numel() * _gradient_width(parameter) for parameter in trained),
        buffer_bytes=sum(_bytes(buffer) for buffer in model.buffers()),
        input_bytes=sum(_bytes(tensor) for tensor in tensors.values()),
        calls=step.calls,
        early_state_bytes=sum(_bytes(state) for state in early_states),
        releases=release,
    )


def _build(build: Callable[[], nn.Module], mode: FakeTensorMode) -> nn.Module:
    """Build on fake tensors; a model that looks at values while it is built, for real, and its tensors made fake."""
    with warnings.catch_warnings():
        # torch looks where they lie when it copies them, as its own stacks of layers do
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor", UserWarning)
        try:
            return build()
        except DataDependentOutputException:
            pass
    with unset_fake_temporarily():
        model = build()
    change_tensors(model, mode.from_tensor)
    return model


def _fake(key: str, shape: tuple[int, ...], dtype: str, memory_format: str, device: str) -> Tensor:
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        names = [name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)]
        raise JobError(f"unknown dtype '{dtype}' of batch key '{key}'", nearest=nearest(dtype, names))
    tensor = torch.empty(shape, dtype=kind, device=device)
    return tensor.contiguous(memory_format=MEMORY_FORMATS[memory_format]) if len(shape) == 4 else tensor


def _rows_of_channels(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def change_tensors(model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Put changed tensors for a model's parameters and buffers; parameters that are shared stay so.

    `model.to` swaps the tensor of a parameter, which fake tensors refuse: they are held by weak references.
    """
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in list(module.named_parameters(recurse=False)):
            if id(old) not in made:
                made[id(old)] = nn.Parameter(change(old.detach()), old.requires_grad)
            setattr(module, name, made[id(old)])
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = change(buffer)


def _gradient_width(parameter: nn.Parameter) -> int:
    """Bytes of each number of a gradient."""
    dtype: torch.dtype = parameter.grad_dtype or parameter.dtype
    return dtype.itemsize


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
