"""Trace one training step on fake tensors: every operator with its FLOPs and bytes, and what memory it holds."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from thrifty.cost import ops as operators
from thrifty.errors import JobError, ThriftyError, nearest

Phase = Literal["forward", "backward"]
Batch = dict[str, tuple[tuple[int, ...], str]]
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_WAY_OUT = "Let a measured probe price it: leave the prediction out and time real steps."


@dataclass(frozen=True)
class Op:
    """One operator of the step.

    Attributes:
        name: of torch's operator, such as ``addmm``.
        kind: how its time is priced: ``matmul``, ``convolution``, ``pointwise``, …
        phase: ``forward`` (the loss included) or ``backward``.
        flops: of matrix products, convolutions and attention; a multiply-add counts two. 0 for all other operators,
            which their traffic bounds.
        bytes_read, bytes_written: each element once; views and aliases cost nothing.
        dtype: that it computes in.
        shapes: of tensor arguments and results, such as ``8x4,4x2->8x2``.
    """

    name: str
    kind: str
    phase: Phase
    flops: int
    bytes_read: int
    bytes_written: int
    dtype: str
    shapes: str


@dataclass(frozen=True)
class Trace:
    """What one micro-batch of training does and holds; all sizes in bytes.

    Attributes:
        ops: forward, loss and backward in order; the optimizer is not among them.
        parameters: count, each shared one once.
        parameter_bytes, gradient_bytes: of those, and of the gradients of those that are trained.
        buffer_bytes: other state of the model, such as running statistics.
        optimizer_bytes: states of the size of the trained parameters.
        input_bytes: the batch itself.
        activation_bytes: storage kept for the backward pass, parameters, buffers and inputs excluded.
        temporary_bytes: the most that lives at once beyond parameters, inputs, gradients and activations.
        live_peak_bytes: the most that lives at once of all that the step makes, gradients included.
        largest_parameter_bytes: of one tensor; what an optimizer's own temporaries are made of.
        workspace_bytes: arguments and results of the largest convolution or product, which the kernel library
            may hold once more in a layout of its own.
        evaluation_bytes: the most that lives at once in a forward pass without gradients over the same batch.
    """

    ops: tuple[Op, ...] = field(repr=False)
    parameters: int
    parameter_bytes: int
    gradient_bytes: int
    buffer_bytes: int
    optimizer_bytes: int
    input_bytes: int
    activation_bytes: int
    temporary_bytes: int
    live_peak_bytes: int
    largest_parameter_bytes: int
    workspace_bytes: int
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
    loss: Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, Any]],
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
    path = _ModulePath()
    with FakeTensorMode(), path.followed():
        model = build().train()
        path.name_modules(model)
        if memory_format == "channels_last":
            _to_channels_last(model)
        tensors = {key: _fake(key, shape, dtype, memory_format) for key, (shape, dtype) in batch.items()}
        step = record(path, model, loss, tensors, precision)
        model.zero_grad(set_to_none=True)
        evaluation = _forward_only(path, model.eval(), loss, tensors, precision)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradient_bytes = sum(_bytes(parameter) for parameter in trained)
    kept = [op for op in step.ops if op.flops]
    return Trace(
        ops=tuple(step.ops),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        parameter_bytes=sum(_bytes(parameter) for parameter in model.parameters()),
        gradient_bytes=gradient_bytes,
        buffer_bytes=sum(_bytes(buffer) for buffer in model.buffers()),
        optimizer_bytes=states_per_parameter * gradient_bytes,
        input_bytes=sum(_bytes(tensor) for tensor in tensors.values()),
        activation_bytes=step.activation_bytes(),
        temporary_bytes=step.peak_bytes(without=step.saved | step.gradients),
        live_peak_bytes=step.peak_bytes(),
        largest_parameter_bytes=max((_bytes(parameter) for parameter in trained), default=0),
        workspace_bytes=max((op.bytes_read + op.bytes_written for op in kept), default=0),
        evaluation_bytes=evaluation.peak_bytes(),
    )


class _Recorder(TorchDispatchMode):
    """Notes every operator that runs and every storage that comes and goes.

    Storages are numbered as they appear, since an address is used again once freed.
    """

    def __init__(self, path: _ModulePath, known: list[Tensor]) -> None:
        super().__init__()
        self.path = path
        self.ops: list[Op] = []
        self.phase: Phase = "forward"
        self.events: list[tuple[int, int]] = []
        self.sizes: dict[int, int] = {}
        self.saved: set[int] = set()
        self.gradients: set[int] = set()
        self._numbers: dict[int, int] = {}
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._outside = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not operators.has_formula(func) and _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        reason = operators.unpriceable(func)
        if reason:
            raise self.path.error(str(func), reason)
        out = func(*args, **kwargs)
        self._note(func, args, kwargs, out)
        return out

    def _note(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        name = func.overloadpacket.__name__
        results = operators.tensors_in(out)
        fresh = [tensor for tensor in results if self._is_new(tensor)]
        written = operators.written_in_place(func, args, kwargs)
        if name in operators.ALLOCATIONS or not (fresh or written):
            return
        inputs = operators.tensors_in((args, kwargs))
        read_bytes, written_bytes = operators.traffic(name, inputs, written, fresh)
        computed = next((t for t in [*inputs, *results] if t.is_floating_point()), (inputs + results)[0])
        self.ops.append(
            Op(
                name=name,
                kind=operators.kind_of(func),
                phase=self.phase,
                flops=operators.flops_of(func, args, kwargs, out),
                bytes_read=read_bytes,
                bytes_written=written_bytes,
                dtype=str(computed.dtype).removeprefix("torch."),
                shapes=f"{_shapes(inputs)}->{_shapes(results)}",
            )
        )

    def _is_new(self, tensor: Tensor) -> bool:
        """Number a storage seen for the first time, and learn when it dies."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._outside or address in self._numbers:
            return False
        number = len(self.sizes)
        self.sizes[number] = storage.nbytes()
        self._numbers[address] = number
        self.events.append((number, 1))
        self._watched[number] = weakref.ref(storage, lambda _: self._freed(address, number))
        return True

    def _freed(self, address: int, number: int) -> None:
        self.events.append((number, -1))
        del self._watched[number]
        if self._numbers.get(address) == number:
            del self._numbers[address]

    def keep(self, tensor: Tensor) -> Tensor:
        """Note that a tensor is kept for the backward pass; a hook of `saved_tensors_hooks`."""
        number = self._numbers.get(tensor.untyped_storage()._cdata)
        if number is not None:
            self.saved.add(number)
        return tensor

    def note_gradients(self, model: nn.Module) -> None:
        """Note which storages the gradients lie in."""
        for parameter in model.parameters():
            if parameter.grad is not None:
                self.gradients.add(self._numbers[parameter.grad.untyped_storage()._cdata])

    def activation_bytes(self) -> int:
        return sum(self.sizes[number] for number in self.saved)

    def peak_bytes(self, without: set[int] = frozenset()) -> int:  # type: ignore[assignment]
        """The most that lived at once, replayed in order."""
        live = peak = 0
        for number, sign in self.events:
            if number not in without:
                live += sign * self.sizes[number]
                peak = max(peak, live)
        return peak


def record(
    path: _ModulePath,
    model: nn.Module,
    loss: Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, Any]],
    batch: dict[str, Tensor],
    precision: str,
) -> _Recorder:
    """Run forward, loss and backward once under a recorder, on whatever tensors model and batch hold."""
    recorder = _Recorder(path, [*model.parameters(), *model.buffers(), *batch.values()])
    with _errors_named(path), recorder:
        with torch.autograd.graph.saved_tensors_hooks(recorder.keep, lambda tensor: tensor):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                total, _ = loss(model, batch)
        recorder.phase = "backward"
        total.backward()
        recorder.note_gradients(model)
    return recorder


def _forward_only(
    path: _ModulePath, model: nn.Module, loss: Callable[..., Any], batch: dict[str, Tensor], precision: str
) -> _Recorder:
    recorder = _Recorder(path, [*model.parameters(), *model.buffers(), *batch.values()])
    with _errors_named(path), torch.no_grad(), recorder:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss(model, batch)
    return recorder


class _ModulePath:
    """Knows which module is running, so that an error can name it."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.stack: list[nn.Module] = []

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Follow every module's forward while this lasts."""
        before = nn.modules.module.register_module_forward_pre_hook(lambda module, _: self.stack.append(module))
        after = nn.modules.module.register_module_forward_hook(lambda *_: None if self.stack.pop() else None)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def name_modules(self, model: nn.Module) -> None:
        self.names = {id(module): name for name, module in model.named_modules()}

    def error(self, operator: str, reason: str) -> JobError:
        module = self.stack[-1] if self.stack else None
        where = f"module '{self.names.get(id(module)) or type(module).__name__}'" if module else "the loss"
        return JobError(f"operator '{operator}' in {where} cannot be traced: {reason}", mend=_WAY_OUT)


@contextlib.contextmanager
def _errors_named(path: _ModulePath) -> Iterator[None]:
    """Turn what fake tensors cannot do into an error that names operator and module."""
    try:
        yield
    except ThriftyError:
        raise
    except Exception as error:
        func = getattr(error, "func", None)
        said = " ".join(str(error).split())
        raise path.error(str(func or type(error).__name__), said[:300] or "fake tensors cannot run it") from error


def _is_composite(func: Any) -> bool:
    """Whether an operator is defined through others; without gradients such a one may arrive whole."""
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return func.namespace == "aten" and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key.name)


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


def _shapes(tensors: list[Tensor]) -> str:
    return ",".join("x".join(map(str, tensor.shape)) or "1" for tensor in tensors[:4])
