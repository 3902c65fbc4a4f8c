"""Models of the table at another size: ``gpt-nano@3x96``, three layers of width 96, all else as in gpt-nano.

A width is of as many heads as keep their width; a third number says how many: ``gpt-nano@3x96x6``. Of a plain network
the numbers are hidden layers and the width of each, of a ResNet for small images blocks of a stage and channels of the
first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from thrifty.errors import JobError

SIGN = "@"
_SIZES = re.compile(r"([1-9][0-9]*)x([1-9][0-9]*)(?:x([1-9][0-9]*))?")
# families of attention, whose width is that of their heads together
HEADED = ("gpt", "llama", "bert", "vit")
GROWING = (*HEADED, "mlp", "resnet")
# inner widths of a gated feed-forward are rounded to so many: a row of tiles
FFN_MULTIPLE = 32
LARGEST = 1 << 20


class Shape(NamedTuple):
    """Layers, width, and heads, 0 where a family has none."""

    layers: int
    width: int
    heads: int = 0

    @property
    def head_width(self) -> int:
        """Of one head; 1 where there are none."""
        return self.width // self.heads if self.heads else 1


def split_name(name: str) -> tuple[str, str]:
    """Split a name into that of the table and what follows the sign.

    >>> split_name("gpt-nano@3x96"), split_name("gpt-nano")
    (('gpt-nano', '3x96'), ('gpt-nano', ''))
    """
    base, _, sizes = name.partition(SIGN)
    return base, sizes


def shape_of(family: str, arguments: Mapping[str, Any]) -> Shape | None:
    """Return the size of a recipe; None where its family cannot be had at another one."""
    if family in HEADED:
        return Shape(int(arguments["layers"]), int(arguments["width"]), int(arguments["heads"]))
    if family == "mlp" and len(set(arguments["widths"])) == 1:
        return Shape(len(arguments["widths"]), int(arguments["widths"][0]))
    if family == "resnet" and arguments["stem"] == "cifar" and len(set(arguments["blocks"])) == 1:
        return Shape(int(arguments["blocks"][0]), int(arguments["widths"][0]))
    return None


def name_of(base: str, shape: Shape) -> str:
    """Name a model of the table at a size.

    >>> name_of("gpt-nano", Shape(3, 96, 6)), name_of("mlp-small", Shape(2, 64))
    ('gpt-nano@3x96x6', 'mlp-small@2x64')
    """
    heads = f"x{shape.heads}" if shape.heads else ""
    return f"{base}{SIGN}{shape.layers}x{shape.width}{heads}"


def grown(name: str, family: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's arguments at the size that a name gives.

    Raises:
        JobError: the family cannot be had at another size, or the sizes cannot be meant.
    """
    base, sizes = split_name(name)
    own, match = shape_of(family, arguments), _SIZES.fullmatch(sizes)
    if own is None:
        raise JobError(
            f"model '{name}' gives '{base}' another size, which this one cannot have",
            mend=f"Families that can: {', '.join(GROWING)}; of ResNets those for small images.",
        )
    if match is None:
        raise JobError(
            f"model '{name}' gives a size that cannot be read: '{sizes}'",
            mend=f"Write layers and width: {name_of(base, own)}.",
        )
    layers, width, heads = (int(number or 0) for number in match.groups())
    if max(layers, width) > LARGEST:
        raise JobError(f"model '{name}' would have {max(layers, width):,} of a thing", mend="Write a smaller number.")
    if family not in HEADED:
        if heads:
            raise JobError(f"model '{name}' gives heads, and '{base}' has none", mend="Write layers and width alone.")
        return {**arguments, **_plain(family, layers, width)}
    shape = Shape(layers, width, heads or width // own.head_width)
    if not shape.heads or width % shape.heads or (not heads and width % own.head_width):
        raise JobError(
            f"model '{name}' is {width} wide, which does not divide into heads"
            + (f" of {own.head_width}" if not heads else f": {heads}"),
            mend=f"Take a multiple of {heads or own.head_width}, or write how many heads: {base}@{layers}x{width}x1.",
        )
    return {**arguments, "layers": layers, "width": width, "heads": shape.heads, **_llama(arguments, own, shape)}


def _plain(family: str, layers: int, width: int) -> dict[str, Any]:
    if family == "mlp":
        return {"widths": (width,) * layers}
    return {"blocks": (layers,) * 3, "widths": (width, 2 * width, 4 * width)}


def _llama(arguments: Mapping[str, Any], own: Shape, shape: Shape) -> dict[str, Any]:
    """Heads of keys and values, and the inner width, in the proportions of the recipe; nothing for other families."""
    if "kv_heads" not in arguments:
        return {}
    wanted = shape.heads * int(arguments["kv_heads"]) / own.heads
    divisors = [count for count in range(1, shape.heads + 1) if shape.heads % count == 0]
    kv_heads = max((count for count in divisors if count <= wanted), default=1)
    ffn = round(int(arguments["ffn"]) * shape.width / own.width / FFN_MULTIPLE) * FFN_MULTIPLE
    return {"kv_heads": kv_heads, "ffn": max(ffn, FFN_MULTIPLE)}
