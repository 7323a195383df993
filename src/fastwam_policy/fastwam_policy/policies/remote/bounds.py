"""What may come over a connection: names, kinds and sizes are checked before memory is asked for.

A body is a NumPy archive as `np.savez` writes it, not compressed: it cannot unpack to more than was sent.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

_END = struct.Struct(
    "<4s4H2IH"
)  # of a zip file: signature, disks, entries twice, size and place of their list, comment
_END_SIGNATURE, _LARGE_SIGNATURE = b"PK\x05\x06", b"PK\x06\x07"
_LARGE_END = 20  # bytes: of what precedes the end of a file beyond 4 GB
_LISTED = 512  # bytes of an entry in the list, its name included
_HEADER = 1024  # bytes of text that describe an array
_OVERHEAD = 2048  # bytes of an entry besides its numbers
_SHOWN = 60  # letters of a name in an error


@dataclass(frozen=True)
class Bound:
    """What one array may be.

    Attributes:
        kinds: letters of `dtype.kind`, such as "iu".
        most: largest length of each axis.
        least: smallest length of each axis; empty: 0.
        itemsize: most bytes of a number or text.
        required: it must be there.
    """

    kinds: str
    most: tuple[int, ...] = ()
    least: tuple[int, ...] = ()
    itemsize: int = 8
    required: bool = True

    @property
    def nbytes(self) -> int:
        """Most bytes of its numbers."""
        return math.prod(self.most) * self.itemsize

    def check(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """ValueError where an array of that type and shape is none of these."""
        least = self.least or (0,) * len(self.most)
        inside = len(shape) == len(self.most) and all(
            low <= length <= high for low, length, high in zip(least, shape, self.most, strict=True)
        )
        if dtype.kind not in self.kinds or dtype.itemsize > self.itemsize or not inside:
            axes = (f"{high}" if low == high else f"{low}..{high}" for low, high in zip(least, self.most, strict=True))
            raise ValueError(
                f"{name}: must be of NumPy's kind {' or '.join(self.kinds)}, {self.itemsize} bytes a value at most, "
                f"[{', '.join(axes)}], got {str(dtype)[:_SHOWN]} {list(shape)[:8]}"
            )


def body_limit(bounds: Mapping[str, Bound]) -> int:
    """Most bytes of an archive that keeps the bounds."""
    return sum(bound.nbytes + _OVERHEAD for bound in bounds.values())


def body_length(header: str | None, most: int) -> int:
    """Bytes that a request's Content-Length promises; ValueError where it is missing, no number, or above `most`."""
    if header is None:
        raise ValueError("Content-Length is missing")
    if not (header.isascii() and header.isdigit()):
        raise ValueError(f"Content-Length must be a number of bytes, got {header[:_SHOWN]!r}")
    if len(header) > len(str(most)) or int(header) > most:
        raise ValueError(f"Content-Length: at most {most} bytes are taken, got {header[:_SHOWN]}")
    return int(header)


def read_archive(data: bytes, bounds: Mapping[str, Bound]) -> dict[str, NDArray[Any]]:
    """The arrays of an archive, by name.

    Raises:
        ValueError: it is none, is compressed, has a name that is not in `bounds`, or lacks one that is required; or an
            array does not keep its bound or is not all there.
    """
    try:
        _check_list(data, len(bounds))
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = _read_entries(archive, bounds)
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001  zipfile and numpy fail in many ways on damaged data
        raise ValueError(f"not an archive of NumPy arrays ({type(error).__name__}: {error})") from None
    if missing := [name for name, bound in bounds.items() if bound.required and name not in entries]:
        raise ValueError(f"missing: {', '.join(missing)}")
    return entries


def _read_entries(archive: zipfile.ZipFile, bounds: Mapping[str, Bound]) -> dict[str, NDArray[Any]]:
    entries: dict[str, NDArray[Any]] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name not in bounds or name in entries:
            raise ValueError(f"{name[:_SHOWN]!r} is not known here, or comes twice")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name}: compressed; write it with np.savez")
        with archive.open(member) as file:
            entries[name] = _read_array(name, file, bounds[name])
    return entries


def _check_list(data: bytes, most: int) -> None:
    """ValueError unless the list of entries is short: zipfile reads all of it at once."""
    if len(data) < _END.size or data[-_END.size :][:4] != _END_SIGNATURE:
        raise ValueError("not an archive of NumPy arrays: it does not end as one")
    *_, size, _, _ = _END.unpack(data[-_END.size :])
    if data[-_END.size - _LARGE_END :][:4] == _LARGE_SIGNATURE or size > most * _LISTED:
        raise ValueError(f"an archive of more than {most} entries")


def _read_array(name: str, file: IO[bytes], bound: Bound) -> NDArray[Any]:
    if npy.read_magic(file) != (1, 0):
        raise ValueError(f"{name}: not written by np.savez")
    shape, by_column, dtype = npy.read_array_header_1_0(file, max_header_size=_HEADER)
    bound.check(name, dtype, shape)
    promised = math.prod(shape) * dtype.itemsize
    numbers = file.read(promised + 1)
    if len(numbers) != promised:
        raise ValueError(f"{name}: its header promises {promised} bytes, {len(numbers)} came")
    return np.frombuffer(numbers, dtype).reshape(shape, order="F" if by_column else "C").copy()
