"""Frames between the server and a worker: MessagePack, with arrays as raw bytes beside it; nothing is unpickled.

A frame: length of the head (4 bytes), length of all arrays (8 bytes), the head, the arrays. In the head an array is
the extension 1: MessagePack of its type, shape, and where its bytes begin.
"""

from __future__ import annotations

import math
import socket
import struct
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

MAX_HEAD_BYTES = 2**30
MAX_ARRAY_BYTES = 2**33
_LENGTHS = struct.Struct("<IQ")
_ARRAY = 1
_KINDS = "biuf"  # booleans, whole numbers, floating ones: no objects
_encode = msgspec.msgpack.Encoder().encode
_where = msgspec.msgpack.Decoder(tuple[str, tuple[int, ...], int]).decode
_PARTS = 512  # that one call of the system takes, safely below its 1024


def send(connection: socket.socket, value: Any) -> None:
    """Send plain values (numbers, texts, bytes, lists, dicts) and arrays in them; tuples arrive as lists.

    Raises:
        OSError: the other side is gone, or is slower than the connection's timeout.
    """
    parts: list[memoryview] = []
    size = 0

    def place(found: Any) -> msgspec.msgpack.Ext:
        nonlocal size
        array = np.asarray(found)
        if array.dtype.kind not in _KINDS:
            raise TypeError(f"{type(found).__name__} cannot be sent")
        where = (array.dtype.str, array.shape, size)
        size += array.nbytes
        if array.nbytes:
            parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return msgspec.msgpack.Ext(_ARRAY, _encode(where))

    head = msgspec.msgpack.encode(value, enc_hook=place)
    whole: list[memoryview] = [memoryview(_LENGTHS.pack(len(head), size) + head), *parts]
    if len(whole) > _PARTS:
        whole = [memoryview(b"".join(whole))]
    while whole:
        sent = connection.sendmsg(whole)
        while whole and sent >= len(whole[0]):
            sent -= len(whole.pop(0))
        if whole and sent:
            whole[0] = whole[0][sent:]


def receive(connection: socket.socket) -> Any:
    """Wait for a frame; arrays in it may be written to.

    Raises:
        EOFError: the other side is gone.
        TimeoutError: nothing came within the connection's timeout.
        ValueError: what came is no frame.
    """
    lengths = bytearray(_LENGTHS.size)
    _fill(connection, lengths)
    head_bytes, array_bytes = _LENGTHS.unpack(lengths)
    if head_bytes > MAX_HEAD_BYTES or array_bytes > MAX_ARRAY_BYTES:
        raise ValueError(f"a frame of {head_bytes} and {array_bytes} bytes")
    head, raw = bytearray(head_bytes), bytearray(array_bytes)
    _fill(connection, head, raw)

    def found(code: int, data: memoryview) -> Any:
        if code != _ARRAY:
            raise ValueError(f"extension {code}")
        kind, shape, start = _where(data)
        dtype = np.dtype(kind)
        if dtype.kind not in _KINDS:
            raise ValueError(f"an array of {kind}")
        array: NDArray[Any] = np.frombuffer(raw, dtype, count=math.prod(shape), offset=start)
        return array.reshape(shape) if shape else array[0]

    return msgspec.msgpack.decode(head, ext_hook=found)


def _fill(connection: socket.socket, *parts: bytearray) -> None:
    """Read until all parts are full, one after the other."""
    left = [memoryview(part) for part in parts if part]
    while left:
        got = connection.recvmsg_into(left)[0]
        if not got:
            raise EOFError("the connection was closed")
        while left and got >= len(left[0]):
            got -= len(left.pop(0))
        if got:
            left[0] = left[0][got:]
