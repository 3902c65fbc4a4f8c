"""Sizes that the micro-benchmarks run at: from what a cache holds to what none does; none is taken from a model."""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """Sizes that the families run at.

    Attributes:
        numbers: in the largest tensor.
        linear: rows, inputs, outputs of a linear layer: from skinny to square, each over two decades.
        batched: products at once, rows, shared, columns: what attention written out does.
        convolutions: samples, channels in, height, width, channels out, kernel, stride, groups.
        lines: samples, channels, length, channels out, kernel, stride of convolutions over one dimension.
        attention: samples, heads, length, width of a head, causal.
        masked: samples, heads, length, width of a head, with a mask of numbers.
        rows: rows and width of a normalised or softmaxed matrix.
        images: samples, channels, height and width.
        recurrent: samples, length, width in, width hidden of a recurrent layer.
        tables: rows of the table, width, rows looked up.
        counts: numbers in a tensor that is worked on one by one.
        updates: tensors that an optimizer updates, numbers in each.
    """

    numbers: int
    linear: tuple[tuple[int, int, int], ...]
    batched: tuple[tuple[int, int, int, int], ...]
    convolutions: tuple[tuple[int, int, int, int, int, int, int, int], ...]
    lines: tuple[tuple[int, int, int, int, int, int], ...]
    attention: tuple[tuple[int, int, int, int, bool], ...]
    masked: tuple[tuple[int, int, int, int], ...]
    rows: tuple[tuple[int, int], ...]
    images: tuple[tuple[int, int, int], ...]
    recurrent: tuple[tuple[int, int, int, int], ...]
    tables: tuple[tuple[int, int, int], ...]
    counts: tuple[int, ...]
    updates: tuple[tuple[int, int], ...]


CPU = Sizes(
    numbers=1 << 24,
    linear=(
        (64, 64, 64), (16, 1024, 1024), (256, 128, 512), (2048, 64, 64), (1024, 256, 256), (512, 768, 768),
        (4096, 128, 128), (1024, 256, 1024), (1024, 1024, 256), (128, 2048, 2048), (2048, 512, 512), (32, 512, 2048),
        (8, 256, 10), (256, 784, 512), (512, 2048, 512), (2048, 256, 64), (1024, 192, 768), (4096, 32, 256),
        (512, 256, 8192), (256, 64, 4096), (1, 768, 768), (1024, 384, 1536), (2048, 768, 192), (8192, 64, 128),
        (256, 512, 32768), (512, 3072, 768),
    ),
    batched=(
        (32, 64, 32, 64), (64, 128, 64, 128), (16, 256, 64, 256), (64, 32, 64, 32), (8, 512, 64, 512), (96, 64, 64, 64),
        (24, 197, 64, 197), (4, 1024, 64, 1024), (32, 128, 128, 128), (8, 128, 32, 128),
    ),
    convolutions=(
        (32, 16, 32, 32, 16, 3, 1, 1), (32, 3, 32, 32, 16, 3, 1, 1), (32, 16, 32, 32, 32, 3, 2, 1),
        (128, 32, 16, 16, 32, 3, 1, 1), (64, 64, 8, 8, 64, 3, 1, 1), (8, 64, 56, 56, 64, 3, 1, 1),
        (2, 3, 224, 224, 64, 7, 2, 1), (4, 64, 56, 56, 256, 1, 1, 1), (8, 256, 28, 28, 128, 1, 1, 1),
        (8, 3, 224, 224, 192, 16, 16, 1), (8, 64, 28, 28, 64, 3, 1, 64), (16, 256, 8, 8, 256, 3, 1, 1),
        (32, 64, 16, 16, 128, 3, 2, 1), (32, 64, 16, 16, 128, 1, 2, 1), (8, 512, 7, 7, 512, 3, 1, 1),
        (16, 128, 16, 16, 128, 3, 1, 1), (128, 16, 32, 32, 16, 3, 1, 1),
        (16, 512, 4, 4, 2048, 1, 1, 1), (16, 2048, 4, 4, 512, 1, 1, 1), (16, 512, 8, 8, 512, 3, 2, 1),
        (16, 1024, 8, 8, 256, 1, 1, 1), (16, 128, 32, 32, 128, 3, 2, 1), (16, 64, 16, 16, 256, 1, 1, 1),
        (32, 1, 28, 28, 32, 5, 1, 1), (64, 32, 32, 32, 64, 3, 1, 1),
    ),
    lines=((4, 80, 1000, 256, 3, 1), (4, 256, 1000, 256, 3, 2), (8, 1, 4000, 64, 9, 4)),
    attention=(
        (8, 4, 64, 64, False), (4, 8, 128, 32, True), (4, 4, 256, 64, True), (8, 3, 197, 64, False),
        (2, 4, 512, 64, True), (1, 4, 1024, 64, False), (32, 4, 32, 32, False), (4, 4, 256, 32, False),
        (4, 2, 256, 128, True), (16, 8, 128, 64, False), (1, 4, 1500, 64, False),
    ),
    masked=(),
    rows=((64, 128), (1024, 256), (4096, 128), (8192, 64), (2048, 768), (4096, 1024), (16384, 197), (512, 8192)),
    images=((32, 16, 32), (64, 64, 8), (32, 32, 16), (8, 64, 56), (64, 64, 28), (128, 16, 32), (16, 256, 14)),
    recurrent=((8, 16, 64, 64), (16, 64, 256, 256), (32, 32, 128, 512), (16, 64, 512, 512), (64, 16, 256, 128)),
    tables=(
        (1000, 64, 512), (30000, 256, 2048), (8000, 256, 1024), (30000, 128, 4096), (512, 256, 2048), (2, 256, 4096),
    ),
    counts=(1 << 8, 1 << 14, 1 << 17, 1 << 19, 1 << 21, 7 << 20),
    updates=((8, 256), (48, 1 << 16), (8, 1 << 20), (64, 1 << 10), (3, 1 << 22), (24, 1 << 18)),
)  # fmt: skip
# a GPU takes these and larger ones
GPU = Sizes(
    numbers=1 << 29,
    linear=(
        *CPU.linear, (32768, 256, 1024), (16384, 1024, 1024), (8192, 2048, 2048), (4096, 4096, 4096),
        (8192, 512, 32768), (65536, 64, 256), (131072, 256, 64), (2048, 8192, 2048), (16384, 768, 2304),
        (1024, 8192, 8192), (8192, 1024, 4096), (8192, 4096, 1024), (32768, 512, 512), (8192, 384, 1536),
        (4096, 768, 50000), (16384, 3072, 768), (65536, 512, 128), (4096, 512, 1400),
    ),
    batched=(
        *CPU.batched, (512, 128, 64, 128), (192, 512, 64, 512), (96, 1024, 64, 1024), (1024, 64, 64, 64),
        (384, 200, 64, 200), (64, 256, 128, 256),
    ),
    convolutions=(
        *CPU.convolutions, (128, 64, 48, 48, 64, 3, 1, 1), (64, 3, 192, 192, 64, 7, 2, 1),
        (128, 64, 48, 48, 256, 1, 1, 1), (128, 256, 48, 48, 64, 1, 1, 1), (128, 512, 24, 24, 128, 1, 1, 1),
        (128, 128, 24, 24, 128, 3, 1, 1), (256, 1024, 12, 12, 256, 1, 1, 1), (256, 256, 12, 12, 256, 3, 1, 1),
        (256, 512, 6, 6, 512, 3, 1, 1), (256, 512, 6, 6, 2048, 1, 1, 1), (256, 2048, 6, 6, 512, 1, 1, 1),
        (128, 256, 48, 48, 512, 1, 2, 1), (64, 3, 192, 192, 384, 16, 16, 1), (512, 16, 32, 32, 16, 3, 1, 1),
        (512, 32, 16, 16, 32, 3, 1, 1), (1024, 64, 8, 8, 64, 3, 1, 1), (512, 3, 32, 32, 16, 3, 1, 1),
        (256, 64, 32, 32, 64, 3, 1, 64), (128, 128, 48, 48, 128, 3, 2, 1), (512, 64, 20, 20, 64, 3, 1, 1),
        (512, 128, 10, 10, 128, 3, 1, 1), (256, 3, 96, 96, 32, 5, 2, 1), (64, 64, 96, 96, 64, 3, 1, 1),
    ),
    lines=(*CPU.lines, (64, 80, 1000, 256, 3, 1), (64, 256, 1000, 256, 3, 2), (64, 1, 16000, 64, 9, 4)),
    attention=(
        *CPU.attention, (64, 12, 128, 64, False), (32, 12, 512, 64, True), (16, 12, 1024, 64, True),
        (64, 6, 200, 64, False), (128, 4, 64, 64, True), (8, 16, 2048, 64, True), (16, 8, 512, 128, True),
        (64, 8, 256, 64, True), (32, 4, 1500, 64, False), (256, 4, 64, 32, False), (128, 1, 256, 16, False),
    ),
    masked=((64, 12, 128, 64), (16, 8, 512, 64), (32, 6, 200, 64), (8, 12, 1024, 64), (4, 4, 64, 64)),
    rows=(
        *CPU.rows, (65536, 256), (16384, 768), (32768, 1024), (4096, 32768), (8192, 50000), (131072, 64),
        (262144, 200), (65536, 1024), (32768, 384),
    ),
    images=(
        *CPU.images, (512, 16, 32), (256, 64, 32), (256, 256, 14), (128, 64, 48), (256, 512, 6), (1024, 64, 8),
        (128, 1024, 12), (64, 256, 48),
    ),
    recurrent=(*CPU.recurrent, (64, 100, 256, 512), (256, 64, 512, 512), (128, 100, 512, 1024)),
    tables=(*CPU.tables, (50000, 768, 16384), (30000, 1024, 32768), (8000, 512, 65536), (50000, 256, 4096)),
    counts=(*CPU.counts, 1 << 23, 1 << 25, 1 << 27),
    updates=(*CPU.updates, (200, 1 << 16), (150, 1 << 20), (400, 1 << 12), (40, 1 << 22)),
)  # fmt: skip
