"""Watch operators as they run: what each does, which storages come and go, and which are kept for backward."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from thrifty.cost.ops import (
    ALLOCATIONS,
    flops_of,
    has_formula,
    kind_of,
    tensors_in,
    traffic,
    unpriceable,
    written_in_place,
)
from thrifty.errors import JobError, ThriftyError

Phase = Literal["forward", "backward"]
Loss = Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, Any]]
_WAY_OUT = "Leave the prediction out and let a probe time real steps of it."


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


class Recorder(TorchDispatchMode):
    """Notes every operator that runs and every storage that comes and goes.

    Storages are numbered as they appear, since an address is used again once freed.
    """

    def __init__(self, path: ModulePath, known: list[Tensor]) -> None:
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
        if not has_formula(func) and _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        reason = unpriceable(func)
        if reason:
            raise self.path.error(str(func), reason)
        out = func(*args, **kwargs)
        self._note(func, args, kwargs, out)
        return out

    def _note(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        name = func.overloadpacket.__name__
        results = tensors_in(out)
        fresh = [tensor for tensor in results if self._is_new(tensor)]
        written = written_in_place(func, args, kwargs)
        if name in ALLOCATIONS or not (fresh or written):
            return
        inputs = tensors_in((args, kwargs))
        read_bytes, written_bytes = traffic(name, inputs, written, fresh)
        computed = next((t for t in [*inputs, *results] if t.is_floating_point()), (inputs + results)[0])
        self.ops.append(
            Op(
                name=name,
                kind=kind_of(func),
                phase=self.phase,
                flops=flops_of(func, args, kwargs, out),
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
        """Bytes of the storages kept for the backward pass, each once."""
        return sum(self.sizes[number] for number in self.saved)

    def peak_bytes(self, without: Set[int] = frozenset()) -> int:
        """The most that lived at once, replayed in order."""
        live = peak = 0
        for number, sign in self.events:
            if number not in without:
                live += sign * self.sizes[number]
                peak = max(peak, live)
        return peak


def record(
    path: ModulePath,
    model: nn.Module,
    loss: Loss,
    batch: dict[str, Tensor],
    precision: str,
) -> Recorder:
    """Run forward, loss and backward once under a recorder, on whatever tensors model and batch hold."""
    recorder = Recorder(path, [*model.parameters(), *model.buffers(), *batch.values()])
    with _errors_named(path), recorder:
        kept = torch.autograd.graph.saved_tensors_hooks(recorder.keep, lambda tensor: tensor)
        with kept, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            total, _ = loss(model, batch)
        recorder.phase = "backward"
        total.backward()
        recorder.note_gradients(model)
    return recorder


def record_forward(
    path: ModulePath, model: nn.Module, loss: Loss, batch: dict[str, Tensor], precision: str
) -> Recorder:
    """Run forward and loss once without gradients under a recorder, as a validation does."""
    recorder = Recorder(path, [*model.parameters(), *model.buffers(), *batch.values()])
    cast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with _errors_named(path), torch.no_grad(), recorder, cast:
        loss(model, batch)
    return recorder


class ModulePath:
    """Knows which module is running, so that an error can name it."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.stack: list[nn.Module] = []

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Follow every module's forward while this lasts."""
        before = nn.modules.module.register_module_forward_pre_hook(lambda module, _: self.stack.append(module))
        after = nn.modules.module.register_module_forward_hook(self._leave)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _leave(self, *_: Any) -> None:
        self.stack.pop()

    def name_modules(self, model: nn.Module) -> None:
        """Learn the names of a model's modules, for errors to come."""
        self.names = {id(module): name for name, module in model.named_modules()}

    def error(self, operator: str, reason: str) -> JobError:
        """Build the error for an operator that cannot be traced in the module that runs now."""
        module = self.stack[-1] if self.stack else None
        where = f"module '{self.names.get(id(module)) or type(module).__name__}'" if module else "the loss"
        return JobError(f"operator '{operator}' in {where} cannot be traced: {reason}", mend=_WAY_OUT)


@contextlib.contextmanager
def _errors_named(path: ModulePath) -> Iterator[None]:
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


def _shapes(tensors: list[Tensor]) -> str:
    return ",".join("x".join(map(str, tensor.shape)) or "1" for tensor in tensors[:4])
