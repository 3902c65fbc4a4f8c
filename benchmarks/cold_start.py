"""From ``thrifty serve`` to its first answer, by the engine that computes the bundle.

    python -m benchmarks.cold_start [--quick]

A ResNet-20 of images of 32 x 32 with made-up weights. Engines are started in turn, round by round, files and compiled
forms in the caches as after a first start. Each time the server is a new process, asked one image as soon as it says
that it serves, and ended.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from benchmarks.clients import once, predict_body, request, run
from benchmarks.overload import MODEL, PREDICT, images
from benchmarks.race import asked_of, told
from benchmarks.record import record
from benchmarks.served import image_bundle
from benchmarks.served import served as serving
from thrifty import hardware
from thrifty.export.bundle import load_bundle, rewrite_bundle
from thrifty.export.engines import ENGINES

# native code is compiled for minutes, and starts as torch does
ASKED = tuple(engine for engine in ENGINES if engine != "aoti")


def seconds(bundle: Path, whole: bytes) -> float:
    """Seconds from the command to the whole first answer."""
    begun = time.perf_counter()
    with serving(str(bundle)) as server:
        status, body = run(once(server.port, whole))
        took = time.perf_counter() - begun
    assert status == 200, body
    return took


def main() -> int:
    """Measure, print the figures, and write the report."""
    asked = asked_of(__doc__, rounds=10)
    device = hardware.here(kind="cpu")
    whole = request(PREDICT, predict_body(images(1)[0].tolist()))
    samples: dict[str, list[float]] = {f"cold_start_seconds_{engine}": [] for engine in ASKED}
    with tempfile.TemporaryDirectory() as place:
        source = load_bundle(image_bundle(Path(place) / "torch", MODEL))
        for engine in ASKED:
            if engine != "torch":
                rewrite_bundle(Path(place) / engine, source, engine=engine)
            seconds(Path(place) / engine, whole)
        for number in range(asked.rounds):
            for engine in ASKED:
                samples[f"cold_start_seconds_{engine}"].append(seconds(Path(place) / engine, whole))
            told(f"round {number}: {', '.join(f'{name} {values[-1]:.2f}' for name, values in samples.items())}")
    print(record(f"cold_start{'_quick' * asked.quick}", device, __doc__ or "", samples), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
