"""Made-up input of a model, by the kind of its data: to trace it with, and to compare its other forms on.

Shapes: N rows, H × W pixels, C channels, T tokens or frames, M numbers of a frame, F numbers of a row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thrifty.models.speech import PADDING
from thrifty.spec import KINDS, Dataset, KindName

# one row, and numbers of rows and tokens that are no sizes of any model
BATCHES = (1, 3, 8)
_SEED = 0


def has_length(data: Dataset) -> bool:
    """Say whether inputs have a length that may vary."""
    return KINDS[data.kind].tokenized or KINDS[data.kind].varies


def lengths_of(data: Dataset) -> tuple[int | None, ...]:
    """Return three lengths, the least, some, and the longest; or ``(None,)`` where there is none."""
    longest = data.shape[0]
    return (1, longest // 2 + 1, longest) if has_length(data) else (None,)


def served_example(data: Dataset, rows: int = 3, length: int | None = None) -> Tensor:
    """Return random input as it is served: of images the pixels, uint8 [N, H, W, C]; of others as `example` has it.

    Args:
        rows: 3 when left out: at 1 and 2 a traced size may be taken for a constant.
        length: some when left out.
    """
    generator = torch.Generator().manual_seed(_SEED)
    length = length or (longest // 2 + 1 if (longest := data.shape[0]) and has_length(data) else 0)
    return _EXAMPLES[data.kind](data, rows, length, generator)


def example(data: Dataset, rows: int = 3, length: int | None = None) -> Tensor:
    """Return random input as the model takes it: images [N, C, H, W], tokens [N, T], frames [N, T, M], rows [N, F]."""
    x = served_example(data, rows, length)
    if data.kind != "image":
        return x
    mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (data.mean, data.std))
    return (x.permute(0, 3, 1, 2).float() / 255 - mean) / std


def _pixels(data: Dataset, rows: int, length: int, generator: torch.Generator) -> Tensor:
    channels, height, width = data.shape
    return torch.randint(256, (rows, height, width, channels), dtype=torch.uint8, generator=generator)


def _frames(data: Dataset, rows: int, length: int, generator: torch.Generator) -> Tensor:
    frames = torch.randn(rows, length, data.shape[1], generator=generator)
    ends = torch.randint(1, length + 1, (rows, 1, 1), generator=generator)
    return frames.where(torch.arange(length)[:, None] < ends, PADDING)


def _rows(data: Dataset, rows: int, length: int, generator: torch.Generator) -> Tensor:
    table = data.table
    assert table is not None
    numbers = torch.rand((rows, table.numbers), generator=generator)
    return torch.cat([numbers, torch.randint(data.vocabulary, (rows, table.codes), generator=generator).float()], 1)


def _tokens(data: Dataset, rows: int, length: int, generator: torch.Generator) -> Tensor:
    return torch.randint(data.vocabulary, (rows, length), generator=generator)


def _padded(data: Dataset, rows: int, length: int, generator: torch.Generator) -> Tensor:
    tokens = _tokens(data, rows, length, generator)
    # rows of several lengths: what follows is padding, the first token never is
    ends = torch.randint(1, length + 1, (rows, 1), generator=generator)
    return tokens.clamp(min=1) * (torch.arange(length) < ends)


_EXAMPLES: dict[KindName, Callable[[Dataset, int, int, torch.Generator], Tensor]] = {
    "audio": _frames,
    "image": _pixels,
    "language": _tokens,
    "table": _rows,
    "text": _padded,
}
