"""NumPy arrays in msgpack and JSON as four families of policy servers write them.

    openpi          {__ndarray__: True, data, dtype, shape}, a scalar {__npgeneric__: True, data, dtype}
    msgpack_numpy   {nd: True, type, kind, shape, data}, a scalar {nd: False, type, data}; XPolicyLab's
    gr00t           {__ndarray_class__: True, as_npy: a .npy file}
    json_numpy      {__numpy__: base64, dtype, shape}, in JSON instead of msgpack; OpenVLA's

What comes is not trusted: sizes are compared before memory is asked for, and nothing that runs code (pickle) is read.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import re
import struct
import sys
from typing import Any, Literal, Protocol

import msgpack
import numpy as np
from numpy.typing import NDArray

Dialect = Literal["openpi", "msgpack_numpy", "gr00t", "json_numpy"]
Array = NDArray[Any]

MAX_BYTES = 2**26
"""Of a message where the caller says nothing: 64 MiB, as vLLM-Omni has it."""
MAX_DEPTH = 16
MAX_ITEMS = 2**16  # values of a message besides the numbers of its arrays: each may cost 70 times its bytes
_MAX_AXES, _MAX_LENGTH = 8, 2**31
_SHOWN = 60  # letters of a wrong value in an error
_DTYPE = re.compile(r"[<>|=]?[biufSU][1-9]\d{0,3}")  # no objects, no records, no complex numbers
_NPY = re.compile(rb"\{'descr': '([^']{2,8})', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\), \} *\n")
_NPY_MAGIC, _NPY_HEAD = b"\x93NUMPY\x01\x00", struct.Struct("<8sH")


def pack(value: Any, dialect: Dialect) -> bytes:
    """A message of dicts, lists, texts, numbers and arrays; ValueError where something else is inside."""
    marks = _MARKS[dialect]

    def plain(item: Any) -> Any:
        if isinstance(item, np.generic):
            return item.item()
        if not isinstance(item, np.ndarray):
            raise TypeError(f"a {type(item).__name__} cannot be sent")
        if not _DTYPE.fullmatch(item.dtype.str):
            raise TypeError(f"an array of {item.dtype} cannot be sent")
        return marks.write(item)

    try:
        if dialect == "json_numpy":
            return json.dumps(value, default=plain, allow_nan=False).encode()
        return bytes(msgpack.packb(value, default=plain))
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None


def unpack(data: bytes, dialect: Dialect, max_bytes: int = MAX_BYTES) -> Any:
    """The value of a message. Keys are texts; arrays are read-only, and share the message's memory where they can.

    Raises:
        ValueError: it is longer than `max_bytes`, is no message of that kind, or an array in it is not all there, is of
            a type that is not taken, or is of another size than it says; one line that says what and where.
    """
    if len(data) > max_bytes:
        raise ValueError(f"a message of {len(data)} bytes, at most {max_bytes} are taken")
    try:
        if dialect == "json_numpy":
            _measure_json(data)
            found = json.loads(data)
        else:
            _measure(data)
            found = msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        form = "JSON" if dialect == "json_numpy" else "msgpack"
        raise ValueError(f"not {form}: {_line(error) or type(error).__name__}") from None
    return _read(found, _MARKS[dialect], "", MAX_DEPTH)


def numbers(value: Any) -> NDArray[np.float64]:
    """An array, or lists, of numbers; what is too large becomes infinite.

    Raises:
        ValueError: something else is inside, such as texts, which NumPy would read as numbers, or lists of two lengths.
    """
    found = np.asarray(value)
    if found.dtype.kind not in "fiu":
        raise ValueError(f"not numbers, but {found.dtype}")
    with np.errstate(over="ignore"):
        return found.astype(np.float64)


def _read(value: Any, marks: _Marks, place: str, depth: int) -> Any:
    """The value with its marked dicts as arrays."""
    if not isinstance(value, dict | list):
        return value
    if not depth:
        raise ValueError(f"{place[:_SHOWN]}: nested more than {MAX_DEPTH} deep")
    if isinstance(value, list):
        return [_read(item, marks, f"{place}[{k}]", depth - 1) for k, item in enumerate(value)]
    try:
        texts = {key if isinstance(key, str) else key.decode(): item for key, item in value.items()}
    except UnicodeDecodeError:
        raise ValueError(f"{place[:_SHOWN] or 'the message'}: a key is no text") from None
    if marks.sign in texts or marks.scalar in texts:
        try:
            return marks.read(texts)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            missing = f"lacks {error}" if isinstance(error, KeyError) else _line(error)
            raise ValueError(f"{place[:_SHOWN] or 'the message'}: not an array: {missing}") from None
    return {key: _read(item, marks, f"{place}.{key}".lstrip("."), depth - 1) for key, item in texts.items()}


class _Marks(Protocol):
    """How an array is marked: by the key `sign`, or `scalar` if it is one number."""

    sign: str
    scalar: str

    def write(self, array: Array) -> dict[Any, Any]:
        """A dict that stands for the array."""

    def read(self, texts: dict[str, Any]) -> Any:
        """What such a dict stands for; any error where it is none."""


class _Openpi:
    sign, scalar = "__ndarray__", "__npgeneric__"

    def write(self, array: Array) -> dict[Any, Any]:
        return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}

    def read(self, texts: dict[str, Any]) -> Any:
        if self.sign in texts:
            return _array(texts["data"], texts["dtype"], texts["shape"])
        return np.dtype(_known(texts["dtype"])).type(_number(texts["data"])).item()


class _MsgpackNumpy:
    sign = scalar = "nd"

    def write(self, array: Array) -> dict[Any, Any]:
        head = {b"nd": True, b"type": array.dtype.str, b"kind": b""}
        return head | {b"shape": array.shape, b"data": array.tobytes()}

    def read(self, texts: dict[str, Any]) -> Any:
        if texts.get("kind"):
            raise ValueError(f"kind {str(texts['kind'])[:_SHOWN]} is not taken")
        if texts["nd"]:
            return _array(texts["data"], texts["type"], texts["shape"])
        return _array(texts["data"], texts["type"], []).item()


class _Gr00t:
    sign = scalar = "__ndarray_class__"

    def write(self, array: Array) -> dict[Any, Any]:
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": file.getvalue()}

    def read(self, texts: dict[str, Any]) -> Any:
        data = memoryview(texts["as_npy"])
        if len(data) < _NPY_HEAD.size:
            raise ValueError("a .npy file that is cut off")
        magic, length = _NPY_HEAD.unpack_from(data)
        header = _NPY.fullmatch(data[_NPY_HEAD.size :][:length])
        if magic != _NPY_MAGIC or header is None:
            raise ValueError("not a .npy file as np.save writes it")
        dtype, by_column, shape = header[1].decode(), header[2] == b"True", header[3].decode()
        axes = [int(axis) for axis in shape.split(",") if axis.strip()]
        numbers = data[_NPY_HEAD.size + length :]
        return _array(numbers, dtype, axes[::-1]).T if by_column else _array(numbers, dtype, axes)


class _JsonNumpy:
    sign = scalar = "__numpy__"

    def write(self, array: Array) -> dict[Any, Any]:
        data = base64.b64encode(array.tobytes()).decode()
        return {"__numpy__": data, "dtype": array.dtype.str, "shape": array.shape}

    def read(self, texts: dict[str, Any]) -> Any:
        try:
            data = base64.b64decode(texts["__numpy__"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"base64: {error}") from None
        found = _array(data, texts["dtype"], texts["shape"])
        return found if found.ndim else found.item()


_MARKS: dict[Dialect, _Marks] = {
    "openpi": _Openpi(), "msgpack_numpy": _MsgpackNumpy(), "gr00t": _Gr00t(), "json_numpy": _JsonNumpy()
}  # fmt: skip


def _array(data: bytes | memoryview, dtype: Any, shape: Any) -> Array:
    """A view of the bytes; ValueError where they are not exactly the numbers of such an array."""
    kind = np.dtype(_known(dtype))
    if not isinstance(shape, list) or len(shape) > _MAX_AXES:
        raise ValueError(f"shape {str(shape)[:_SHOWN]} is not a list of up to {_MAX_AXES} lengths")
    if not all(type(length) is int and 0 <= length < _MAX_LENGTH for length in shape):
        raise ValueError(f"shape {str(shape)[:_SHOWN]} has a length that is none")
    expected = math.prod(shape) * kind.itemsize
    if not isinstance(data, bytes | memoryview) or len(data) != expected:
        given = f"{len(data)} bytes" if isinstance(data, bytes | memoryview) else f"a {type(data).__name__}"
        raise ValueError(f"{kind.str} {shape} is {expected} bytes, got {given}")
    found = np.frombuffer(data, kind).reshape(shape) if expected else np.zeros(shape, kind)
    found.flags.writeable = False
    if kind.kind == "U" and expected and np.frombuffer(data, f"{kind.byteorder}u4").max() > sys.maxunicode:
        raise ValueError(f"{kind.str}: a letter is none")
    return found


def _known(dtype: Any) -> str:
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise ValueError(f"numbers of type {str(dtype)[:_SHOWN]!r} are not taken")
    try:
        np.dtype(dtype)
    except TypeError:
        raise ValueError(f"numbers of type {dtype!r} are not known") from None
    return dtype


def _number(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str | bytes):
        raise ValueError(f"a {type(value).__name__} is no number")
    return value


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _measure_json(data: bytes) -> None:
    """ValueError where a text may hold more values than there may be."""
    if sum(data.count(sign) for sign in (b",", b"[", b"{")) > MAX_ITEMS:
        raise ValueError(f"more than {MAX_ITEMS} values")


_PLAIN = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8} | {
    first + k: 2**k for first in (0xCC, 0xD0) for k in range(4)
}  # bytes that follow: of nil, false, true, floats, whole numbers
_SIZED = {first + k: (2**k, "bytes") for first in (0xC4, 0xD9) for k in range(3)} | {
    0xDC: (2, "list"),
    0xDD: (4, "list"),
    0xDE: (2, "map"),
    0xDF: (4, "map"),
}  # bytes of the length that follows


def _measure(data: bytes) -> None:
    """ValueError where the headers of a msgpack message announce more values, depth or bytes than there may be.

    The library makes a list as long as its header says, for each of hundreds that may lie in each other, and an empty
    dict of one byte takes 64: so the headers are read first. Formats of https://github.com/msgpack/msgpack spec.md.
    """
    place, items = 0, 0
    open_values = [1]  # values that are still to come, by depth
    while open_values:
        if not open_values[-1]:
            open_values.pop()
            continue
        open_values[-1] -= 1
        items += 1
        if place >= len(data):
            raise ValueError(f"{len(data)} bytes are not all of it")
        first = data[place]
        place += 1
        if first < 0x80 or first >= 0xE0:  # a small number
            continue
        if first < 0xA0:
            length, kind = first & 0x0F, "map" if first < 0x90 else "list"
        elif first < 0xC0:
            length, kind = first & 0x1F, "bytes"
        elif first in _PLAIN:
            length, kind = _PLAIN[first], "bytes"
        elif first in _SIZED:
            size, kind = _SIZED[first]
            length = int.from_bytes(data[place : place + size], "big")
            place += size
        else:
            raise ValueError(f"byte {first:#x} begins nothing that is taken")
        if kind == "bytes":
            place += length
            continue
        values = 2 * length if kind == "map" else length
        if items + values > MAX_ITEMS:
            raise ValueError(f"more than {MAX_ITEMS} values")
        if len(open_values) > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        open_values.append(values)
    if place != len(data):
        raise ValueError(f"{len(data)} bytes, its values take {place}")
