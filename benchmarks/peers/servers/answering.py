"""The same bundle computed by the same OpenVINO inside other people's servers: raw input to probabilities.

Nothing of thrifty is imported: what a user of those servers would write for this model.
"""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino


@dataclass(frozen=True)
class Work:
    """What a server is asked to do.

    Attributes:
        folder: of the bundle.
        port: to listen on, of 127.0.0.1.
        batch: most rows at once; 1 is each request by itself.
        wait_s: most that a row waits for others.
    """

    folder: str
    port: int
    batch: int
    wait_s: float

    @classmethod
    def asked(cls) -> Work:
        """Read the last argument."""
        return cls(**json.loads(sys.argv[-1]))


class Model:
    """A bundle that OpenVINO computes: images as base64 of JPEG files, or sentences."""

    def __init__(self, folder: str) -> None:
        place = Path(folder)
        info = json.loads((place / "bundle.json").read_text(encoding="utf-8"))
        self.data, self.labels = info["data"], info["data"]["labels"]
        settings = {"INFERENCE_PRECISION_HINT": "bf16" if info["precision"] == "bf16" else "f32"}
        compiled = openvino.Core().compile_model(
            place / "model.xml", "CPU", {"PERFORMANCE_HINT": "LATENCY", **settings}
        )
        self._request = compiled.create_infer_request()
        self._tokenizer: Any = None
        if self.data["kind"] == "text":
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))

    def row(self, raw: str) -> Any:
        """Decode an image, or cut a sentence into tokens."""
        if self._tokenizer is not None:
            numbers, most = self._tokenizer.encode(raw).ids, self.data["shape"][0]
            return numbers if len(numbers) <= most else [*numbers[: most - 1], numbers[-1]]
        import cv2

        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(raw), np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None, "no image"
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    def answers(self, rows: list[Any]) -> list[dict[str, Any]]:
        """Compute rows together; the likeliest label and all probabilities of each."""
        if self._tokenizer is not None:
            longest = -(-max(map(len, rows)) // 8) * 8
            x = np.zeros((len(rows), min(longest, self.data["shape"][0])), np.int64)
            for at, numbers in enumerate(rows):
                x[at, : len(numbers)] = numbers
        else:
            mean, std = (np.array(self.data[name], np.float32) for name in ("mean", "std"))
            scaled = (np.stack(rows).astype(np.float32) - 255 * mean) / (255 * std)
            x = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
        logits = self._request.infer([x], share_inputs=True, share_outputs=False)[0]
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        found = powers / powers.sum(-1, keepdims=True)
        return [{"probabilities": row.tolist(), "label": self.labels[int(row.argmax())]} for row in found]
