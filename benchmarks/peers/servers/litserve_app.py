"""The model in LitServe, with its batching where more than a row is asked for.

``python -m benchmarks.peers.servers.litserve_app WORK``. LitServe looks at the types of ``decode_request`` at run time.
"""

from typing import Any

import litserve

from benchmarks.peers.servers.answering import Model, Work


class Api(litserve.LitAPI):
    """Rows one by one, or those of a batch together."""

    def setup(self, device: Any) -> None:
        """Load the model in the worker."""
        self.model = Model(Work.asked().folder)

    def decode_request(self, request: dict[str, Any]) -> Any:
        """Take the row of a request."""
        return self.model.row(request["instances"][0])

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Leave rows of any length a list."""
        return inputs

    def predict(self, x: Any) -> Any:
        """Answer a list of rows, or a row."""
        if self.max_batch_size > 1:
            return self.model.answers(x)
        return self.model.answers([x])[0]

    def unbatch(self, output: list[Any]) -> list[Any]:
        """Answers are a list already."""
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Say it as all do."""
        return {"predictions": [output]}


def main() -> None:
    """Serve until ended."""
    work = Work.asked()
    api = Api(max_batch_size=work.batch, batch_timeout=work.wait_s if work.batch > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=work.port, generate_client_file=False, log_level="error", num_api_servers=1)


if __name__ == "__main__":
    main()
