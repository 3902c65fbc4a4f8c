"""Instruction sets: what an artefact was judged on, beside what this processor has."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from thrifty.hardware.probe import instruction_sets
from thrifty.spec import BundleInfo

logger = logging.getLogger("thrifty.export")

# any of these adds products of int8 in 32 bits at once; without one, pairs are added in 16 bits first and saturate
EIGHT_BITS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
_X86 = "avx2"


def missing(judged: Sequence[str], here: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the instruction sets that an artefact was judged on and this processor has not.

    >>> missing(("avx2", "avx512_vnni"), here=("avx2",))
    ('avx512_vnni',)
    """
    has = instruction_sets() if here is None else here
    return tuple(each for each in judged if each not in has)


def saturates(here: Sequence[str]) -> bool:
    """Say whether sums of int8 products can saturate on a processor.

    >>> saturates(("avx2", "fma")), saturates(("avx2", "avx512_vnni"))
    (True, False)
    """
    return _X86 in here and not any(each in here for each in EIGHT_BITS)


def warn_of_weaker(info: BundleInfo, here: Sequence[str] | None = None) -> None:
    """Log a warning where a quantised bundle meets a processor on which it may answer otherwise than when judged."""
    has = instruction_sets() if here is None else here
    if info.precision == "int8" and saturates(has) and not saturates(info.isa):
        logger.warning(
            "bundle '%s' computes in int8 and was judged on a processor with %s; this one has none of %s: sums of "
            "products may saturate, and answers differ. Safe here: weights of 7 bits, or the bundle in fp32",
            info.name,
            ", ".join(each for each in EIGHT_BITS if each in info.isa) or "other instructions",
            ", ".join(EIGHT_BITS[:3]),
        )
