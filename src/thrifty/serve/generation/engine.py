"""`Engine`: a language model that takes steps for many texts at once; it knows tokens and pages, no text and no client.

Shapes: B texts, C width, V vocabulary.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.errors import JobError
from thrifty.models.chunked_loss import MULTIPLES
from thrifty.models.drawing import choose
from thrifty.models.gpt import GPT
from thrifty.models.llama import Llama
from thrifty.models.paged import PAGE_TOKENS, Part, Step, kept_by
from thrifty.models.quantised import QuantisedDecoder
from thrifty.models.reordered import Reordered, reordered
from thrifty.models.replayed import Replays
from thrifty.serve.generation.order import Told
from thrifty.serve.generation.turn import NO_MOVES, Outcome, Room, Turn

logger = logging.getLogger("thrifty.serve")


class Engine:
    """A model laid out for speed, its pages, and steps over them.

    Args:
        model: a `GPT` or `Llama`, or one in int8, in ``eval`` mode; it stays as it is, and steps are computed where it
            lies.
        cache_bytes: of keys and values, at most.
        texts: that are written at once, at most.

    Attributes:
        room: that there is.

    Raises:
        JobError: the cache would not hold one page.
    """

    def __init__(self, model: object, *, cache_bytes: int, texts: int) -> None:
        assert isinstance(model, GPT | Llama | QuantisedDecoder), f"{type(model).__name__} keeps no pages"
        a_text, kept = -(-model.length // PAGE_TOKENS), kept_by(model)
        pages = min(cache_bytes // kept.page_bytes, texts * a_text)
        if not pages:
            raise JobError(
                f"limit cache_bytes {cache_bytes} holds no {PAGE_TOKENS} tokens of this model",
                mend=f"Give it at least {kept.page_bytes}; a text of full length takes {a_text * kept.page_bytes}.",
            )
        self.room = Room(min(model.length, pages * PAGE_TOKENS), pages)
        if self.room.length < model.length:
            logger.warning(
                "limit cache_bytes %d holds %d tokens: texts are read no further back, though the model reads %d",
                cache_bytes,
                self.room.length,
                model.length,
            )
        on_gpu = kept.device.type == "cuda"
        with torch.inference_mode():
            self._model, self._words = reordered(model), model.vocabulary
            if isinstance(model, QuantisedDecoder):
                self._head: nn.Module = model.head
            else:
                filled_up = -self._words % MULTIPLES.get(kept.device.type, 1)
                weight_VC = model.head_weight
                self._head = Reordered(F.pad(weight_VC, (0, 0, 0, filled_up)) if filled_up else weight_VC)
            # what fills a step up that is replayed writes to a page of nobody's
            self._cache = kept.cache(pages + on_gpu)
            self._replayed = Replays(self._cache, self._compute) if on_gpu else None

    @property
    def cpu_seconds(self) -> float:
        """Processor time of the thread that asks."""
        return time.thread_time()

    def begin(self) -> Room:
        """Return the room: it is ready since it was made."""
        return self.room

    @torch.inference_mode()
    def take(
        self, turns: Sequence[Turn], *, fresh: Sequence[int] = (), moves: Mapping[int, int] = NO_MOVES
    ) -> list[Outcome]:
        """Take a step; a text that fails, or whose logits are no numbers, fails alone. `Steps.take` says the rest."""
        if moves:
            self._cache.move(moves)
        if fresh:
            self._cache.clear(fresh)
        return self._outcomes(turns) if turns else []

    def _outcomes(self, turns: Sequence[Turn]) -> list[Outcome]:
        """Compute turns together; or one by one when that fails, for one may be at fault."""
        try:
            logits_BV = self.step([turn.part for turn in turns])
        except torch.AcceleratorError:
            raise  # nothing is computed by this process any more
        except Exception as error:
            if len(turns) > 1:
                return [outcome for turn in turns for outcome in self._outcomes([turn])]
            logger.exception("a step of one text failed")
            return [Outcome(failed=f"The model failed: {type(error).__name__}")]
        sound = logits_BV.amax(-1).isfinite().tolist()
        found = [Outcome() if fine else Outcome(failed="The model answered with NaN or infinity") for fine in sound]
        drawn = [(row, turn.wishes) for row, turn in enumerate(turns) if turn.wishes is not None and sound[row]]
        rows = [row for row, _ in drawn]
        some_BV = logits_BV if len(rows) == len(turns) else logits_BV[rows]
        tokens = choose(some_BV, [wishes for _, wishes in drawn], [turns[row].number for row in rows])
        for row, token in zip(rows, tokens, strict=True):
            likeliest = turns[row].likeliest
            found[row] = Outcome(token, None if likeliest is None else told_of(logits_BV[row], token, likeliest))
        return found

    @torch.inference_mode()
    def step(self, parts: Sequence[Part]) -> Tensor:
        """Read a part of each text; return the logits after each, float32 [B, V].

        Nothing but the pages of these texts changes, so that a step that failed can be taken again.

        Args:
            parts: those of one token first.
        """
        if self._replayed is not None and all(len(part.tokens) == 1 for part in parts):
            logits_BV = self._replayed(parts)
            if logits_BV is not None:
                return logits_BV
        return self._compute(Step(self._cache, parts))

    def _compute(self, step: Step) -> Tensor:
        hidden_1TC = self._model(step.tokens_1T, step.layers(), hidden=True)
        logits_BV: Tensor = self._head(hidden_1TC[0, step.last])[:, : self._words].float()
        return logits_BV


def told_of(logits_V: Tensor, token: int, likeliest: int) -> Told:
    """Tell a token's log probability, and the likeliest tokens with theirs."""
    log_V = logits_V.log_softmax(-1)
    best = log_V.topk(min(likeliest, len(log_V)))
    return Told(token, float(log_V[token]), list(zip(best.indices.tolist(), best.values.tolist(), strict=True)))
