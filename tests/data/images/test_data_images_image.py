"""Decoding, fitting and normalising images, and telling whole files from broken ones."""

from __future__ import annotations

import struct
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from data_folders import chunk, encoded, exif, gif, image, png
from hypothesis import given
from hypothesis import strategies as st

from thrifty.data.images.image import FIRST_OF_SEVERAL, ON_WHITE, SIXTEEN_BITS, decode, decoded, fit, is_gray, normalise
from thrifty.errors import DataError

PIXELS = 10_000
SUFFIXES = [".png", ".jpg", ".bmp", ".webp", ".tif"]
LEVELS = np.arange(12 * 11, dtype=np.uint8).reshape(12, 11) % 128


def reason(raw: bytes, max_pixels: int = PIXELS) -> str:
    with pytest.raises(DataError) as caught:
        decode(raw, max_pixels=max_pixels)
    return caught.value.what


def test_colours_come_out_red_green_blue() -> None:
    blue_green_red = np.zeros((4, 5, 3), np.uint8)
    blue_green_red[:, :, 2] = 200
    found = decode(encoded(blue_green_red), max_pixels=PIXELS)
    assert found.shape == (4, 5, 3)
    assert found[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_give_the_pixels_back(suffix: str, channels: int) -> None:
    pixels = image(1, 7, 9, channels)
    raw = bytes(cv2.imencode(suffix, pixels, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes())
    found = decode(raw, max_pixels=PIXELS)
    if channels == 1:
        assert is_gray(found)
        assert np.array_equal(found[:, :, 0], pixels)
    else:
        assert np.array_equal(found, pixels[:, :, ::-1])


def test_sixteen_bits_become_eight() -> None:
    found = decode(png(4, 1, 16, 0, [struct.pack(">4H", 0, 65535, 257 * 100, 257 * 100 + 129)]), max_pixels=PIXELS)
    assert found.ravel().tolist() == [0, 255, 100, 101]


def test_alpha_is_composited_on_white() -> None:
    found = decode(png(3, 1, 8, 4, [bytes([0, 0, 0, 255, 100, 128])]), max_pixels=PIXELS)
    assert found[0, :, 0].tolist() == [255, 0, round((100 * 128 + 255 * 127) / 255)]
    rgba = decode(png(1, 1, 16, 6, [struct.pack(">4H", 65535, 0, 0, 0)]), max_pixels=PIXELS)
    assert rgba[0, 0].tolist() == [255, 255, 255]


def test_palette_and_single_bits() -> None:
    palette = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0]))
    found = decode(png(2, 1, 8, 3, [b"\1\0"], palette), max_pixels=PIXELS)
    assert found.tolist() == [[[0, 255, 0], [255, 0, 0]]]
    assert decode(png(8, 1, 1, 0, [b"\xa0"]), max_pixels=PIXELS).ravel().tolist() == [255, 0, 255, 0, 0, 0, 0, 0]


def webp_with(image_HW4: np.ndarray, orientation: int) -> bytes:
    """A WebP with alpha and EXIF; cv2 writes none."""

    def part(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)

    height, width = image_HW4.shape[:2]
    pixels = cv2.imencode(".webp", image_HW4, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()[12:]
    head = struct.pack("<I", 0x18) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBP" + part(b"VP8X", head) + pixels + part(b"EXIF", exif(orientation))
    return b"RIFF" + struct.pack("<I", len(body)) + body


# where the first row and column of an upright image are, as it is stored (Exif 2.3, tag 274)
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_what_has_alpha_is_turned_as_what_has_none(orientation: int) -> None:
    stored = image(3, 4, 6, 3)
    opaque = np.dstack([stored, np.full((4, 6), 255, np.uint8)])
    rows = [row.tobytes() for row in opaque[:, :, [2, 1, 0, 3]]]
    upright = TURNS[orientation](stored[:, :, ::-1])
    for raw in (png(6, 4, 8, 6, rows, chunk(b"eXIf", exif(orientation))), webp_with(opaque, orientation)):
        assert np.array_equal(decode(raw, max_pixels=PIXELS), upright)
    plain = [row.tobytes() for row in stored[:, :, ::-1]]
    without = png(6, 4, 8, 2, plain, chunk(b"eXIf", exif(orientation)))
    assert np.array_equal(decode(without, max_pixels=PIXELS), upright)


@given(content=st.binary(max_size=40), order=st.sampled_from([b"II*\0", b"MM\0*"]))
def test_exif_of_nothing_sensible_turns_nothing(content: bytes, order: bytes) -> None:
    raw = png(1, 1, 8, 4, [bytes([9, 255])], chunk(b"eXIf", order + content))
    assert decode(raw, max_pixels=PIXELS).shape == (1, 1, 3)


def several(suffix: str) -> bytes:
    """Two pictures in one file, dark and bright."""
    frames = [np.full((6, 6, 4), (level, level, level, 255), np.uint8) for level in (0, 255)]
    if suffix == ".gif":
        return gif(np.zeros((6, 6), np.uint8), np.full((6, 6), 127, np.uint8))
    if suffix == ".tif":
        return bytes(cv2.imencodemulti(suffix, frames)[1].tobytes())
    animation = cv2.Animation()
    animation.frames, animation.durations = frames, [100, 100]
    return bytes(cv2.imencodeanimation(suffix, animation)[1].tobytes())


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp", ".tif"])
def test_of_several_pictures_the_first_is_taken_and_told(suffix: str) -> None:
    found, told = decoded(several(suffix), max_pixels=PIXELS)
    assert found.shape[:2] == (6, 6) and found.max() < 10
    assert told == (FIRST_OF_SEVERAL,)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (png(1, 1, 16, 0, [b"\1\2"]), (SIXTEEN_BITS,)),
        (bytes(cv2.imencode(".tif", np.full((2, 2), 9_999, np.uint16))[1].tobytes()), (SIXTEEN_BITS,)),
        (png(1, 1, 8, 4, [bytes([9, 128])]), (ON_WHITE,)),
        (png(1, 1, 8, 4, [bytes([9, 255])]), ()),
        (encoded(image(1)), ()),
        (encoded(image(1), ".jpg"), ()),
        (gif(LEVELS), ()),
        (gif(LEVELS, hole=9), (ON_WHITE,)),
    ],
)
def test_what_is_given_up_is_told(raw: bytes, told: tuple[str, ...]) -> None:
    assert decoded(raw, max_pixels=PIXELS)[1] == told


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int32])
def test_pixels_of_other_numbers_are_refused(dtype: type) -> None:
    raw = bytes(cv2.imencode(".tif", np.zeros((3, 3), dtype))[1].tobytes())
    assert reason(raw) == f"not of 8 or 16 bits: its pixels are {np.dtype(dtype)}"


def test_gifs() -> None:
    found = decode(gif(LEVELS), max_pixels=PIXELS)
    assert is_gray(found) and np.array_equal(found[:, :, 0], 2 * LEVELS)
    holed = decode(gif(LEVELS, hole=9), max_pixels=PIXELS)[:, :, 0]
    assert np.array_equal(holed, np.where(LEVELS == 9, 255, 2 * LEVELS))
    assert reason(gif(LEVELS), 100) == "too many pixels: 11x12 is over 100"
    assert reason(gif(LEVELS).replace(b",", b"?")) == "damaged: unknown GIF block 0x3f"


@given(length=st.integers(13, len(gif(LEVELS)) - 1))
def test_every_cut_of_a_gif_is_noticed(length: int) -> None:
    assert reason(gif(LEVELS)[:length]).startswith("truncated")


def test_exif_orientation_is_applied() -> None:
    raw = encoded(image(2, 6, 10, 3), ".jpg")
    block = b"Exif\0\0" + exif(6)
    turned = raw[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + raw[2:]
    upright = decode(raw, max_pixels=PIXELS)
    assert np.array_equal(decode(turned, max_pixels=PIXELS), np.rot90(upright, -1))
    assert decode(png(4, 2, 8, 2, [bytes(12)] * 2, chunk(b"eXIf", exif(6))), max_pixels=PIXELS).shape == (4, 2, 3)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(data=st.data())
def test_every_cut_is_noticed(suffix: str, data: st.DataObject) -> None:
    raw = encoded(image(3, 16, 16, 3), suffix)
    length = data.draw(st.integers(0, len(raw) - 1))
    says = reason(raw[:length])
    assert says.startswith("truncated" if length >= 12 else ("truncated", "not an image", "empty"))


def test_a_cut_jpeg_is_not_saved_by_the_end_marker_of_its_thumbnail() -> None:
    thumbnail = encoded(image(4, 4, 4), ".jpg")
    raw = encoded(image(5, 16, 16), ".jpg")
    block = b"Exif\0\0" + thumbnail
    whole = raw[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + raw[2:]
    assert decode(whole, max_pixels=PIXELS).shape == (16, 16, 1)
    assert reason(whole[:-2]) == "truncated: the JPEG has no end marker"


@given(place=st.integers(0, 10**6), change=st.integers(1, 255))
def test_a_png_with_one_wrong_byte_is_refused(place: int, change: int) -> None:
    raw = bytearray(encoded(image(6, 8, 8)))
    raw[place % len(raw)] ^= change
    assert reason(bytes(raw)).split(":")[0] in {"damaged", "truncated", "not an image"}


@given(
    head=st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF89a", b"RIFF", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]
    ),
    tail=st.binary(max_size=99),
)
def test_any_bytes_give_an_image_or_a_reason(head: bytes, tail: bytes) -> None:
    try:
        assert decode(head + tail, max_pixels=PIXELS).dtype == np.uint8
    except DataError as error:
        assert error.what.split(":")[0] in {"empty", "not an image", "truncated", "damaged", "too many pixels"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_too_many_pixels_are_refused_by_the_header(suffix: str) -> None:
    assert reason(encoded(image(7, 30, 20), suffix), 599) == "too many pixels: 20x30 is over 599"
    assert decode(encoded(image(7, 30, 20), suffix), max_pixels=600).shape[:2] == (30, 20)


def test_a_header_that_promises_a_billion_pixels_costs_nothing() -> None:
    assert reason(png(60_000, 60_000, 8, 0, [b"\0"])).startswith("too many pixels: 60000x60000")


@given(
    height=st.integers(1, 40), width=st.integers(1, 40), channels=st.sampled_from([1, 3]),
    size=st.integers(4, 40), color=st.sampled_from(["gray", "rgb"]), level=st.integers(0, 255),
    crop=st.sampled_from(["center", "none", "letterbox"]),
)  # fmt: skip
def test_fit_gives_the_asked_shape_and_keeps_a_flat_image_flat(
    height: int, width: int, channels: int, size: int, color: str, crop: str, level: int
) -> None:
    found = fit(np.full((height, width, channels), level, np.uint8), size=size, color=color, crop=crop)
    assert found.shape == (size, size, 1 if color == "gray" else 3)
    assert found.dtype == np.uint8
    assert set(np.unique(found)) <= {level, 114} if crop == "letterbox" else (found == level).all()


def test_fit_leaves_an_image_of_the_right_size_alone_and_crops_the_middle() -> None:
    wide = np.zeros((4, 8, 1), np.uint8)
    wide[:, 2:6] = 9
    assert (fit(wide, size=4, color="gray", crop="center") == 9).all()
    assert fit(wide, size=4, color="gray", crop="none")[0, :, 0].tolist() == [0, 9, 9, 0]
    own = image(8, 4, 4, 3)
    assert np.array_equal(fit(own, size=4, color="rgb", crop="center"), own)


@given(height=st.integers(1, 60), width=st.integers(1, 60), size=st.integers(4, 40))
def test_a_letterboxed_image_keeps_its_form_between_bands(height: int, width: int, size: int) -> None:
    found = fit(np.full((height, width, 1), 200, np.uint8), size=size, color="gray", crop="letterbox")[:, :, 0]
    rows, columns = np.flatnonzero((found == 200).any(1)), np.flatnonzero((found == 200).any(0))
    assert (found[np.ix_(rows, columns)] == 200).all() and (found == 200).sum() == len(rows) * len(columns)
    longest = max(height, width)
    assert len(rows) == max(1, round(size * height / longest)) and len(columns) == max(1, round(size * width / longest))
    for inside in (rows, columns):
        assert abs(inside[0] - (size - 1 - inside[-1])) <= 1


def test_fit_takes_the_longest_images() -> None:
    for shape in ((1, 70_000, 1), (70_000, 1, 3)):
        assert fit(np.zeros(shape, np.uint8), size=8, color="gray", crop="none").shape == (8, 8, 1)


def test_gray_of_colour_follows_the_weights_of_bt601() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[:, :, 0] = 255
    assert fit(red, size=4, color="gray", crop="center")[0, 0, 0] == round(0.299 * 255)


def test_normalise_is_the_formula_and_channels_last() -> None:
    pixels = np.stack([image(seed, 5, 6, 3) for seed in range(4)])
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    found = normalise(pixels, mean, std)
    expected = (pixels / 255 - np.array(mean)) / np.array(std)
    assert found.dtype == np.float32
    assert found.shape == (4, 3, 5, 6)
    assert np.allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-5)
    assert found.transpose(0, 2, 3, 1).flags.c_contiguous
