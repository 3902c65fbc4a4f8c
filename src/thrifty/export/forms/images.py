"""Images in, labels out.

Shapes: N images, H × W pixels, C channels, K labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thrifty.errors import RequestError
from thrifty.export.engines import compute_of
from thrifty.export.forms.form import ROWS_AT_ONCE, Signature, Takes, described, labelled, misnamed, named, softmax
from thrifty.spec import BundleInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import nn

    from thrifty.export.engines import Computed

MAX_PIXELS = 50_000_000


class Images:
    """Files of images, or pixels as the model takes them, to labels."""

    takes: Takes = "bytes"
    says = "the bytes of one image file"
    options: Sequence[str] = ("max_pixels",)
    alone = False

    def __init__(self, info: BundleInfo, model: nn.Module | Computed, tokenizer: Tokenizer | None) -> None:
        self._data, self._compute = info.data, compute_of(model)
        channels, height, width = info.data.shape
        self.inputs: Signature = {"image": ("BYTES", (-1,)), "pixels": ("UINT8", (-1, height, width, channels))}
        self.outputs = labelled(info.data.labels)

    def row(self, raw: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """Decode an image file and fit it to the model as its training data was: uint8 of shape [H, W, C].

        Raises:
            DataError: the bytes are no image that can be decoded, or it has over ``max_pixels`` pixels.
        """
        from thrifty.data.images.image import decode, fit

        channels, side, _ = self._data.shape
        color = "gray" if channels == 1 else "rgb"
        return fit(decode(raw, max_pixels=max_pixels), size=side, color=color, crop=self._data.crop)

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probability of each label for each image: uint8 [N, H, W, C] to float32 [N, K].

        Rows do not know each other: the model is in ``eval`` mode, where no layer looks across images. Guaranteed is
        equality up to rounding (1e-5), not equal bits: kernels add in another order at another batch size.
        """
        import numpy as np

        from thrifty.data.images.image import normalise

        channels, side, _ = self._data.shape
        if images.dtype != np.uint8 or images.shape[1:] != (side, side, channels):
            raise RequestError(
                f"images of {images.dtype} {list(images.shape)} do not fit",
                mend=f"The model takes uint8 [N, {side}, {side}, {channels}].",
            )
        answers = [np.zeros((0, len(self._data.labels)), dtype=np.float32)]
        for start in range(0, len(images), ROWS_AT_ONCE):
            rows = normalise(images[start : start + ROWS_AT_ONCE], self._data.mean, self._data.std)
            answers.append(softmax(self._compute(rows)))
        return np.concatenate(answers)

    def answers(self, rows: Sequence[NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """Label images of `row`."""
        import numpy as np

        return named(self._data.labels, self.probabilities(np.stack(rows)))

    def described(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Name the label and all probabilities."""
        return described(self._data.labels, answer)

    def made_up(self) -> NDArray[np.uint8]:
        """Return an image of zeros."""
        import numpy as np

        channels, height, width = self._data.shape
        return np.zeros((height, width, channels), dtype=np.uint8)

    def probe(self) -> str:
        """Answer an image of the mean colour."""
        import numpy as np

        return misnamed(self._compute(np.zeros((1, *self._data.shape), np.float32)), len(self._data.labels))
