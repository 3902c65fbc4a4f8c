"""How far exported models are from torch: every family x every target, the worst of all in units of the largest output.

    python -m benchmarks.export [--quick] [--resume]

Small models with random weights, those of the tests of exports. A file counts once it was read back in its runtime and
compared at 1, 3 and 8 rows and three lengths; a cell that cannot be says why. Quick: three families, no native code.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.kept import Kept
from benchmarks.race import asked_of, told
from benchmarks.record import record
from thrifty import hardware
from thrifty.errors import ThriftyError
from thrifty.export.bundle import load_bundle
from thrifty.export.targets import TARGETS
from thrifty.export.targets.served import Source

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "export"))
made: Any = importlib.import_module("made_bundles")

FAMILIES: dict[str, Callable[[Path], Any]] = {
    "resnet": made.write_image_bundle,
    "bert": made.write_text_bundle,
    "gpt": made.write_language_bundle,
    "convnet-fast": lambda folder: made.write_image_bundle(folder, named="convnet-fast", side=32),
    "vit": lambda folder: made.write_image_bundle(folder, named="vit-nano"),
    "mlp": lambda folder: made.write_image_bundle(folder, named="mlp-small"),
    "bert as published": lambda folder: made.write_text_bundle(folder, family="bert_original", pairs=True),
    "llama": lambda folder: made.write_language_bundle(folder, family="llama"),
    "speech, labels": made.write_sound_bundle,
    "speech, CTC": lambda folder: made.write_sound_bundle(folder, task="transcribe"),
    "wav2vec2": made.write_wave_bundle,
    "wav2vec2, CTC": lambda folder: made.write_wave_bundle(folder, norm="layer", task="transcribe"),
    "table, labels": lambda folder: made.write_table_bundle(folder, labels=made.LABELS),
    "table, numbers": lambda folder: made.write_table_bundle(folder, labels=()),
    "n-grams": made.write_ngram_bundle,
}
QUICK = 3

Cell = tuple[float | None, str]


def cell(source: Source, target: str, folder: Path) -> Cell:
    """The largest difference and its route; or nothing and the reason."""
    try:
        report = TARGETS[target](source, folder)
    except ThriftyError as error:
        return None, error.what
    return report["max_difference"], str(report.get("route") or report["read_by"])


def cells(family: str, targets: list[str]) -> dict[str, Cell]:
    """Export a family to targets."""
    with tempfile.TemporaryDirectory(prefix="thrifty-export-") as scratch:
        FAMILIES[family](Path(scratch) / "bundle")
        source = Source(load_bundle(Path(scratch) / "bundle"))
        return {target: cell(source, target, Path(scratch) / target) for target in targets}


def table(found: dict[str, dict[str, Cell]], targets: list[str]) -> str:
    """Rows of families, and under them why a cell is empty."""
    lines = [f"| family | {' | '.join(targets)} |", "|---" * (len(targets) + 1) + "|"]
    for family, row in found.items():
        shown = ["none" if row[target][0] is None else f"{row[target][0]:.1e}" for target in targets]
        lines.append(f"| {family} | {' | '.join(shown)} |")
    reasons = [
        f"- {family} to {target}: {why}"
        for family, row in found.items()
        for target, (apart, why) in row.items()
        if apart is None
    ]
    return "\n".join([*lines, "", *reasons])


def main() -> int:
    """Export, print the figure, and write the report."""
    asked = asked_of(__doc__)
    device = hardware.here(kind="cpu")
    targets = [target for target in TARGETS if not (asked.quick and target == "aoti")]
    kept = Kept.of(f"export{'_quick' * asked.quick}", resume=asked.resume)
    families = list(FAMILIES)[: QUICK if asked.quick else None]
    found: dict[str, dict[str, Cell]] = {}
    for family in families:
        found[family] = kept(family, dict[str, Cell], lambda family=family: cells(family, targets))  # type: ignore[misc]
        told(f"{family}: {found[family]}")
    errors = [apart for row in found.values() for apart, _ in row.values() if apart is not None]
    says = f"{__doc__}\n{table(found, targets)}"
    told(str(record(f"export{'_quick' * asked.quick}", device, says, {"export_worst_error": [max(errors)]})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
