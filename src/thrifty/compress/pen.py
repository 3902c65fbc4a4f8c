"""`Pen`: a language model writes on from prompts as the server has it write, many texts at once; what is timed of it.

Shapes: B texts, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thrifty.compress.moves import Candidate
from thrifty.errors import BundleError
from thrifty.export.writing import writing_model
from thrifty.models.paged import PAGE_TOKENS, Part, kept_by
from thrifty.models.wishes import Wishes
from thrifty.serve.generation.engine import Engine
from thrifty.serve.generation.turn import Turn

# of a prompt, and written on from it, at most; shorter where a model's context is
TOKENS = 32
_LIKELIEST = Wishes(temperature=0.0)


def tokens_of(length: int) -> int:
    """Return how many tokens a prompt has, and as many are written on from it, for contexts of ``length`` tokens."""
    return max(1, min(TOKENS, length // 2))


class Pen:
    """Takes the steps that the server's engine takes for texts that begin and end together.

    Args:
        candidate: of a family that writes, computed by torch.
        length: of the texts that it reads.
        texts: at once, at most.
    """

    def __init__(self, candidate: Candidate, length: int, texts: int) -> None:
        answers = candidate.answers if candidate.form is None else candidate.form.loaded
        assert isinstance(answers, nn.Module), f"{candidate.name} is not computed by torch"
        model = writing_model(answers, candidate.plan, length)
        # of which no more is used than is written
        room = kept_by(model).page_bytes * texts * -(-length // PAGE_TOKENS)
        self._engine = Engine(model, cache_bytes=room, texts=texts)

    @torch.inference_mode()
    def __call__(self, prompts_BT: Tensor) -> Tensor:
        """Return the likeliest tokens after prompts, as many as these have: int64 [B, T].

        Raises:
            BundleError: the model fails, or answers with NaN.
        """
        texts, count = prompts_BT.shape
        each = -(-2 * count // PAGE_TOKENS)
        pages = [list(range(each * row, each * (row + 1))) for row in range(texts)]
        fresh = [page for own in pages for page in own]
        tokens, written = prompts_BT.tolist(), list[list[int]]()
        for at in range(count):
            kept = 0 if at == 0 else count + at - 1
            turns = [Turn(Part(some, kept, own), _LIKELIEST) for some, own in zip(tokens, pages, strict=True)]
            outcomes = self._engine.take(turns, fresh=fresh)
            if failed := next((outcome.failed for outcome in outcomes if outcome.failed), ""):
                raise BundleError(f"the model cannot write: {failed}")
            tokens, fresh = [[outcome.token or 0] for outcome in outcomes], []
            written.append([token for (token,) in tokens])
        return torch.tensor(written).T
