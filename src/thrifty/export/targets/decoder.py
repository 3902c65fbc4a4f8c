"""A decoder that is given what it has read, and gives back what it has read then: text is written token by token.

Shapes: B batch, T new tokens, S tokens read before, R = S + T, L layers, K heads of keys and values, D width of a head,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from thrifty.errors import BundleError
from thrifty.export.parity import RELATIVE, relative
from thrifty.export.program import quiet
from thrifty.models.layers import attend

INPUTS = ("tokens", "keys", "values")
OUTPUTS = ("logits", "keys_read", "values_read")
# tokens that are read at once, then those that are read one by one
_PROMPT, _STEPS = 5, 3

Step = Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], Sequence[NDArray[Any]]]


class _Given:
    """What one layer has read, from outside: each new token sees all that, and the new ones up to itself."""

    def __init__(self, k_BKSD: Tensor, v_BKSD: Tensor, positions_1T: Tensor, hides_TR: Tensor) -> None:
        self.k_BKRD, self.v_BKRD = k_BKSD, v_BKSD
        self.positions_1T, self._hides_TR = positions_1T, hides_TR

    def attend(self, qkv_1TJD: Tensor, heads: int, ways: Mapping[str, str]) -> Tensor:
        """Attend over all that is read, [B, T, J, D] to [B, T, H D]."""
        shared = (qkv_1TJD.shape[2] - heads) // 2
        q_BHTD, k_BKTD, v_BKTD = qkv_1TJD.transpose(1, 2).split((heads, shared, shared), dim=1)
        self.k_BKRD, self.v_BKRD = torch.cat((self.k_BKRD, k_BKTD), 2), torch.cat((self.v_BKRD, v_BKTD), 2)
        group = heads // shared
        k_BHRD, v_BHRD = (each.repeat_interleave(group, dim=1) for each in (self.k_BKRD, self.v_BKRD))
        seen_BHTD = attend(q_BHTD, k_BHRD, v_BHRD, False, self._hides_TR, ways=ways)
        return seen_BHTD.transpose(1, 2).flatten(2)


class Decoder(nn.Module):
    """A GPT or Llama of ours with what it has read as inputs and outputs.

    Tokens int64 [B, T], ``keys`` and ``values`` float32 [L, B, K, S, D], S of 0 at first, to ``logits`` [B, T, V],
    ``keys_read`` and ``values_read`` [L, B, K, R, D], the next step's inputs.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read tokens on from what was read."""
        before, new = keys.shape[3], tokens.shape[1]
        positions_1T = torch.arange(before, before + new)[None]
        later_TR = torch.arange(before + new)[None] > positions_1T[0][:, None]
        hides_TR = torch.zeros(later_TR.shape, dtype=keys.dtype).masked_fill(later_TR, -torch.inf)
        given = [_Given(k, v, positions_1T, hides_TR) for k, v in zip(keys.unbind(0), values.unbind(0), strict=True)]
        logits: Tensor = self.model(tokens, given)
        return logits, torch.stack([each.k_BKRD for each in given]), torch.stack([each.v_BKRD for each in given])


def nothing_read(model: nn.Module, rows: int) -> Tensor:
    """Return the keys, or values, of a decoder that has read nothing: [L, B, K, 0, D].

    Raises:
        BundleError: its layers have heads of different number, as a pruned model's may.
    """
    pasts: list[Any] = model.pasts(1)  # type: ignore[operator]
    with torch.inference_mode():
        model(torch.zeros(1, 1, dtype=torch.int64), pasts)
    k_1K1D, _ = pasts[0].kept
    heads = [past.kept[0].shape[1] for past in pasts]
    if len(set(heads)) > 1:
        raise BundleError(
            f"layers with {', '.join(map(str, heads))} heads of keys have no one tensor for what they read",
            mend="Export the bundle that it was compressed from.",
        )
    return torch.zeros(len(pasts), rows, k_1K1D.shape[1], 0, k_1K1D.shape[3])


def traced_decoder(model: nn.Module) -> ExportedProgram:
    """Trace a decoder with its numbers of rows, of new tokens and of those read open.

    Raises:
        BundleError: it cannot be traced.
    """
    rows, new, before = 3, 2, 4
    read = nothing_read(model, rows)
    # two tensors: one that is given twice is traced as one
    keys, values = (torch.zeros(*read.shape[:3], before, read.shape[4]) for _ in range(2))
    tokens = torch.zeros(rows, new, dtype=torch.int64)
    varies = {1: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    try:
        with torch.inference_mode(False), torch.no_grad(), quiet():
            return torch.export.export(
                Decoder(model),
                (tokens, keys, values),
                dynamic_shapes=({0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, varies, varies),
            )
    except Exception as error:  # the tracer raises many kinds of its own
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"the decoder cannot be traced by torch.export: {reason}") from error


def check_steps(step: Step, model: nn.Module, vocabulary: int) -> float:
    """Read texts by another runtime's steps, and return how far its logits are from those of the whole texts by torch.

    Raises:
        BundleError: further than `RELATIVE`, or a shape is not taken.
    """
    apart = []
    for rows in (1, 2):
        tokens = torch.randint(vocabulary, (rows, _PROMPT + _STEPS), generator=torch.Generator().manual_seed(rows))
        keys = values = nothing_read(model, rows).numpy()
        with torch.inference_mode():
            expected = model(tokens).numpy()
        begin = 0
        for end in (_PROMPT, *range(_PROMPT + 1, _PROMPT + _STEPS + 1)):
            try:
                logits, keys, values = step(tokens[:, begin:end].numpy(), keys, values)
            except Exception as error:  # a runtime's own kinds
                reason = " ".join(str(error).split())[:300]
                raise BundleError(f"the decoder does not take {end - begin} tokens after {begin}: {reason}") from error
            apart.append(relative(logits, expected[:, begin:end]))
            begin = end
    furthest = float(np.max(apart))
    if not furthest <= RELATIVE:  # NaN must fail too
        raise BundleError(f"the decoder answers otherwise than torch: difference {furthest:.3g}, over {RELATIVE:g}")
    return furthest
