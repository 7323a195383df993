"""Messages over a pipe: plain data as JSON, and the bytes of the arrays in it behind. Both ends import this file.

A message is two lengths (uint32 of the JSON, uint64 of the arrays, little-endian), the JSON, and the arrays' bytes. In
the JSON an array is an object of its type, shape and place. No pickle, so that nothing that comes in is executed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

_LENGTHS = struct.Struct("<IQ")
_KINDS = "biuf"  # numbers only


def send(stream: BinaryIO, message: Mapping[str, Any]) -> None:
    """Write a message of plain data and arrays of numbers, and flush.

    Raises:
        TypeError: something in it is neither.
    """
    arrays: list[bytes] = []

    def as_plain(value: object) -> object:
        if isinstance(value, np.generic):
            return value.item()
        if not isinstance(value, np.ndarray) or value.dtype.kind not in _KINDS:
            raise TypeError(f"a message takes plain data and arrays of numbers, got {type(value).__name__}")
        begin = sum(map(len, arrays))
        arrays.append(value.tobytes())
        return {"array": value.dtype.str, "shape": value.shape, "begin": begin}

    head = json.dumps(message, default=as_plain).encode()
    stream.write(_LENGTHS.pack(len(head), sum(map(len, arrays))))
    for part in (head, *arrays):
        stream.write(part)
    stream.flush()


def receive(read: Callable[[int], bytes]) -> dict[str, Any]:
    """Read a message; `read(size)` returns exactly so many bytes, or fewer at the end.

    Raises:
        EOFError: there is no further message, or it ends early.
    """
    head_size, data_size = _LENGTHS.unpack(_exactly(read, _LENGTHS.size))
    head, data = _exactly(read, head_size), _exactly(read, data_size)

    def as_array(found: dict[str, Any]) -> Any:
        if found.keys() != {"array", "shape", "begin"}:
            return found
        count = int(np.prod(found["shape"], dtype=int))
        return np.frombuffer(data, np.dtype(found["array"]), count, found["begin"]).reshape(found["shape"])

    return dict(json.loads(head, object_hook=as_array))


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = read(size)
    if len(data) < size:
        raise EOFError(f"the other end closed the pipe after {len(data)} of {size} bytes")
    return data
