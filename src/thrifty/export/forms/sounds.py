"""Recordings in, labels or transcripts out.

Shapes: N recordings, T frames, M numbers of a frame, K labels, U frames of an answer, V tokens with the blank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thrifty.errors import RequestError
from thrifty.export.engines import compute_of
from thrifty.export.forms.form import ROWS_AT_ONCE, Signature, Takes, described, labelled, misnamed, named, softmax
from thrifty.spec import BundleInfo
from thrifty.spec.transcripts import spelled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import nn

    from thrifty.export.engines import Computed

MAX_SECONDS = 60.0
WIDEST_BEAM = 64
# of waves: what convolutions make of a second of them is 6.5 MB a row, where there are 512 channels
WAVES_AT_ONCE = 8


class Sounds:
    """Files of sound to labels.

    Rows are frames of bands or of samples.
    """

    takes: Takes = "bytes"
    says = "the bytes of one sound file"
    options: Sequence[str] = ("max_seconds",)
    alone = False

    def __init__(self, info: BundleInfo, model: nn.Module | Computed, tokenizer: Tokenizer | None) -> None:
        self._data, self._compute = info.data, compute_of(model)
        self.inputs: Signature = {"sound": ("BYTES", (-1,))}
        self.outputs = labelled(info.data.labels)

    def row(self, raw: bytes, *, max_seconds: float = MAX_SECONDS) -> NDArray[np.float32]:
        """Decode a sound file and make frames of it as of its training data: float32 [T, M], normalised.

        Raises:
            DataError: the bytes are no sound that can be decoded, or it is longer than ``max_seconds``.
        """
        from thrifty.data.sounds.frames import normalised
        from thrifty.data.sounds.sound import Limits, read_sound, resample
        from thrifty.data.sounds.spectrum import features_of

        assert self._data.sound is not None
        samples, rate = read_sound(raw, Limits(0.0, max_seconds))
        return normalised(features_of(resample(samples, rate, self._data.sound.rate), self._data.sound), self._data)

    def logits(self, rows: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Answer recordings of `row`, float32 [K] or [U, V] each; those of like length are computed together.

        Rows do not know each other.
        """
        from thrifty.data.sounds.frames import padded_frames

        assert self._data.sound is not None
        at_once = WAVES_AT_ONCE if self._data.sound.is_wave else ROWS_AT_ONCE
        found: dict[int, NDArray[np.float32]] = {}
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
        for start in range(0, len(order), at_once):
            chosen = order[start : start + at_once]
            x_NTM = padded_frames([rows[row] for row in chosen], len(rows[chosen[0]]))
            found |= zip(chosen, self._compute(x_NTM), strict=True)
        return [found[row] for row in range(len(rows))]

    def answers(self, rows: Sequence[NDArray[np.float32]]) -> list[dict[str, Any]]:
        """Label recordings of `row`."""
        import numpy as np

        return named(self._data.labels, softmax(np.stack(self.logits(rows))))

    def described(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Name the label and all probabilities."""
        return described(self._data.labels, answer)

    def made_up(self) -> Any:
        """Return a tenth of a second of mean sound."""
        import numpy as np

        return np.zeros((10, self._data.shape[1]), dtype=np.float32)

    def probe(self) -> str:
        """Answer mean sound."""
        import numpy as np

        return misnamed(self._compute(np.zeros((1, 10, self._data.shape[1]), np.float32)), len(self._data.labels))


class Transcripts(Sounds):
    """Files of sound to what is said in them."""

    options: Sequence[str] = ("max_seconds", "beam")

    def __init__(self, info: BundleInfo, model: nn.Module | Computed, tokenizer: Tokenizer | None) -> None:
        super().__init__(info, model, tokenizer)
        self.outputs: Signature = {"transcript": ("BYTES", (-1,))}

    def row(self, raw: bytes, *, max_seconds: float = MAX_SECONDS, beam: int = 1) -> Any:
        """Make frames of a sound file, with how many transcripts are followed at once: 1 is the greedy way."""
        if not (isinstance(beam, int) and 1 <= beam <= WIDEST_BEAM):
            raise RequestError(f"beam {beam!r} is out of range", mend=f"It is a whole number from 1 to {WIDEST_BEAM}.")
        return super().row(raw, max_seconds=max_seconds), beam

    def answers(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Transcribe recordings of `row`."""
        from thrifty.models.decoding import beam, greedy

        logits = self.logits([frames for frames, _ in rows])
        said = [
            (greedy(each[None]) if width == 1 else beam(each[None], width))[0]
            for each, (_, width) in zip(logits, rows, strict=True)
        ]
        return [{"transcript": spelled(tokens, self._data.labels)} for tokens in said]

    def described(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Give the transcript."""
        return dict(answer)

    def made_up(self) -> Any:
        """Return a tenth of a second of mean sound."""
        return super().made_up(), 1

    def probe(self) -> str:
        """Answer mean sound."""
        import numpy as np

        found = self._compute(np.zeros((1, 10, self._data.shape[1]), np.float32))
        fits = found.ndim == 3 and found.shape[2] == self._data.vocabulary
        return "" if fits else f"{found.shape[-1]} values for {self._data.vocabulary} tokens"
