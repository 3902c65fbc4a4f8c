"""Which precisions are known to learn what fp32 learns, by family of models: the planner takes no other by itself.

`benchmarks.precision` puts a precision to the test: five seeds of small real jobs, and what it loses against fp32 has
to lie within the noise of the seeds. What it finds goes in here by hand, with the name of its report. Any precision can
be asked for in a job.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Proof:
    """What a precision is known to do.

    Attributes:
        precision: as in a `thrifty.spec.Plan`.
        families: it was tried on.
        source: report or paper, for a reason.
        doubt: how far that carries.
    """

    precision: str
    families: tuple[str, ...]
    source: str
    doubt: str = ""


_EVERY = ("mlp", "resnet", "bert", "gpt")
_SEEDS = "no further from fp32 than another seed is, on five seeds of a small job of each family (benchmarks.precision)"
_CARRIES = "shown on small jobs on a processor"

PROOFS: tuple[Proof, ...] = (
    Proof("fp32", _EVERY, "the reference"),
    Proof(
        "bf16",
        _EVERY,
        "it reaches what fp32 does on networks of images, speech, language and recommendation (Kalamkar et al. 2019, "
        f"section 4), and is {_SEEDS}",
        doubt="published for other jobs than this",
    ),
    Proof("bf16_compensated", _EVERY, _SEEDS, _CARRIES),
    Proof("bf16_stochastic", _EVERY, _SEEDS, _CARRIES),
    Proof("fp16", ("mlp", "gpt"), _SEEDS, _CARRIES),
)
_FAMILIES = tuple(dict.fromkeys(family for proof in PROOFS for family in proof.families))


def proof_of(precision: str, family: str) -> Proof | None:
    """Return what is known of a precision in a family; of a family that none was tried on, what holds in all others.

    >>> proof_of("bf16", "gpt") is proof_of("bf16", "own")
    True
    >>> proof_of("fp16", "bert") is None
    True
    """
    needed = (family,) if family in _FAMILIES else _FAMILIES
    return next((each for each in PROOFS if each.precision == precision and set(needed) <= set(each.families)), None)
