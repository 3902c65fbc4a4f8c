"""Write what a benchmark measured: a page for people and a file for machines, named by hardware and date."""

from __future__ import annotations

import datetime
import json
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from thrifty.spec import Device

REPORTS = Path(__file__).parent / "reports"


def record(name: str, device: Device, says: str, samples: Mapping[str, Sequence[float]]) -> Path:
    """Write ``reports/<name>-<hardware>-<date>.md`` and ``.json``, and print each figure's median as ``name=value``.

    Args:
        name: the benchmark.
        device: what it ran on.
        says: what was done, and what to make of the figures.
        samples: every measurement of each figure; the unit is in the figure's name.
    """
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    hardware = re.sub(
        r"[^a-z0-9]+", "-", f"{device.name} {device.parts if device.kind == 'cpu' else ''}".lower()
    ).strip("-")
    path = REPORTS / f"{name}-{hardware}-{date}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    stack = f"Python {platform.python_version()}, torch {version('torch')}"
    rows = [
        f"| {k} | {statistics.median(v):.6g} | {min(v):.6g} | {max(v):.6g} | {len(v)} |" for k, v in samples.items()
    ]
    table = "\n".join(["| figure | median | least | most | runs |", "|---|---:|---:|---:|---:|", *rows])
    path.write_text(
        f"# {name}, {date}\n\n{device.name}, {device.parts}. {stack}.\n\n{says}\n\n{table}\n", encoding="utf-8"
    )
    facts = {
        "benchmark": name,
        "date": date,
        "device": device.model_dump(mode="json", exclude={"kernels"}),
        "stack": stack,
        "samples": samples,
    }
    path.with_suffix(".json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    for figure, values in samples.items():
        print(f"{figure}={statistics.median(values):.6g}")
    return path
