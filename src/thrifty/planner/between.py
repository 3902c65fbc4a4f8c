"""What ranks of this machine tell each other in a step, and how long they wait for it.

Of what travels nothing hides on a processor: sums and copies are arithmetic of the same cores that compute the backward
pass. Beside a GPU's arithmetic most of it does, as `thrifty.cost.replicas` has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch.nn.modules.batchnorm import _BatchNorm

from thrifty import models
from thrifty.cost import Trace, step_seconds
from thrifty.cost.calibrations import Calibration
from thrifty.cost.network import links_between
from thrifty.cost.replicas import Lanes, statistics_seconds, travel_seconds
from thrifty.cost.time import phase_seconds
from thrifty.hardware.messages import Messages, messages_here
from thrifty.hardware.pages import Keeping
from thrifty.models.recompute import repeated_blocks
from thrifty.optim.buckets import buckets_of
from thrifty.planner.learning import Learning
from thrifty.spec import Device, Interval, LoopPrecision
from thrifty.spec.units import format_seconds

# gathers of a few numbers in each step of `thrifty.train.loop`: signals, checkpoints, budgets, samples, losses
AGREED = 5
# how many times longer or shorter it may take: as timed once on a shared machine, and as assumed. Assumed themselves.
_TIMED_DOUBT, _ASSUMED_DOUBT = 1.5, 3.0


class Compared(NamedTuple):
    """A step as it is predicted: each rank's arithmetic, what is waited for between them, and one device's in all."""

    rank_s: float
    between: Interval
    alone_s: float

    @property
    def seconds(self) -> float:
        """Of the ranks' step."""
        return self.rank_s + self.between.value

    @property
    def says(self) -> str:
        """What a step takes without messages and with them, and on one device; which is faster where that is one."""
        rank, both, alone = map(format_seconds, (self.rank_s, self.seconds, self.alone_s))
        faster = ": --devices 1 is predicted to be faster" if self.alone_s < self.seconds else ""
        return f"a step takes {rank} without messages between ranks, {both} with them; on one device {alone}{faster}"


@dataclass(frozen=True)
class Between:
    """The messages of a job on several ranks.

    Attributes:
        messages: what they take here.
        zero: what ranks share out.
        sent: messages a step (of copies), or in each pass over a micro-batch (where weights are shared out).
        channels: of each batch norm.
    """

    messages: Messages
    zero: int
    sent: int
    channels: tuple[int, ...] = ()

    def seconds(self, trace: Trace, accumulation: int, device: Device) -> Interval:
        """Predict the seconds of a step in which ranks wait for messages.

        Args:
            trace: of a micro-batch.
            accumulation: micro-batches of a step on each rank.
            device: what a rank has.
        """
        ranks = self.messages.ranks
        lanes = Lanes(
            *(
                links_between(self.messages.links[name], ranks)
                for name in ("all_reduce", "all_gather", "reduce_scatter")
            )
        )
        overlap, forward_s, backward_s = 0.0, 0.0, 0.0
        if device.kind != "cpu":
            overlap = Calibration.model_fields["data_overlap"].default
            forward_s, backward_s = (phase_seconds(trace, phase, device) for phase in ("forward", "backward"))
        steps = math.log2(max(2, ranks))
        value = travel_seconds(
            lanes,
            float(trace.gradient_bytes),
            float(trace.parameter_bytes),
            data=ranks,
            zero=self.zero,
            accumulation=accumulation,
            overlap=overlap,
            forward_s=forward_s,
            backward_s=backward_s,
        )
        # each message beyond the first waits its own latency
        waits_s = lanes.reduce.intra_latency_s
        if self.zero:
            waits_s = accumulation * (2 * lanes.gather.intra_latency_s + lanes.scatter.intra_latency_s)
        value += (self.sent - 1) * waits_s * steps + AGREED * lanes.gather.intra_latency_s * steps
        value += accumulation * statistics_seconds(self.channels, lanes.gather, lanes.reduce, ranks)
        factor = _TIMED_DOUBT if self.messages.timed else _ASSUMED_DOUBT
        method = f"{format_seconds(value)} a step between {ranks} ranks ({self.messages.source})"
        return Interval(low=value / factor, value=value, high=value * factor, method=method)


def between_ranks(learning: Learning, kind: str, ranks: int, zero: int) -> Between | None:
    """Find what a job's ranks tell each other; None for one device."""
    if ranks == 1:
        return None
    model = models.build(learning.model, "meta")
    sent = len(buckets_of(list(model.parameters())))
    if zero:
        sent = 1 + sum(1 for _ in repeated_blocks(model))
    channels = tuple(each.num_features for each in model.modules() if isinstance(each, _BatchNorm))
    return Between(messages_here(kind, ranks), zero, sent, channels)


def compared(
    between: Between,
    trace: Trace,
    devices: tuple[Device, Device],
    samples: tuple[int, int],
    precision: LoopPrecision,
    keeping: Keeping,
) -> Compared:
    """Set a step on several ranks beside one on one device, both by what was timed of this machine's operators alone.

    Args:
        between: of the job.
        trace: of a micro-batch.
        devices: what a rank has, and the whole.
        samples: of a step, and of the micro-batch.
        precision, keeping: as for `thrifty.cost.step_seconds`.
    """
    # what a rank's threads were asked says nothing of the whole
    plain = replace(trace, timed={})
    size, micro = samples
    parts = math.ceil(size / between.messages.ranks / micro), math.ceil(size / micro)
    rank_s, alone_s = (
        step_seconds(plain, count, device, precision, keeping=keeping).value
        for count, device in zip(parts, devices, strict=True)
    )
    return Compared(rank_s, between.seconds(plain, parts[0], devices[0]), alone_s)
