"""What the bytes of an image file say before it is decoded: its format, its size, and whether it is whole."""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from thrifty.errors import DataError


@dataclass(frozen=True, slots=True)
class Header:
    """What an image says of itself.

    Attributes:
        format: its name.
        width, height: in pixels as stored.
        alpha: where the format says so and its alpha can be trusted.
        deep: 16 bits a channel.
        several: it holds more pictures than one.
        turn: orientation by EXIF, 1 to 8, of PNG and WebP.
    """

    format: str
    width: int
    height: int
    alpha: bool
    deep: bool = False
    several: bool = False
    turn: int = 1


def read_header(raw: bytes) -> Header:
    """Read the size of a PNG, JPEG, BMP, GIF, WebP or TIFF image and check that the file is whole; decodes nothing.

    Raises:
        DataError: "not an image", "truncated" or "damaged", with the detail after a colon.
    """
    for magic, read in _READERS.items():
        if raw.startswith(magic):
            try:
                header = read(raw)
            except (struct.error, IndexError):
                raise DataError("truncated: the file ends within its header") from None
            if header.width < 1 or header.height < 1:
                raise DataError(f"damaged: its header says {header.width}x{header.height} pixels")
            return header
    if not raw:
        raise DataError("empty")
    raise DataError("not an image: neither PNG, JPEG, BMP, GIF, WebP nor TIFF by its first bytes")


def _png(raw: bytes) -> Header:
    # PNG specification (third edition), section 5.3: length, type, data, CRC of type and data
    place, width, height, bits, alpha, several, turn = 8, 0, 0, 8, False, False, 1
    while place + 12 <= len(raw):
        length = struct.unpack_from(">I", raw, place)[0]
        end = place + 12 + length
        kind = raw[place + 4 : place + 8]
        if end > len(raw):
            break
        if zlib.crc32(memoryview(raw)[place + 4 : end - 4]) != struct.unpack_from(">I", raw, end - 4)[0]:
            raise DataError(f"damaged: wrong checksum in PNG chunk {kind.decode('latin-1')!r}")
        if kind == b"IHDR":
            width, height, bits, color = struct.unpack_from(">IIBB", raw, place + 8)
            alpha = color in {4, 6}
        elif kind == b"tRNS":
            alpha = True
        elif kind == b"acTL":
            several = True
        elif kind == b"eXIf":
            turn = _orientation(raw[place + 8 : end - 4])
        elif kind == b"IEND":
            return Header("PNG", width, height, alpha, bits == 16, several, turn)
        place = end
    raise DataError("truncated: the PNG has no end chunk")


# In entropy-coded data FF is followed by 00; D0 to D7 are restart markers (ITU-T T.81, section B.1.1)
# (a pattern that begins with one letter is looked for ten times as fast as one that begins with a repeated one)
_JPEG_MARKER = re.compile(rb"\xff\xff*([^\x00\xff\xd0-\xd7])", re.DOTALL)
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg(raw: bytes) -> Header:
    place, width, height = 2, 0, 0
    while found := _JPEG_MARKER.search(raw, place):
        marker, place = found[1][0], found.end()
        if marker == 0xD9:
            return Header("JPEG", width, height, alpha=False)
        if marker in {0x01, 0xD8}:
            continue
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", raw, place + 3)
        place += struct.unpack_from(">H", raw, place)[0]
    raise DataError("truncated: the JPEG has no end marker")


def _bmp(raw: bytes) -> Header:
    offset, size = struct.unpack_from("<II", raw, 10)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", raw, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", raw, 18)
    height = abs(height)
    row_bytes = (width * bits + 31) // 32 * 4
    if compression in {0, 3} and len(raw) < offset + row_bytes * height:
        raise DataError(f"truncated: {len(raw)} bytes where the BMP needs {offset + row_bytes * height}")
    # the fourth byte of a 32-bit pixel is more often left at zero than meant as alpha
    return Header("BMP", width, height, alpha=False)


def _gif(raw: bytes) -> Header:
    # GIF89a specification: after the screen and its colours follow blocks, each a list of parts that an empty one ends
    width, height, packed = struct.unpack_from("<HHB", raw, 6)
    place, pictures, alpha = 13 + _colours(packed), 0, False
    while place < len(raw):
        kind = raw[place]
        if kind == 0x3B:
            return Header("GIF", width, height, alpha, several=pictures > 1)
        if kind == 0x2C:
            pictures += 1
            place += 11 + _colours(raw[place + 9])
        elif kind == 0x21:
            alpha |= raw[place + 1] == 0xF9 and bool(raw[place + 3] & 1)
            place += 2
        else:
            raise DataError(f"damaged: unknown GIF block {kind:#04x}")
        while raw[place]:
            place += 1 + raw[place]
        place += 1
    raise DataError("truncated: the GIF has no end mark")


def _colours(packed: int) -> int:
    """Bytes of a table of colours, by the byte that tells of it."""
    return 3 << (packed & 7) + 1 if packed & 0x80 else 0


def _webp(raw: bytes) -> Header:
    # WebP container specification; VP8: RFC 6386, section 9.1
    size = struct.unpack_from("<I", raw, 4)[0] + 8
    if raw[8:12] != b"WEBP":
        raise DataError("not an image: a RIFF file that is not WebP")
    if size > len(raw):
        raise DataError(f"truncated: {len(raw)} bytes where the WebP needs {size}")
    kind = raw[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", raw, 26)
        return Header("WebP", width & 0x3FFF, height & 0x3FFF, alpha=False)
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", raw, 21)[0]
        return Header("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, alpha=bool(bits >> 28 & 1))
    if kind == b"VP8X":
        width = int.from_bytes(raw[24:27], "little") + 1
        height = int.from_bytes(raw[27:30], "little") + 1
        flags, turn = raw[20], _orientation(_webp_exif(raw[:size])) if raw[20] & 0x08 else 1
        return Header("WebP", width, height, bool(flags & 0x10), several=bool(flags & 0x02), turn=turn)
    raise DataError(f"damaged: unknown WebP chunk {kind.decode('latin-1')!r}")


def _webp_exif(raw: bytes) -> bytes:
    place = 12
    while place + 8 <= len(raw):
        length = struct.unpack_from("<I", raw, place + 4)[0]
        if raw[place : place + 4] == b"EXIF":
            return raw[place + 8 : place + 8 + length].removeprefix(b"Exif\0\0")
        place += 8 + length + length % 2
    return b""


def _orientation(exif: bytes) -> int:
    """Which way an image is turned (Exif 2.3, tag 274); 1, upright, where nothing or nothing sensible is said."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    place = struct.unpack_from(f"{order}I", exif, 4)[0]
    with contextlib.suppress(struct.error):
        for number in range(struct.unpack_from(f"{order}H", exif, place)[0]):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, place + 2 + 12 * number)
            if tag == _ORIENTATION and 1 <= value <= 8:
                return int(value)
    return 1


# TIFF 6.0, section 2: tags of the first image that tell its size, its samples, and where its strips or tiles lie
_WIDTH, _HEIGHT, _BITS, _OFFSETS, _SAMPLES, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS = (
    256,
    257,
    258,
    273,
    277,
    279,
    324,
    325,
)
_TIFF_TYPES = {3: "H", 4: "I"}
_MOST_STRIPS = 1 << 20
_ORIENTATION = 274


def _tiff(raw: bytes) -> Header:
    order = "<" if raw[:2] == b"II" else ">"
    place = struct.unpack_from(f"{order}I", raw, 4)[0]
    found: dict[int, tuple[int, ...]] = {}
    entries = struct.unpack_from(f"{order}H", raw, place)[0]
    for number in range(entries):
        tag, kind, count = struct.unpack_from(f"{order}HHI", raw, place + 2 + 12 * number)
        code = _TIFF_TYPES.get(kind)
        if code is None or count > _MOST_STRIPS:
            continue
        form, at = f"{order}{count}{code}", place + 10 + 12 * number
        # what does not fit in four bytes lies elsewhere
        if struct.calcsize(form) > 4:
            at = struct.unpack_from(f"{order}I", raw, at)[0]
        found[tag] = struct.unpack_from(form, raw, at)
    offsets, counts = (found.get(tag) or found.get(tile, ()) for tag, tile in _PIECES)
    end = max((offset + count for offset, count in zip(offsets, counts, strict=False)), default=0)
    if end > len(raw):
        raise DataError(f"truncated: {len(raw)} bytes where the TIFF needs {end}")
    width, height = (found.get(tag, (0,))[0] for tag in (_WIDTH, _HEIGHT))
    another = struct.unpack_from(f"{order}I", raw, place + 2 + 12 * entries)[0]
    deep, alpha = max(found.get(_BITS, (1,))) == 16, found.get(_SAMPLES, (1,))[0] == 4
    return Header("TIFF", width, height, alpha, deep, several=another != 0)


_PIECES = ((_OFFSETS, _TILE_OFFSETS), (_COUNTS, _TILE_COUNTS))
_READERS: dict[bytes, Callable[[bytes], Header]] = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"\xff\xd8\xff": _jpeg,
    b"BM": _bmp,
    b"GIF87a": _gif,
    b"GIF89a": _gif,
    b"RIFF": _webp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
}
