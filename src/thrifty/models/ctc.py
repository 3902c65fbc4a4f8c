"""The loss of transcripts without times: connectionist temporal classification (Graves et al. 2006).

Shapes: B recordings, U frames, V tokens with the blank, L tokens of the longest transcript.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.models.inputs import input_of
from thrifty.models.speech import BLANK

IGNORED = -100


def ctc_sum(logits_BUV: Tensor, y_BL: Tensor) -> Tensor:
    """Sum -log P(transcript) in nats over recordings, in float32 at least.

    A transcript that needs more frames than there are has no probability, and neither loss nor gradient.

    Args:
        logits_BUV: of tokens by frame; where a recording has ended, the blank is certain.
        y_BL: int64 transcripts, filled up with -100; one of these alone is not counted.
    """
    said_BL = y_BL != IGNORED
    log_UBV = F.log_softmax(logits_BUV.transpose(0, 1), -1, dtype=torch.promote_types(logits_BUV.dtype, torch.float32))
    losses_B, _ = torch.ops.thrifty.ctc(log_UBV, y_BL.where(said_BL, BLANK + 1), said_BL.sum(1))
    # where there is no path of that length, the loss is infinite
    counted_B = said_BL.any(1) & losses_B.isfinite()
    return losses_B.where(counted_B, 0.0).sum()


def sum_ctc(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Run a model on ``batch["x"]`` and sum as `ctc_sum` over ``batch["y"]``."""
    return ctc_sum(model(input_of(batch)), batch["y"])


def ctc(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """As `sum_ctc`, with the count of tokens said."""
    return sum_ctc(model, batch), (batch["y"] != IGNORED).sum()


# As operators of their own: torch's, on tensors without values, cannot tell the shape of what it keeps.
@torch.library.custom_op("thrifty::ctc", mutates_args=())
def _forward(log_UBV: Tensor, y_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    """Losses [B], and the logarithms of the forward variables [B, U, 2 L + 1]."""
    frames_B = torch.full_like(lengths_B, log_UBV.shape[0])
    losses, alphas = torch.ops.aten._ctc_loss.Tensor(log_UBV, y_BL, frames_B, lengths_B, BLANK, False)
    # torch leaves what lies beyond a shorter transcript as it found it in memory
    places_S = torch.arange(alphas.shape[-1], device=alphas.device)
    return losses, alphas.masked_fill_(places_S > 2 * lengths_B[:, None, None], -torch.inf)


@_forward.register_fake
def _(log_UBV: Tensor, y_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    frames, samples, _ = log_UBV.shape
    return log_UBV.new_empty(samples), log_UBV.new_empty(samples, frames, 2 * y_BL.shape[1] + 1)


@torch.library.custom_op("thrifty::ctc_backward", mutates_args=())
def _backward(
    pull_B: Tensor, log_UBV: Tensor, y_BL: Tensor, lengths_B: Tensor, losses_B: Tensor, alphas: Tensor
) -> Tensor:
    frames_B = torch.full_like(lengths_B, log_UBV.shape[0])
    pulled: Tensor = torch.ops.aten._ctc_loss_backward.Tensor(
        pull_B, log_UBV, y_BL, frames_B, lengths_B, losses_B, alphas, BLANK, True
    )
    return pulled


@_backward.register_fake
def _(pull_B: Tensor, log_UBV: Tensor, y_BL: Tensor, lengths_B: Tensor, losses_B: Tensor, alphas: Tensor) -> Tensor:
    return torch.empty_like(log_UBV)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _pull(ctx: Any, pull_B: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
    return torch.ops.thrifty.ctc_backward(pull_B.contiguous(), *ctx.saved_tensors), None, None


_forward.register_autograd(_pull, setup_context=_keep)
