"""Reads mcap recordings (https://mcap.dev/spec), also those that were never closed or of which some bytes are damaged.

Only what is asked for is read: types, encodings and qualities of service of other topics may be anything. A chunk that
does not unpack to what its checksum says is skipped, and its messages are counted as lost.
"""

from __future__ import annotations

import heapq
import struct
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from fastwam_policy.data.mcap_records import (
    BODY,
    CHANNEL,
    CHUNK,
    CHUNK_HEAD,
    CHUNK_INDEX,
    FOOTER,
    MESSAGE,
    MESSAGE_HEAD,
    RECORD,
    SCHEMA,
    STATISTICS,
    McapError,
    messages_in,
    quality_of_service,
    records,
    sized,
    unpacked,
)

_MAGIC: Final = b"\x89MCAP0\r\n"
_FOOTER_SIZE: Final = RECORD.size + 20
_MAX_SUMMARY: Final = 2**28  # bytes: a million chunks


class Channel(NamedTuple):
    """A topic as one publisher wrote it."""

    topic: str
    kind: str
    encoding: str
    definition: str
    qos: str


class _Chunk(NamedTuple):
    begin: int
    end: int
    offset: int
    packed: int
    size: int
    checksum: int
    compression: str
    counts: Counter[int] | None
    """Messages by channel, None where that is not known before it is read."""


class _Loose(NamedTuple):
    """A message outside of chunks."""

    log: int
    channel: int
    offset: int
    size: int


@dataclass
class _Content:
    """What is known of a file."""

    schemas: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    chunks: list[_Chunk] = field(default_factory=list)
    loose: list[_Loose] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)


class McapFile:
    """One file, open until :meth:`close`.

    Attributes:
        channels: by number.
        counts: messages by channel, as far as known.
        start, end: log time of the first and the last message, ns; 0 without any.
        lost: messages that were wanted and could not be read, so far.
        finished: whether its recorder closed it.

    Raises:
        McapError: see there. OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._size = path.stat().st_size
        self.finished = self._at(self._size - len(_MAGIC), len(_MAGIC)) == _MAGIC
        try:
            self._content = (self._summary() if self.finished else None) or self._scan()
        except BaseException:
            self._file.close()
            raise
        self.channels, self.counts = self._content.channels, self._content.counts
        self._bad: set[int] = set()
        self.lost = 0
        begins = [(c.begin, c.end) for c in self._content.chunks] + [(m.log, m.log) for m in self._content.loose]
        self.start, self.end = (min(b for b, _ in begins), max(e for _, e in begins)) if begins else (0, 0)
        if not begins and not self.finished:
            self._file.close()
            raise McapError("no complete message before the cut")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, wanted: Collection[int], start: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """Channel, log time and bytes of each message of these channels from `start` to before `stop`, by time."""
        waiting: list[tuple[int, int, int, bytes]] = []
        number = 0
        sources: list[_Chunk | _Loose] = [
            *(c for c in self._content.chunks if c.counts is None or any(c.counts[channel] for channel in wanted)),
            *(m for m in self._content.loose if m.channel in wanted),
        ]
        for source in sorted(sources, key=lambda part: part[0]):
            if source[0] >= stop or (source.end if isinstance(source, _Chunk) else source.log) < start:
                continue
            while waiting and waiting[0][0] < source[0]:
                log, _, channel, data = heapq.heappop(waiting)
                yield channel, log, data
            for channel, log, data in self._read(source, wanted):
                if start <= log < stop:
                    heapq.heappush(waiting, (log, number, channel, data))
                    number += 1
        while waiting:
            log, _, channel, data = heapq.heappop(waiting)
            yield channel, log, data

    def _read(self, source: _Chunk | _Loose, wanted: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
        if isinstance(source, _Loose):
            yield source.channel, source.log, self._at(source.offset, source.size)
            return
        try:
            found = [message for message in messages_in(self._unpack(source)) if message[0] in wanted]
        except Exception:  # noqa: BLE001  damaged bytes fail in many ways
            if source.offset not in self._bad:  # once, however often it is read
                self._bad.add(source.offset)
                self.lost += self._in_chunk(source, wanted)
            return
        yield from found

    def _in_chunk(self, chunk: _Chunk, wanted: Collection[int]) -> int:
        """How many messages of these channels it has, about."""
        if chunk.counts is not None:
            return sum(chunk.counts[channel] for channel in wanted)
        known = sum(self.counts[channel] for channel in wanted)
        return max(1, known // max(1, len(self._content.chunks) - 1))

    def _unpack(self, chunk: _Chunk) -> bytes:
        data = self._at(chunk.offset + RECORD.size + CHUNK_HEAD.size + len(chunk.compression) + 8, chunk.packed)
        return unpacked(data, chunk.compression, chunk.size, chunk.checksum)

    def _at(self, offset: int, size: int) -> bytes:
        self._file.seek(max(0, offset))
        return self._file.read(size)

    def _summary(self) -> _Content | None:
        """What the index at the end says; None where there is none, or it is damaged."""
        footer = self._size - len(_MAGIC) - _FOOTER_SIZE
        try:
            opcode, _ = RECORD.unpack(self._at(footer, RECORD.size))
            start, _, checksum = struct.unpack("<QQI", self._at(footer + RECORD.size, 20))
            if footer - start > _MAX_SUMMARY:
                return None
            text = self._at(start, footer - start)
            covered = text + self._at(footer, _FOOTER_SIZE - 4)
            if opcode != FOOTER or not 0 < start <= footer or (checksum and zlib.crc32(covered) != checksum):
                return None
            content = _Content()
            statistics = False
            for opcode, record in records(text):
                if opcode == CHUNK_INDEX:
                    content.chunks.append(self._indexed(record))
                elif opcode == STATISTICS:
                    statistics = True
                    content.counts.update(dict(struct.iter_unpack("<HQ", record[46:])))
                else:
                    _note(content, opcode, record)
        except (struct.error, ValueError, LookupError):
            return None
        if not content.chunks or not content.channels:
            return None if not statistics or content.counts else content  # else nothing was recorded
        if not statistics:
            content.counts.update(sum((chunk.counts or Counter() for chunk in content.chunks), Counter()))
        return content

    def _indexed(self, record: bytes) -> _Chunk:
        begin, end, offset, length = struct.unpack_from("<QQQQ", record)
        places, at = sized(record, 32)
        index_length, at = struct.unpack_from("<Q", record, at)[0], at + 8
        name, at = sized(record, at)
        packed, size = struct.unpack_from("<QQ", record, at)
        checksum = struct.unpack("<I", self._at(offset + RECORD.size + 24, 4))[0]
        # A record of the chunk's index is 15 bytes and 16 for each message.
        order = sorted((offset_, channel) for channel, offset_ in struct.iter_unpack("<HQ", places))
        ends = [*(place for place, _ in order[1:]), offset + length + index_length]
        counts = {
            channel: (following - place - 15) // 16 for (place, channel), following in zip(order, ends, strict=True)
        }
        return _Chunk(begin, end, offset, packed, size, checksum, name.decode(), Counter(counts) if order else None)

    def _scan(self) -> _Content:
        """What all records say, up to the first one that is not complete."""
        content, at = _Content(), len(_MAGIC)
        if self._at(0, at) != _MAGIC:
            raise McapError("it does not begin as an mcap")
        while at + RECORD.size <= self._size:
            opcode, length = RECORD.unpack(self._at(at, RECORD.size))
            begin, following = at + RECORD.size, at + RECORD.size + length
            if opcode not in BODY or following > self._size:
                break
            if opcode == CHUNK:
                self._note_chunk(content, at)
            elif opcode == MESSAGE and length >= MESSAGE_HEAD.size:
                channel, _, log, _ = MESSAGE_HEAD.unpack(self._at(begin, MESSAGE_HEAD.size))
                head = MESSAGE_HEAD.size
                content.loose.append(_Loose(log, channel, begin + head, length - head))
                content.counts[channel] += 1
            elif opcode in (SCHEMA, CHANNEL):
                _note(content, opcode, self._at(begin, length))
            at = following
        content.loose = [message for message in content.loose if message.channel in content.channels]
        return content

    def _note_chunk(self, content: _Content, at: int) -> None:
        head = self._at(at + RECORD.size, CHUNK_HEAD.size)
        begin, end, size, checksum, name = CHUNK_HEAD.unpack(head)
        after = self._at(at + RECORD.size + CHUNK_HEAD.size, min(name, 64) + 8)
        packed = int.from_bytes(after[-8:], "little")
        chunk = _Chunk(begin, end, at, packed, size, checksum, after[:-8].decode(errors="replace"), None)
        try:
            data = self._unpack(chunk)
            counts = Counter(channel for channel, _, _ in messages_in(data))
            for opcode, record in records(data):
                if opcode in (SCHEMA, CHANNEL):
                    _note(content, opcode, record)
        except Exception:  # noqa: BLE001  counted as lost when it is read
            content.chunks.append(chunk)
            return
        content.chunks.append(chunk._replace(counts=counts))
        content.counts.update(counts)


def _note(content: _Content, opcode: int, record: bytes) -> None:
    """Take a schema or a channel over."""
    if opcode == SCHEMA:
        number = struct.unpack_from("<H", record)[0]
        name, at = sized(record, 2)
        encoding, at = sized(record, at)
        text, _ = sized(record, at)
        content.schemas[number] = (name.decode(), encoding.decode(), text.decode(errors="replace"))
    elif opcode == CHANNEL:
        number, schema = struct.unpack_from("<HH", record)
        topic, at = sized(record, 4)
        _, at = sized(record, at)
        about, _ = sized(record, at)
        content.channels[number] = Channel(
            topic.decode(), *content.schemas.get(schema, ("", "", "")), quality_of_service(about)
        )
