"""Rows used: AdamW trains of an embedding the rows that a step reads, and makes up for the steps that a row has missed.

AdamW moves every row at every step, for a row without a gradient still decays and still coasts on its mean gradient:
a vocabulary of 30,522 x 384 takes 330 MB of memory traffic a step, of which a batch of 32 short texts needs 2 %. What a
row without gradients does from one reading to the next has a closed form, so it waits until the row is read again.

With m and v as the row's last update left them, k updates since, and update number t at the rate lr_t:

    p <- p (1 - lr_t decay) - lr_t / (1 - beta1^t) x beta1^k m / (sqrt(beta2^k v) / sqrt(1 - beta2^t) + eps)

m / (sqrt(v) + e) comes out of the sum over these updates, where e is ``eps`` x sqrt(1 - beta2^t) / sqrt(beta2^k), and
numbers for each row are left, which are carried along. For e its mean over them is taken: what is learned is the same
to the rounding of float32, as long as sqrt(v) is large against ``eps``.

Shapes: V rows in all, U rows used in this step, C width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from thrifty.errors import JobError

# bounds the memory of bringing all rows up to date
ROWS_AT_ONCE = 2048


class UsedRows:
    """The rows of one embedding that are trained: it stands in for the embedding's ``forward``.

    The embedding's own weight [V, C] is no longer trained; a leaf [U, C] is, which `take` fills before each step and
    which goes back as soon as the optimizer has taken it. Without gradients, the embedding reads its own weight, and
    all rows are brought up to date first. What else there is to remember lies in the optimizer's state, which brings
    it back when training is resumed.

    Args:
        embedding: its rows are read by the numbers that `take` was told.
        optimizer: AdamW over the rest of the model.
    """

    def __init__(self, embedding: nn.Embedding, optimizer: AdamW) -> None:
        self.embedding, self.optimizer = embedding, optimizer
        self.weight = embedding.weight.requires_grad_(False)
        rows, like = len(self.weight), self.weight
        self.leaf = nn.Parameter(torch.zeros_like(self.weight[:1]))
        self.place_V = torch.full((rows,), -1, device=like.device)
        group = _group_of(optimizer, self.weight)
        group["params"] = [self.leaf if each is self.weight else each for each in group["params"]]
        optimizer.state[self.leaf] = {
            "step": torch.zeros((), dtype=torch.float32, device=like.device if group.get("fused") else "cpu"),
            "exp_avg": torch.zeros_like(self.leaf),
            "exp_avg_sq": torch.zeros_like(self.leaf),
            "all_exp_avg": torch.zeros_like(self.weight),
            "all_exp_avg_sq": torch.zeros_like(self.weight),
            # of each row: updates that it missed, what they shrink it to, by how many m / (sqrt(v) + e) they move it,
            # and that times e / eps, of which there is one for each of them
            "missed": torch.zeros(rows, dtype=like.dtype, device=like.device),
            "shrunk": torch.ones(rows, dtype=like.dtype, device=like.device),
            "coasted": torch.zeros(rows, dtype=like.dtype, device=like.device),
            "softened": torch.zeros(rows, dtype=like.dtype, device=like.device),
        }
        self.rows_U = torch.zeros(0, dtype=torch.int64, device=like.device)
        self._handle = optimizer.register_step_post_hook(lambda *_: self._put())
        embedding.forward = self  # type: ignore[method-assign, assignment]

    def __call__(self, tokens: Tensor) -> Tensor:
        """Look tokens up, in the rows that were taken where gradients are wanted."""
        if not torch.is_grad_enabled():
            self._catch_all_up()
            return F.embedding(tokens, self.weight)
        padding = self.embedding.padding_idx
        place = None if padding is None else int(self.place_V[padding])
        # a row that was not taken has no place, and looking it up at -1 is an error
        return F.embedding(self.place_V[tokens], self.leaf, None if place in {None, -1} else place)

    @torch.no_grad()
    def take(self, tokens: list[np.ndarray]) -> None:
        """Make the rows of a step's tokens, over all its micro-batches, those that are trained in it."""
        used = np.unique(np.concatenate([each.ravel() for each in tokens]))
        rows_U = torch.from_numpy(used.astype(np.int64)).to(self.weight.device)
        self.place_V[self.rows_U] = -1
        self.place_V[rows_U] = torch.arange(len(rows_U), device=rows_U.device)
        self.rows_U = rows_U
        self._catch_up(rows_U)
        state = self.optimizer.state[self.leaf]
        self.leaf.grad = None
        self.leaf.data = self.weight[rows_U]
        state["exp_avg"], state["exp_avg_sq"] = state["all_exp_avg"][rows_U], state["all_exp_avg_sq"][rows_U]

    @torch.no_grad()
    def _put(self) -> None:
        """Put the rows back that the optimizer has just updated; all others have missed an update."""
        state, rows_U = self.optimizer.state[self.leaf], self.rows_U
        group = _group_of(self.optimizer, self.leaf)
        rate, (beta1, beta2), step = float(group["lr"]), group["betas"], int(state["step"])
        shrink = 1 - rate * group["weight_decay"]
        coast = rate / (1 - beta1**step) * math.sqrt(1 - beta2**step)
        state["missed"] += 1
        state["shrunk"] *= shrink
        state["coasted"].mul_(shrink).add_((beta1 / math.sqrt(beta2)) ** state["missed"], alpha=coast)
        softened = coast * math.sqrt(1 - beta2**step)
        state["softened"].mul_(shrink).add_((beta1 / beta2) ** state["missed"], alpha=softened)
        self.weight[rows_U] = self.leaf.data
        state["all_exp_avg"][rows_U], state["all_exp_avg_sq"][rows_U] = state["exp_avg"], state["exp_avg_sq"]
        self._none_missed(state, rows_U)

    def _catch_all_up(self) -> None:
        for start in range(0, len(self.weight), ROWS_AT_ONCE):
            self._catch_up(slice(start, start + ROWS_AT_ONCE))

    def _catch_up(self, rows: Tensor | slice) -> None:
        """Do the updates that rows have missed."""
        state = self.optimizer.state[self.leaf]
        missed = state["missed"][rows]
        if not bool(missed.any()):
            return
        group = _group_of(self.optimizer, self.leaf)
        beta1, beta2 = group["betas"]
        coasted, softened = state["coasted"][rows], state["softened"][rows]
        eps = group["eps"] * torch.where(coasted > 0, softened / coasted, 1.0)[:, None]
        mean, square = state["all_exp_avg"][rows], state["all_exp_avg_sq"][rows]
        moved = mean / (square.sqrt() + eps) * coasted[:, None]
        self.weight[rows] = self.weight[rows] * state["shrunk"][rows, None] - moved
        state["all_exp_avg"][rows] = mean * (beta1**missed)[:, None]
        state["all_exp_avg_sq"][rows] = square * (beta2**missed)[:, None]
        self._none_missed(state, rows)

    @staticmethod
    def _none_missed(state: dict[str, Tensor], rows: Tensor | slice) -> None:
        state["shrunk"][rows] = 1.0
        for name in ("missed", "coasted", "softened"):
            state[name][rows] = 0.0

    @torch.no_grad()
    def release(self) -> None:
        """Bring all rows up to date and give the embedding back as it was."""
        self._catch_all_up()
        self._handle.remove()
        group = _group_of(self.optimizer, self.leaf)
        group["params"] = [self.weight if each is self.leaf else each for each in group["params"]]
        del self.optimizer.state[self.leaf], self.embedding.forward
        self.weight.requires_grad_(True)


def use_rows(model: nn.Module, optimizer: Optimizer, vocabulary: int) -> list[UsedRows]:
    """Train of each embedding of a vocabulary only the rows that a step reads.

    Args:
        model: its embeddings of ``vocabulary`` rows are read by the tokens themselves; one whose weight a head shares
            has a gradient on every row, and is left as it is.
        optimizer: over all of the model.
        vocabulary: rows of the embeddings that are meant.

    Raises:
        JobError: the optimizer is not AdamW, whose updates these are.
    """
    if not isinstance(optimizer, AdamW):
        raise JobError(
            f"the rows used alone can be trained by adamw, not by {type(optimizer).__name__.lower()}",
            mend="Set plan.rows to all, or train.optimizer to adamw.",
        )
    return [UsedRows(each, optimizer) for each in list(_own_embeddings(model, vocabulary))]


def foresee_rows(model: nn.Module, optimizer: Optimizer, vocabulary: int, used: int) -> None:
    """Make a model whose step is traced or dry-run hold and do what it will with `use_rows`, whatever the tokens are.

    What moves rows in and out of the leaf is left out: it is small beside the step.

    Args:
        model, optimizer, vocabulary: as for `use_rows`.
        used: rows that a step reads, at most.
    """
    for embedding in list(_own_embeddings(model, vocabulary)):
        weight = embedding.weight.requires_grad_(False)
        leaf = nn.Parameter(weight.detach().new_zeros((used, weight.shape[1])))
        group = _group_of(optimizer, weight)
        group["params"] = [leaf if each is weight else each for each in group["params"]]
        embedding.register_parameter("_used", leaf)
        embedding.forward = functools.partial(_looked_up, leaf)  # type: ignore[method-assign]

        def keep_all(stepping: Optimizer, *_: Any, leaf: nn.Parameter = leaf, weight: Tensor = weight) -> None:
            state = stepping.state[leaf]
            if "all_exp_avg" not in state:
                state["all_exp_avg"], state["all_exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)

        optimizer.register_step_post_hook(keep_all)


def _looked_up(leaf: Tensor, tokens: Tensor) -> Tensor:
    """Read rows of a leaf by numbers that may lie beyond it: of a step that is foreseen, they are not the real ones."""
    return F.embedding(tokens.remainder(len(leaf)), leaf)


def _group_of(optimizer: Optimizer, parameter: Tensor) -> dict[str, Any]:
    """The group that holds a parameter; asked anew each time, for loading a state makes new ones."""
    return next(group for group in optimizer.param_groups if any(each is parameter for each in group["params"]))


def _own_embeddings(model: nn.Module, vocabulary: int) -> Iterator[nn.Embedding]:
    """The embeddings of so many rows that are plain look-ups and whose weight no other module has."""
    holders = [id(each) for module in model.modules() for each in module.parameters(recurse=False)]
    for module in model.modules():
        if type(module) is nn.Embedding and module.num_embeddings == vocabulary and module.weight.requires_grad:
            plain = module.max_norm is None and not module.scale_grad_by_freq and not module.sparse
            if plain and holders.count(id(module.weight)) == 1:
                yield module
