"""Seconds of one block of a Transformer in one micro-batch, its communication included, term by term."""

from __future__ import annotations

from typing import NamedTuple

from thrifty.cost.calibrations import Calibration
from thrifty.cost.network import Links, exchange_seconds, gather_seconds, message_seconds, reduce_seconds
from thrifty.cost.transformer import ENDS_BACKWARD, ENDS_FORWARD
from thrifty.spec import Layout, TransformerShape


class Block(NamedTuple):
    """Seconds of one block in one micro-batch, or of the two ends of the model."""

    matmul: float = 0.0
    attention: float = 0.0
    other: float = 0.0
    launch: float = 0.0
    tensor: float = 0.0
    expert: float = 0.0
    context: float = 0.0
    data: float = 0.0

    def times(self, count: float) -> Block:
        """The same, ``count`` times."""
        return Block(*(value * count for value in self))

    def plus(self, other: Block) -> Block:
        """The sum of both."""
        return Block(*(a + b for a, b in zip(self, other, strict=True)))


class Work(NamedTuple):
    """What the communication of a block depends on.

    Attributes:
        width: bytes of an activation's element.
        shard: devices that share the weights under ZeRO 2 and 3.
    """

    shape: TransformerShape
    layout: Layout
    links: Links
    calibration: Calibration
    width: int
    shard: int

    @property
    def tokens(self) -> float:
        """Tokens of a micro-batch on one device, before tensor parallelism."""
        return self.layout.micro_batch * self.shape.length / self.layout.context

    def block(
        self, table: list[list[float]], forward: int, backward: int, again: int, shared: float, experts: float
    ) -> Block:
        """One block in one micro-batch, its communication included; ``shared`` and ``experts`` count parameters."""
        shape, layout, links = self.shape, self.layout, self.links
        matmul, attention, other, launch = (table[forward][i] + table[backward][i] + table[again][i] for i in range(4))
        repeats = layout.checkpointing == "full"
        activation = self.tokens * shape.hidden * self.width
        tensor = 0.0
        if layout.tensor > 1:
            rounds = 6 if repeats else 4
            tensor = rounds * reduce_seconds(links, activation, layout.tensor)
            if layout.sequence_parallel:
                tensor += 2 * gather_seconds(links, activation, layout.tensor)
            tensor *= 1 - self.calibration.tensor_overlap
        context = 0.0
        if layout.context > 1:
            heads = shape.kv_heads / min(layout.tensor, shape.kv_heads)
            turn = 2 * self.tokens * heads * shape.head_dim * self.width
            rings = layout.context - 1
            once = rings * message_seconds(links, turn, layout.tensor)
            spent = table[forward][1]
            context = max(0.1 * once, once - spent) + max(0.2 * once, 2 * once - table[backward][1])
        expert = 0.0
        if experts and layout.expert > 1:
            sent = self.tokens / layout.tensor * shape.active_experts * shape.hidden * self.width
            launch += (3 if repeats else 2) * self.calibration.routing_s
            expert = (6 if repeats else 4) * exchange_seconds(links, sent, layout.expert, layout.tensor)
        data = self.sharded(sum(table[forward]) + tensor / 3, sum(table[backward]) + sum(table[again]), shared)
        return Block(matmul, attention, other, launch, tensor, expert, context, data)

    def ends(self, table: list[list[float]], held: float) -> Block:
        """The two ends of the model in one micro-batch."""
        forward, backward = table[ENDS_FORWARD], table[ENDS_BACKWARD]
        tensor = 0.0
        if self.layout.tensor > 1:
            # The embedding's output, and of the loss the maximum, the sum and the target's logit of each token.
            tensor = 2 * reduce_seconds(self.links, self.tokens * self.shape.hidden * self.width, self.layout.tensor)
            tensor += 3 * reduce_seconds(self.links, self.tokens * 4, self.layout.tensor)
        data = self.sharded(sum(forward), sum(backward), held)
        matmul, attention, other, launch = (forward[i] + backward[i] for i in range(4))
        return Block(matmul, attention, other, launch, tensor, data=data)

    def sharded(self, forward: float, backward: float, held: float) -> float:
        """Gathering a block's weights and scattering its gradients in every micro-batch, beyond what is hidden."""
        layout = self.layout
        if layout.zero < 2 or self.shard == 1:
            return 0.0
        stride = layout.tensor
        weights = held / layout.tensor * self.width
        gather = gather_seconds(self.links, weights, self.shard, stride)
        scatter = gather_seconds(self.links, weights * self.calibration.gradient_bytes / 2, self.shard, stride)
        overlap = self.calibration.data_overlap
        if layout.zero == 2:
            gather /= layout.accumulation
        behind = gather + scatter if layout.zero == 3 else scatter
        return (
            (1 - overlap) * (gather + behind)
            + overlap * max(0.0, gather - forward)
            + overlap * max(0.0, behind - backward)
        )

    def data_once(self, held: float, experts: float, backward: float) -> float:
        """Summing gradients over data-parallel ranks once a step, beyond what hides behind the last backward."""
        layout, links = self.layout, self.links
        ranks = layout.data * layout.context
        gradient = held * self.calibration.gradient_bytes
        if layout.zero >= 2:
            replicas = layout.data * layout.context // self.shard
            if replicas <= 1:
                return 0.0
            once = reduce_seconds(links, gradient / self.shard, replicas, layout.tensor * self.shard)
        elif layout.zero == 1:
            once = gather_seconds(links, gradient, ranks, layout.tensor) + gather_seconds(
                links, held * self.width, ranks, layout.tensor
            )
        else:
            once = reduce_seconds(links, gradient, ranks, layout.tensor)
        if experts:
            copies = max(1, ranks // layout.expert)
            moved = experts * self.calibration.gradient_bytes
            once += reduce_seconds(links, moved, copies, layout.tensor * layout.expert)
        overlap = self.calibration.data_overlap
        return (1 - overlap) * once + overlap * max(0.0, once - backward)
