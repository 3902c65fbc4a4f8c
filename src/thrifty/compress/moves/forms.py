"""A model in an engine's form: written into a folder as a bundle has it, read back, and called like the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from thrifty.compress.moves.move import Candidate, Context, Form
from thrifty.export.check import sha256
from thrifty.export.engines import ENGINES
from thrifty.spec import BUNDLE_FORMAT, BundleInfo, Spent


def formed(
    context: Context, candidate: Candidate, name: str, says: str, made: Any, *, engine: str, precision: str
) -> Candidate:
    """Write an engine's form of a candidate and load it.

    Args:
        context: whose scratch folder gets the files.
        candidate: that it was made of.
        name, says: of the move.
        made: the engine's own object.
        engine, precision: as in `BundleInfo`.
    """
    files = context.scratch / "form"
    files.mkdir(parents=True, exist_ok=True)
    row = ENGINES[engine]
    row.save(made, files, precision)
    info = BundleInfo(
        format=BUNDLE_FORMAT, name="candidate", version=1, task=context.run.task, model=candidate.plan,
        data=context.data, metrics={}, isa=context.device.isa, bill=Spent(), created="", engine=engine,
        precision=precision, files={path.name: sha256(path) for path in sorted(files.iterdir())},
    )  # fmt: skip
    form = Form(engine, precision, files, made, row.load(files, info, None))
    taken, said = (*candidate.taken, name), (*candidate.says, says)
    return replace(candidate, taken=taken, says=said, form=form)
