"""`Layout`: how one training step is spread over devices and kept in memory; plain data, every field decided."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt, model_validator

from thrifty.spec.plain import Plain

Precision = Literal["fp32", "bf16", "bf16_weights", "bf16_compensated", "bf16_stochastic", "fp16", "fp8"]
Checkpointing = Literal["none", "selective", "full"]
Rows = Literal["all", "used"]
Compile = Literal["none", "blocks", "whole"]
# of which the weights themselves are held in bf16, in our own loop
BF16_HELD = ("bf16_compensated", "bf16_stochastic")


def arithmetic_of(precision: str) -> str:
    """Return the precision whose rate products run at, as a device lists it.

    >>> arithmetic_of("bf16_stochastic"), arithmetic_of("fp16")
    ('bf16', 'fp16')
    """
    return "bf16" if precision.startswith("bf16") else precision


class Layout(Plain):
    """The degrees of parallelism, and what each device computes at once.

    Attributes:
        data, tensor, pipeline, context: devices along each dimension; their product is the number of devices.
        expert: devices that share the experts of a mixture; divides ``data x context``.
        virtual_stages: model chunks a pipeline stage holds (interleaved 1F1B); 1 for plain 1F1B.
        zero: what data-parallel ranks share out: 0 nothing, 1 optimizer states, 2 gradients too, 3 weights too (FSDP).
        sequence_parallel: norms and residuals split along the sequence over the tensor-parallel devices.
        micro_batch: samples a data-parallel rank computes at once.
        accumulation: micro-batches in an optimizer step.
        precision: ``bf16``, ``fp16``, ``fp8`` keep fp32 master weights; ``bf16_weights`` has bf16 weights alone;
            ``bf16_compensated`` and ``bf16_stochastic`` are as in a `Plan`.
        checkpointing: what is computed again: ``selective`` the attention core alone, ``full`` each block.
        state_bytes: bytes of one optimizer state of one parameter: 4, 2, or 1 for 8-bit states.
        offload: optimizer states lie in host memory.
        flash: attention never writes its scores.
    """

    data: PositiveInt = 1
    tensor: PositiveInt = 1
    pipeline: PositiveInt = 1
    context: PositiveInt = 1
    expert: PositiveInt = 1
    virtual_stages: PositiveInt = 1
    zero: Literal[0, 1, 2, 3] = 0
    sequence_parallel: bool = False
    micro_batch: PositiveInt = 1
    accumulation: PositiveInt = 1
    precision: Precision = "bf16"
    checkpointing: Checkpointing = "none"
    state_bytes: Literal[1, 2, 4] = 4
    offload: bool = False
    flash: bool = True

    @property
    def devices(self) -> int:
        """Devices in all.

        >>> Layout(data=2, tensor=4, pipeline=8).devices
        64
        """
        return self.data * self.tensor * self.pipeline * self.context

    @property
    def batch(self) -> int:
        """Samples of one optimizer step."""
        return self.data * self.micro_batch * self.accumulation

    @model_validator(mode="after")
    def _fits_together(self) -> Layout:
        if self.virtual_stages > 1 and self.pipeline == 1:
            raise ValueError(f"virtual_stages {self.virtual_stages} needs a pipeline of more than one stage")
        if self.data * self.context % self.expert:
            raise ValueError(f"expert {self.expert} does not divide data x context = {self.data * self.context}")
        return self
