"""Frames between the server and a worker: MessagePack, with arrays as raw bytes beside it; nothing is unpickled.

A frame: length of the head (4 bytes), length of all arrays (8 bytes), the head, the arrays. In the head an array is
the extension 1: MessagePack of its type, shape, and where its bytes begin; or the extension 2, the same of an array
that lies in memory which both sides share (`Shared`) and is not sent.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import socket
import struct
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

MAX_HEAD_BYTES = 2**30
MAX_ARRAY_BYTES = 2**33
SHARED_BYTES = 2**24  # larger frames are sent
_LENGTHS = struct.Struct("<IQ")
_ARRAY, _SHARED = 1, 2
_KINDS = "biuf"  # booleans, whole numbers, floating ones: no objects
_encode = msgspec.msgpack.Encoder().encode
_where = msgspec.msgpack.Decoder(tuple[str, tuple[int, ...], int]).decode
_PARTS = 512  # that one call of the system takes, safely below its 1024
_ALIGNED = 64
_READ_BYTES = 2**16

Frame = list[memoryview]


class Shared:
    """Memory in which one side lays arrays for the other, which looks at them until it has answered.

    Pages of it are taken when they are first used, and stay.

    Args:
        descriptor: of memory that the other side made; new memory where there is none.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("thrifty") if descriptor is None else descriptor
        if descriptor is None:
            os.ftruncate(self.descriptor, SHARED_BYTES)
        self.bytes: NDArray[np.uint8] = np.frombuffer(mmap.mmap(self.descriptor, SHARED_BYTES), np.uint8)

    def close(self) -> None:
        """Let go of the descriptor; the memory goes with the last array in it."""
        os.close(self.descriptor)


def framed(value: Any, shared: Shared | None = None) -> Frame:
    """Make a frame of plain values (numbers, texts, bytes, lists, dicts) and arrays in them; tuples arrive as lists.

    Args:
        value: to be sent.
        shared: memory for arrays, as far as they fit; what was laid there before is written over.

    Raises:
        TypeError: something in it cannot be sent.
    """
    parts: Frame = []
    size = laid = 0

    def place(found: Any) -> msgspec.msgpack.Ext:
        nonlocal size, laid
        array = np.asarray(found)
        if array.dtype.kind not in _KINDS:
            raise TypeError(f"{type(found).__name__} cannot be sent")
        if shared is not None and array.nbytes and laid + array.nbytes <= SHARED_BYTES:
            where = (array.dtype.str, array.shape, laid)
            np.ndarray(array.shape, array.dtype, shared.bytes, laid)[...] = array
            laid += -(-array.nbytes // _ALIGNED) * _ALIGNED
            return msgspec.msgpack.Ext(_SHARED, _encode(where))
        where = (array.dtype.str, array.shape, size)
        size += array.nbytes
        if array.nbytes:
            parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return msgspec.msgpack.Ext(_ARRAY, _encode(where))

    head = msgspec.msgpack.encode(value, enc_hook=place)
    return [memoryview(_LENGTHS.pack(len(head), size) + head), *parts]


def send(connection: socket.socket, value: Any) -> None:
    """Send what `framed` makes a frame of.

    Raises:
        OSError: the other side is gone, or is slower than the connection's timeout.
        TypeError: as `framed`.
    """
    send_frame(connection, framed(value))


def send_frame(connection: socket.socket, frame: Frame) -> None:
    """Send a frame.

    Raises:
        OSError: the other side is gone, or is slower than the connection's timeout.
    """
    whole = frame if len(frame) <= _PARTS else [memoryview(b"".join(frame))]
    while whole:
        sent = connection.sendmsg(whole)
        while whole and sent >= len(whole[0]):
            sent -= len(whole.pop(0))
        if whole and sent:
            whole[0] = whole[0][sent:]


class Incoming:
    """Frames of a connection that is read by nobody else; a small one is read by a single call of the system.

    Args:
        connection: to read from.
        shared: memory in which arrays may lie.
    """

    def __init__(self, connection: socket.socket, shared: Shared | None = None) -> None:
        self._connection, self._shared = connection, shared
        self._read = b""

    def receive(self) -> Any:
        """Wait for a frame; arrays in it may be written to, those that are shared until the next one is made.

        Raises:
            EOFError: the other side is gone.
            TimeoutError: nothing came within the connection's timeout.
            ValueError: what came is no frame.
        """
        while len(self._read) < _LENGTHS.size:
            self._add(self._connection.recv(_READ_BYTES))
        head_bytes, array_bytes = _LENGTHS.unpack_from(self._read)
        if head_bytes > MAX_HEAD_BYTES or array_bytes > MAX_ARRAY_BYTES:
            raise ValueError(f"a frame of {head_bytes} and {array_bytes} bytes")
        arrays = _LENGTHS.size + head_bytes
        end, read = arrays + array_bytes, self._read
        if len(read) >= end:
            self._read = read[end:]
            return _decoded(read[_LENGTHS.size : arrays], bytearray(read[arrays:end]), self._shared)
        self._read = b""
        head, raw = bytearray(read[_LENGTHS.size : arrays]), bytearray(read[arrays:])
        rest = [bytearray(head_bytes - len(head)), bytearray(array_bytes - len(raw))]
        _fill(self._connection, *rest)
        return _decoded(head + rest[0], raw + rest[1] if raw else rest[1], self._shared)

    def has_come(self) -> bool:
        """Take in what has come, without waiting; says whether anything is there to be received.

        Raises:
            EOFError: the other side is gone.
            OSError: it broke off.
        """
        with contextlib.suppress(BlockingIOError):
            self._add(os.read(self._connection.fileno(), _READ_BYTES))
        return bool(self._read)

    def _add(self, read: bytes) -> None:
        if not read:
            raise EOFError("the connection was closed")
        self._read += read


def _decoded(head: bytes | bytearray, raw: bytearray, shared: Shared | None) -> Any:
    """The value of a frame."""

    def found(code: int, data: memoryview) -> Any:
        if code not in (_ARRAY, _SHARED) or (code == _SHARED and shared is None):
            raise ValueError(f"extension {code}")
        kind, shape, start = _where(data)
        dtype = np.dtype(kind)
        if dtype.kind not in _KINDS:
            raise ValueError(f"an array of {kind}")
        lies_in = raw if code == _ARRAY or shared is None else shared.bytes
        array: NDArray[Any] = np.frombuffer(lies_in, dtype, count=math.prod(shape), offset=start)
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
