"""The records of an mcap file (https://mcap.dev/spec), and what is in a chunk of them."""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

from rosbags.rosbag2.storage_mcap import zstd

FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, INDEX, CHUNK_INDEX, STATISTICS = (
    0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x0B,
)  # fmt: skip
BODY: Final = frozenset((0x01, SCHEMA, CHANNEL, MESSAGE, CHUNK, INDEX, 0x09, 0x0C))  # before the end of the data
RECORD: Final = struct.Struct("<BQ")  # opcode, length of what follows
MESSAGE_HEAD: Final = struct.Struct("<HIQQ")  # channel, number, log time, publish time
CHUNK_HEAD: Final = struct.Struct("<QQQII")  # first and last time, unpacked size, checksum, length of a name
MAX_CHUNK: Final = 2**30  # bytes unpacked; recorders write one to ten million


class McapError(ValueError):
    """Not an mcap file, or one without any complete message."""


def quality_of_service(metadata: bytes) -> str:
    """What a channel's metadata says of it; empty where that is nothing."""
    at = 0
    try:
        while at < len(metadata):
            name, at = sized(metadata, at)
            value, at = sized(metadata, at)
            if name == b"offered_qos_profiles":
                return value.decode()
    except (struct.error, ValueError):
        pass
    return ""


def sized(data: bytes, at: int) -> tuple[bytes, int]:
    """Bytes that their length stands before, and where what follows begins."""
    end = at + 4 + struct.unpack_from("<I", data, at)[0]
    if end > len(data):
        raise McapError("a record is cut")
    return data[at + 4 : end], end


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Opcode and content of each record; McapError where one is cut."""
    at = 0
    while at < len(data):
        opcode, length = RECORD.unpack_from(data, at)
        begin, at = at + RECORD.size, at + RECORD.size + length
        if at > len(data):
            raise McapError("a record is cut")
        yield opcode, data[begin:at]


def messages_in(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Channel, log time and bytes of each message in an unpacked chunk."""
    at, head = 0, MESSAGE_HEAD.size
    while at < len(data):
        opcode, length = RECORD.unpack_from(data, at)
        begin, at = at + RECORD.size, at + RECORD.size + length
        if at > len(data):
            raise McapError("a record is cut")
        if opcode == MESSAGE:
            channel, _, log, _ = MESSAGE_HEAD.unpack_from(data, begin)
            yield channel, log, data[begin + head : at]


def unpacked(data: bytes, compression: str, size: int, checksum: int) -> bytes:
    """The content of a chunk; never more than `size` bytes and one are made.

    Raises:
        McapError: another size or checksum than noted, or an unknown compression.
    """
    if size > MAX_CHUNK:
        raise McapError(f"a chunk of {size} bytes")
    unpack: Any
    if compression == "":
        raw = data
    elif compression == "zstd":
        raw = zstd.ZstdDecompressor().decompress(data, size + 1)
    elif compression == "lz4":
        unpack = importlib.import_module("lz4.frame").LZ4FrameDecompressor()  # comes with rosbags
        raw = unpack.decompress(data, size + 1)
    else:
        raise McapError(f"compressed by {compression!r}")
    if len(raw) != size or (checksum and zlib.crc32(raw) != checksum):
        raise McapError("a chunk is damaged")
    return raw
