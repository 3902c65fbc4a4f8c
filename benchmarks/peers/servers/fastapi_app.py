"""The model in a plain FastAPI application under uvicorn, a request at a time.

``python -m benchmarks.peers.servers.fastapi_app WORK``
"""

from __future__ import annotations

from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.servers.answering import Model, Work


class Body(BaseModel):
    """What is asked."""

    instances: list[str]


def main() -> None:
    """Serve until ended."""
    work, app = Work.asked(), FastAPI()
    model = Model(work.folder)

    @app.post("/predict")
    async def predict(body: Body) -> dict[str, Any]:
        return {"predictions": model.answers([model.row(raw) for raw in body.instances])}

    uvicorn.run(app, host="127.0.0.1", port=work.port, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
