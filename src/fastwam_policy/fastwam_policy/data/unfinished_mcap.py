"""Reads an mcap that was never closed, because its writer was killed or the disk was full: no index, cut at the end."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, Final

from rosbags.rosbag2 import ReaderError
from rosbags.rosbag2.storage_mcap import ChunkInfo, McapReader

_MAGIC: Final = b"\x89MCAP0\r\n"
_CHUNK: Final = 0x06
# https://mcap.dev/spec: header, schema, channel, message, chunk, message index, attachment, metadata. Others are the
# end of the data, or no record at all.
_DATA: Final = frozenset((0x01, 0x03, 0x04, 0x05, _CHUNK, 0x07, 0x09, 0x0C))
_RECORD: Final = struct.Struct("<BQ")  # opcode, length of what follows
_CHUNK_HEAD: Final = struct.Struct("<QQQII")  # first and last time, uncompressed size, checksum, length of a name


def is_finished(path: Path) -> bool:
    """Whether an mcap file was closed."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_MAGIC)))
        return file.read() == _MAGIC


class UnfinishedMcap(McapReader):
    """Storage of rosbags that makes the missing index itself, from all records that are complete."""

    def open(self) -> None:
        """Open the file and read it once.

        Raises:
            ReaderError: it is no mcap, or holds no complete message.
        """
        self.bio = bio = self.path.open("rb")
        try:
            self.data_start = len(_MAGIC)
            self.data_end = self._find_chunks(bio)
            self.meta_scan()
            self._count()
        except BaseException:
            self.close()
            raise

    def _find_chunks(self, bio: BinaryIO) -> int:
        """List the complete chunks; return where the last complete record ends."""
        if bio.read(len(_MAGIC)) != _MAGIC:
            raise ReaderError("it does not begin as an mcap")
        size, begin = os.fstat(bio.fileno()).st_size, self.data_start
        while begin + _RECORD.size <= size:
            bio.seek(begin)
            opcode, length = _RECORD.unpack(bio.read(_RECORD.size))
            end = begin + _RECORD.size + length
            if opcode not in _DATA or end > size:
                break
            if opcode == _CHUNK:
                first, last, uncompressed, _, name = _CHUNK_HEAD.unpack(bio.read(_CHUNK_HEAD.size))
                compression = bio.read(name).decode()
                compressed = int.from_bytes(bio.read(8), "little")
                self.chunks.append(
                    ChunkInfo(first, last, begin, end - begin, {}, 0, compression, compressed, uncompressed, {})
                )
            begin = end
        return begin

    def _count(self) -> None:
        """Complete what `meta_scan` found, as McapReader does with an index."""
        assert self.statistics is not None
        count, counts = self.statistics.message_count, self.statistics.channel_message_counts
        if not count:
            raise ReaderError("no complete message before the cut")
        first, last = self.statistics.start_time, self.statistics.end_time
        self.connections = [c._replace(msgcount=counts.get(c.id, 0)) for c in self.connections]
        # A chunk is skipped where it has none of the wanted channels; which it has is not known before it is read.
        self.chunks = [chunk._replace(channel_count=counts) for chunk in self.chunks]
        self.metadata = self.metadata._replace(
            duration=last - first + 1, start_time=first, end_time=last + 1, message_count=count
        )
