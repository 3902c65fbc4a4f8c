"""Memory of a device that trains a copy of a traced model, or its share of one: what a step holds, ZeRO, buffers.

The peak of one device alone is that of `thrifty.cost.memory.peak_bytes`. What several share out is taken from it, and
what they need to talk to each other added, at the instant of the step when most is alive.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thrifty.cost.cuda_allocator import round_bytes
from thrifty.cost.device_overhead import context_bytes
from thrifty.cost.memory import peak_bytes
from thrifty.cost.trace import Trace
from thrifty.spec import DeviceKind, Interval, Layout
from thrifty.spec.units import format_bytes

MIB = 1 << 20
# bitsandbytes keeps an fp32 scale for each 256 states of 8 bits (arXiv 2110.02861)
_SCALE_BYTES = 4 / 256
# Of a parameter whose states lie in host memory: fp32 weight and two states (Ren et al. 2021, section 3).
HOST_BYTES = 12.0
# cuDNN takes workspace for convolutions that no trace shows, as much as its heuristics like. Assumed: low, value, high.
_CONVOLUTION_WORKSPACE = (0, 64 * MIB, 512 * MIB)


@dataclass(frozen=True)
class Units:
    """What ZeRO gathers and reduces at once, in bytes of weights.

    Attributes:
        largest: block, as FSDP wraps them.
        rest: outside of all blocks, which stays whole while a step runs.
    """

    largest: float
    rest: float = 0.0


@dataclass(frozen=True)
class ReplicaMemory:
    """Bytes of one device.

    Attributes:
        holds: at the peak, by what holds them.
        host: in the node's memory, for this device, when states are offloaded.
        total: needed on the device, context and communicators included.
    """

    holds: dict[str, float]
    host: float
    total: Interval


class StepMemory:
    """What a traced micro-batch holds at each instant, to be shared out in many ways at little cost.

    Args:
        trace: of one micro-batch.
        kind: of the device; on a CPU the process's memory is meant, elsewhere the device's.
        units: of the model.
    """

    def __init__(self, trace: Trace, kind: DeviceKind, units: Units) -> None:
        self.trace, self.kind, self.units = trace, kind, units
        self.alone = functools.cache(self._alone)
        self._activations, self._temporaries, self._gradients, self._made = self._curves()
        self._nothing = np.zeros_like(self._made)

    def held(self, layout: Layout) -> ReplicaMemory:
        """Predict what a device holds.

        With ``n`` data-parallel devices, optimizer states are ``1 / n`` from ZeRO 1 on, gradients from 2, weights from
        3. Gradients that are summed over devices, or over micro-batches, live through the whole step: in the buckets of
        ``DistributedDataParallel``, or as shares with one block's whole beside them (ZeRO 2). ZeRO 3 has two blocks'
        weights whole at once, the one at hand and the next, and those outside of all blocks (Zhao et al. 2023).

        Args:
            layout: its data, zero, accumulation, state_bytes and offload are read.
        """
        trace, summed = self.trace, layout.accumulation > 1
        before, _ = self._fullest(1, 0, summed, float(trace.optimizer_bytes), {})
        states, host = self._states(layout)
        buffers = self._buffers(layout)
        peak, holds = self._fullest(layout.data, layout.zero, summed or layout.data > 1, states, buffers)
        alone = self.alone(summed)
        low, value, high = (bound + peak - before for bound in (alone.low, alone.value, alone.high))
        if self.kind != "cpu":
            context = context_bytes(self.kind, Layout(data=layout.data))
            space = _CONVOLUTION_WORKSPACE if self._convolves and self.kind == "cuda" else (0, 0, 0)
            low, value, high = (
                low + context.low + space[0],
                value + context.value + space[1],
                high + context.high + space[2],
            )
            holds["driver and libraries"] = context.value + space[1]
        holds["holes and workspace" if self.kind != "cpu" else "libraries and the heap"] = value - sum(holds.values())
        shared = f", shared out over {layout.data} by ZeRO-{layout.zero}" if layout.zero else ""
        return ReplicaMemory(
            holds={name: size for name, size in holds.items() if size > 0},
            host=host,
            total=Interval(
                low=max(0.0, min(low, value)),
                value=value,
                high=max(high, value),
                method=f"{format_bytes(peak)} alive at the peak of a step{shared}; {alone.method}",
            ),
        )

    def _alone(self, summed: bool) -> Interval:
        return peak_bytes(self.trace, accumulation=2 if summed else 1, device_kind=self.kind)

    @functools.cached_property
    def _convolves(self) -> bool:
        return any(op.kind == "convolution" for op in self.trace.ops)

    def _states(self, layout: Layout) -> tuple[float, float]:
        """Bytes of optimizer states on the device, and on its host."""
        share = layout.data if layout.zero else 1
        if layout.offload:
            return 0.0, HOST_BYTES * self.trace.parameters / share
        smaller = layout.state_bytes / 4 + (_SCALE_BYTES / 4 if layout.state_bytes == 1 else 0.0)
        return self.trace.optimizer_bytes * smaller / share, 0.0

    def _buffers(self, layout: Layout) -> dict[str, float]:
        whole = float(self.trace.parameter_bytes)
        found = {}
        if layout.zero == 3:
            found["gathered weights"] = min(whole, 2 * self.units.largest + self.units.rest)
        if layout.zero >= 2:
            found["gradients to be shared out"] = min(whole, self.units.largest)
        return found

    def _fullest(
        self, data: int, zero: int, summed: bool, states: float, buffers: dict[str, float]
    ) -> tuple[float, dict[str, float]]:
        """Bytes at the fullest instant of a step, and by what holds them; of what is alive alone."""
        trace = self.trace
        steady = {
            "weights": (trace.parameter_bytes / data if zero == 3 else trace.parameter_bytes) + trace.buffer_bytes,
            "gradients": trace.gradient_bytes / (data if zero >= 2 else 1) if summed else 0.0,
            "optimizer states": states,
            "inputs": float(trace.input_bytes),
            **buffers,
        }
        # a gradient that is added to a sum lives while it is added, if not in a buffer to be shared out
        gradients = self._nothing if zero >= 2 else self._made if summed else self._gradients
        line = self._activations + self._temporaries + gradients
        at = int(np.argmax(line))
        moving = {
            "activations": float(self._activations[at]),
            "temporaries": float(self._temporaries[at]),
            "gradients": steady["gradients"] + float(gradients[at]),
        }
        return sum(steady.values()) + float(line[at]), {**steady, **moving}

    def _curves(self) -> tuple[NDArray[np.float64], ...]:
        """Bytes alive after each event: activations, temporaries, gradients; and of a gradient just made."""
        blocks, events = self.trace.step.blocks, self.trace.step.events
        changes = np.zeros((3, len(events) + 1))
        made = np.zeros(len(events) + 1)
        rows = {"activations": 0, "temporaries": 1, "gradients": 2}
        for index, (number, op) in enumerate(events, start=1):
            block = blocks[number]
            if block.role == "state":
                continue
            size = float(block.bytes if self.kind == "cpu" else round_bytes(block.bytes))
            changes[rows[block.holds], index] = size if op >= 0 else -size
            if block.role == "gradient" and op >= 0:
                made[index] = size
        activations, temporaries, gradients = np.cumsum(changes, axis=1)
        return activations, temporaries, gradients, made
