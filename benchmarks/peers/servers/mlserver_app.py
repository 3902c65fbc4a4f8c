"""The model in MLServer as a runtime of its own, with its adaptive batching where more than a row is asked for.

``python -m benchmarks.peers.servers.mlserver_app WORK``. The model computes in the server's process
(``parallel_workers`` 0), which its documentation advises for one model that holds no lock.
"""

from __future__ import annotations

import asyncio
import os

from mlserver import MLModel, MLServer
from mlserver.codecs import StringCodec
from mlserver.settings import ModelParameters, ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from benchmarks.peers.servers.answering import Model, Work


class Runtime(MLModel):
    """Rows of a request, or of several that were joined."""

    async def load(self) -> bool:
        """Load the model."""
        self.model = Model(Work.asked().folder)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer all rows."""
        answers = self.model.answers([self.model.row(raw) for raw in StringCodec.decode_input(payload.inputs[0])])
        values = [value for each in answers for value in each["probabilities"]]
        shape = [len(answers), len(answers[0]["probabilities"])]
        output = ResponseOutput(name="probabilities", shape=shape, datatype="FP32", data=values)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def serve(work: Work) -> None:
    """Serve until ended."""
    settings = Settings(
        host="127.0.0.1", http_port=work.port, grpc_port=work.port + 1, metrics_port=work.port + 2,
        parallel_workers=0, debug=False,
    )  # fmt: skip
    batching = {"max_batch_size": work.batch, "max_batch_time": work.wait_s} if work.batch > 1 else {}
    model = ModelSettings(name="pets", implementation=Runtime, parameters=ModelParameters(), **batching)
    await MLServer(settings).start([model])


def main() -> None:
    """Serve the model that the last argument names."""
    os.environ.setdefault("MLSERVER_LOGGING_SETTINGS", "")
    asyncio.run(serve(Work.asked()))


if __name__ == "__main__":
    main()
