"""Watch operators as they run: what each does, which storages come and go, and which are kept for backward."""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Literal

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from thrifty.cost.allocations import Allocations, Block
from thrifty.cost.ops import (
    ALLOCATIONS,
    flops_of,
    has_formula,
    kind_of,
    tensors_in,
    touched_bytes,
    traffic,
    unpriceable,
    written_in_place,
)
from thrifty.cost.scratch import cudnn_rnn
from thrifty.errors import JobError, ThriftyError
from thrifty.hardware.capture import Call, Key, blank
from thrifty.hardware.signature import dtype_of, layouts_of, note_of, shapes_of
from thrifty.models.precision import autocasting
from thrifty.optim.release import Release

Phase = Literal["forward", "backward", "recompute", "clip", "optimizer"]
Loss = Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, Any]]
# of torch's own, between a mode and the next
_FRAMES = 5
_WAY_OUT = "Leave the prediction out and let a probe time real steps of it."


@dataclass(frozen=True)
class Op:
    """One operator of the step.

    Attributes:
        name: of torch's operator, such as ``addmm``.
        kind: how its time is priced: ``matmul``, ``convolution``, ``pointwise``, …
        phase: ``forward`` (the loss included), ``backward``, ``recompute`` (what checkpointing computes again in the
            backward pass), ``clip`` or ``optimizer``.
        flops: of matrix products, convolutions and attention; a multiply-add counts two. 0 for all other operators,
            which their traffic bounds.
        bytes_read, bytes_written: each element once; views and aliases cost nothing.
        dtype: that it computes in.
        shapes: of tensor arguments and results, such as ``8x4,4x2->8x2``.
        module: path of the module that called it, such as ``h.3.attn``; empty for the loss and what follows it.
        bytes_kept: of its results, those that the backward pass needs.
        layouts: how its tensors lie in memory, as `thrifty.hardware.signature` writes it.
        tensors: among its arguments.
        entered: modules whose forward began since the operator before; each costs the host time.
        watched: by what Python code looks at it as it runs, which costs the host time: ``hooks`` of saved tensors, as
            checkpointing sets them, ``selective`` checkpointing, or nothing.
        touched: number and bytes of each block of memory that it reads or writes, as `Allocations` counts them;
            parameters, buffers and inputs count down from -1.
    """

    name: str
    kind: str
    phase: Phase
    flops: int
    bytes_read: int
    bytes_written: int
    dtype: str
    shapes: str
    module: str = ""
    bytes_kept: int = 0
    layouts: str = ""
    tensors: int = 0
    entered: int = 0
    watched: str = ""
    touched: tuple[tuple[int, int], ...] = ()

    @property
    def key(self) -> Key:
        """What tells its kind from others."""
        return Key(self.name, self.dtype, self.shapes, self.layouts)

    @property
    def moved_bytes(self) -> int:
        """Bytes read and written."""
        return self.bytes_read + self.bytes_written


class Recorder(TorchDispatchMode):
    """Notes every operator that runs and every block of memory that comes and goes.

    Blocks are numbered as they appear, since an address is used again once freed. Events are pairs of a block's number
    and the operator's index, the index negated and less one where the block was freed. A call of each kind is kept,
    with blanks for its tensors, to time it on the device.
    """

    def __init__(self, path: ModulePath, known: list[Tensor]) -> None:
        super().__init__()
        self.path = path
        self.ops: list[Op] = []
        self.phase: Phase = "forward"
        self.blocks: list[Block] = []
        self.events: list[tuple[int, int]] = []
        self._numbers: dict[int, int] = {}
        self._watched: dict[int, weakref.ref[Any]] = {}
        outside = dict.fromkeys(tensor.untyped_storage()._cdata for tensor in known)
        self._outside = {address: -1 - index for index, address in enumerate(outside)}
        self._callers: dict[int, str] = {}
        self.calls: dict[Key, Call] = {}
        self._unfilled: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace in {"prim", "profiler"}:
            return func(*args, **kwargs)
        if not has_formula(func) and _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        phase, module = self._where()
        watched = _watcher(sys._getframe(1))
        reason = unpriceable(func)
        if reason:
            raise self.path.error(str(func), reason)
        out = _run(func, args, kwargs)
        self._note(func, args, kwargs, out, phase, module, watched)
        return out

    def _where(self) -> tuple[Phase, str]:
        """The phase and the module that runs: in the backward pass that of the forward operator it answers."""
        if self.phase == "forward":
            module = self.path.current()
            # autograd numbers its nodes as the operators come; this one's was made just now
            self._callers[torch._C._autograd._get_sequence_nr() - 1] = module
            return "forward", module
        if self.phase != "backward":
            return self.phase, ""
        if self.path.stack:
            module = self.path.current()
            self._callers[torch._C._autograd._get_sequence_nr() - 1] = module
            return "recompute", module
        node = torch._C._current_autograd_node()
        return "backward", self._callers.get(node._sequence_nr(), "") if node is not None else ""

    def _note(self, func: Any, args: Any, kwargs: Any, out: Any, phase: Phase, module: str, watched: str) -> None:
        name = func.overloadpacket.__name__
        # cuDNN's packed weights are the weights themselves
        results = tensors_in(out)[:4] if name == "_cudnn_rnn" else tensors_in(out)
        before = len(self.blocks)
        fresh = [tensor for tensor in results if self._is_new(tensor)]
        if name in ALLOCATIONS:
            self._unfilled |= set(range(before, len(self.blocks)))
        written = written_in_place(func, args, kwargs)
        if name in ALLOCATIONS or not (fresh or written):
            return
        inputs = tensors_in((args, kwargs))
        read_bytes, written_bytes = traffic(name, inputs, written, fresh)
        key = Key(
            name,
            dtype_of(inputs, results),
            shapes_of(inputs, results),
            layouts_of(inputs, results, note_of(func, args, kwargs)),
        )
        if key not in self.calls:
            self.calls[key] = Call(func, blank(args), blank(kwargs), len(inputs), read_bytes + written_bytes)
        self.ops.append(
            Op(
                name=name,
                kind=kind_of(func),
                phase=phase,
                flops=flops_of(func, args, kwargs, out),
                bytes_read=read_bytes,
                bytes_written=written_bytes,
                dtype=key.dtype,
                shapes=key.shapes,
                module=module,
                layouts=key.layouts,
                tensors=len(inputs),
                entered=self.path.entered_since(),
                watched=watched,
                touched=self._touched(inputs, results),
            )
        )

    def _touched(self, inputs: list[Tensor], results: list[Tensor]) -> tuple[tuple[int, int], ...]:
        touched: dict[int, int] = {}
        for tensor in (*inputs, *results):
            address = tensor.untyped_storage()._cdata
            number = self._outside.get(address, self._numbers.get(address, 0))
            touched[number] = max(touched.get(number, 0), touched_bytes(tensor))
        return tuple(touched.items())

    def _is_new(self, tensor: Tensor) -> bool:
        """Number a storage seen for the first time, and learn when it dies."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._outside or address in self._numbers:
            return False
        number = len(self.blocks)
        self.blocks.append(Block(storage.nbytes(), len(self.ops)))
        self._numbers[address] = number
        self.events.append((number, len(self.ops)))
        self._watched[number] = weakref.ref(storage, lambda _: self._freed(address, number))
        return True

    def _freed(self, address: int, number: int) -> None:
        self.events.append((number, -len(self.ops) - 1))
        del self._watched[number]
        if self._numbers.get(address) == number:
            del self._numbers[address]

    def note_kept(self) -> None:
        """Note that what lives now, between the passes, is kept for the backward pass."""
        for number in self._watched:
            self.blocks[number].kept = True

    def note_roles(self, model: nn.Module, optimizer: Optimizer | None = None) -> None:
        """Note which blocks hold gradients, and which the optimizer's states."""
        self.note_gradients(model.parameters())
        for states in optimizer.state.values() if optimizer is not None else ():
            for state in tensors_in(states):
                self._name(state, "state")

    def note_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Note which blocks hold gradients of some parameters."""
        for parameter in parameters:
            if parameter.grad is not None:
                self._name(parameter.grad, "gradient")

    def _name(self, tensor: Tensor, role: Literal["gradient", "state"]) -> None:
        block = self._block(tensor)
        if block is not None:
            block.role = role

    def _block(self, tensor: Tensor) -> Block | None:
        number = self._numbers.get(tensor.untyped_storage()._cdata)
        return None if number is None else self.blocks[number]

    def finished(self) -> tuple[tuple[Op, ...], Allocations]:
        """The operators of a steady step, each with what it leaves for the backward pass, and the memory of the first.

        Operators that make the optimizer's states run once, and are left out; blocks and events count without them.
        """
        kept: Counter[int] = Counter()
        states = set()
        for number, block in enumerate(self.blocks):
            if block.kept:
                kept[block.op] += block.bytes
            # what was reserved alone counts at the next operator, which is another's work
            if block.role == "state" and number not in self._unfilled:
                states.add(block.op)
        ops: list[Op] = []
        place = []
        for index, op in enumerate(self.ops):
            place.append(len(ops))
            if not (op.phase == "optimizer" and index in states):
                ops.append(replace(op, bytes_kept=kept[index]) if kept[index] else op)
        place.append(len(ops))
        blocks = tuple(replace(block, op=place[block.op]) for block in self.blocks)
        events = tuple((number, place[op] if op >= 0 else -place[-op - 1] - 1) for number, op in self.events)
        return tuple(ops), Allocations(blocks, events)


def record(
    path: ModulePath,
    model: nn.Module,
    loss: Loss,
    batch: dict[str, Tensor],
    precision: str,
    optimizer: Optimizer | None = None,
    clip: bool = False,
    device: str = "cpu",
    release: bool = False,
) -> Recorder:
    """Run one whole step under a recorder, on whatever tensors model and batch hold.

    Forward, loss, backward, and where there is an optimizer clipping, its step, and letting the gradients go; with
    ``release`` the last two are within the backward pass.
    """
    states = tensors_in(list(optimizer.state.values())) if optimizer is not None else []
    recorder = Recorder(path, [*model.parameters(), *model.buffers(), *batch.values(), *states])
    with _errors_named(path), recorder:
        with autocasting(device, precision):
            total, _ = loss(model, batch)
        recorder.note_kept()
        recorder.phase = "backward"
        if release and optimizer is not None:
            _release(recorder, total, optimizer)
            recorder.note_roles(model, optimizer)
            return recorder
        total.backward()
        del total
        recorder.note_roles(model)
        if clip:
            recorder.phase = "clip"
            # left to itself it would take fake tensors one by one, and real ones all at once
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True if device != "cpu" else None)
        if optimizer is not None:
            recorder.phase = "optimizer"
            optimizer.step()
            recorder.note_roles(model, optimizer)
            optimizer.zero_grad(set_to_none=True)
    return recorder


def _release(recorder: Recorder, total: Tensor, optimizer: Optimizer) -> None:
    """Take the backward pass with the optimizer's step in it."""

    @contextlib.contextmanager
    def stepping(parameters: Iterable[Tensor]) -> Iterator[None]:
        recorder.note_gradients(parameters)
        recorder.phase = "optimizer"
        yield
        recorder.phase = "backward"

    Release(optimizer, stepping).backward(total, 1.0, rate=1e-3)


def record_forward(
    path: ModulePath, model: nn.Module, loss: Loss, batch: dict[str, Tensor], precision: str, device: str = "cpu"
) -> Recorder:
    """Run forward and loss once without gradients under a recorder, as a validation does."""
    recorder = Recorder(path, [*model.parameters(), *model.buffers(), *batch.values()])
    cast = autocasting(device, precision)
    with _errors_named(path), torch.no_grad(), recorder, cast:
        loss(model, batch)
    return recorder


class ModulePath:
    """Knows which module is running, so that an error can name it."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.stack: list[nn.Module] = []
        self.last: nn.Module | None = None
        self._entered = 0

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Follow every module's forward while this lasts."""
        before = nn.modules.module.register_module_forward_pre_hook(self._enter)
        after = nn.modules.module.register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def entered_since(self) -> int:
        """Count the modules whose forward began since this was asked last."""
        count, self._entered = self._entered, 0
        return count

    def _enter(self, module: nn.Module, _: Any) -> None:
        self.stack.append(module)
        self._entered += 1

    def _leave(self, *_: Any) -> None:
        self.stack.pop()

    def current(self) -> str:
        """Path of the module that runs now, which is remembered for errors; its class where it is the model itself.

        Empty outside of the model.
        """
        self.last = self.stack[-1] if self.stack else None
        if not self.stack:
            return ""
        return self.names.get(id(self.stack[-1])) or type(self.stack[-1]).__name__

    def name_modules(self, model: nn.Module) -> None:
        """Learn the names of a model's modules, for errors to come."""
        self.names = {id(module): name for name, module in model.named_modules()}

    def error(self, operator: str, reason: str) -> JobError:
        """Build the error for an operator that cannot be traced in the module that ran last."""
        module = self.last
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


@functools.cache
def _is_composite(func: Any) -> bool:
    """Whether an operator is defined through others alone; without gradients such a one may arrive whole."""
    keys, has = torch._C.DispatchKey, torch._C._dispatch_has_kernel_for_dispatch_key
    own = has(func.name(), keys.CPU.name)
    return func.namespace == "aten" and not own and has(func.name(), keys.CompositeImplicitAutograd.name)


def _watcher(frame: FrameType) -> Literal["", "hooks", "selective"]:
    """What Python code looks at an operator, from the frame that it was called in; see `Op.watched`."""
    caller: FrameType | None = frame
    for _ in range(_FRAMES):
        if caller is not None and caller.f_code.co_name == "__torch_dispatch__":
            if caller.f_code.co_filename == torch.utils.checkpoint.__file__:
                return "selective"
            break
        caller = caller.f_back if caller is not None else None
    return "hooks" if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None else ""


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operator; where what it gives depends on values, or on what fake tensors cannot know, give its usual."""
    if func is torch.ops.aten.rand.default and not args[0]:
        # a draw that decides about a layer, compared with its rate: the middle one
        return torch.tensor(0.5)
    if func is torch.ops.aten._cudnn_rnn.default:
        return cudnn_rnn(func, args, kwargs)
    return func(*args, **kwargs)
