"""The model in BentoML, with its adaptive batching where more than a row is asked for.

``python -m benchmarks.peers.servers.bentoml_app WORK``
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.peers.servers.answering import Model, Work

WORK = Work.asked() if __name__ == "__main__" else Work(**json.loads(os.environ["BENTO_WORK"]))


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Answering:
    """One process with the model."""

    def __init__(self) -> None:
        self.model = Model(WORK.folder)

    @bentoml.api(
        route="/predict", batchable=WORK.batch > 1, max_batch_size=max(WORK.batch, 2), max_latency_ms=1000,
        batch_dim=0,
    )  # fmt: skip
    def predict(self, instances: list[str]) -> list[dict[str, Any]]:
        """Answer the rows that were collected."""
        return self.model.answers([self.model.row(raw) for raw in instances])


def main() -> None:
    """Become BentoML's own command."""
    os.environ |= {"BENTO_WORK": sys.argv[-1], "BENTOML_DO_NOT_TRACK": "True"}
    command = str(Path(sys.executable).with_name("bentoml"))
    service = "benchmarks.peers.servers.bentoml_app:Answering"
    os.execv(command, [command, "serve", service, "--host", "127.0.0.1", "--port", str(WORK.port)])


if __name__ == "__main__":
    main()
