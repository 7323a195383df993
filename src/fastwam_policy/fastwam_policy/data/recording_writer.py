"""Writes an mcap recording on its own thread, so that the caller never waits for the disk."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.typesys.store import Typestore

from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

QUEUE_BYTES: Final = 256 * 2**20  # 50 s of the robot's cameras and joints
_BAG_VERSION: Final = 8  # readable by Humble and Jazzy
_FLUSH_PERIOD: Final = 1.0  # s: what a killed process, or a power cut, costs at most while the disk keeps up


class RecordingWriter:
    """A rosbag2 folder that is being written.

    Messages written more than `_FLUSH_PERIOD` ago stay readable whatever happens to this process. A disk error
    ends the recording, and what came before it stays readable. Nothing is ever deleted or overwritten.

    Args:
        folder: to be made.
        topics: message type of each topic.
        store: knows these types.

    Raises:
        ConfigError: the folder exists already, or cannot be made.
    """

    def __init__(self, folder: Path, topics: Mapping[str, str], store: Typestore) -> None:
        self._folder = folder
        try:
            self._writer = Writer(folder, version=_BAG_VERSION, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except (OSError, WriterError) as error:
            raise ConfigError(f"{folder}: cannot be written: {error}") from None
        self._connections = {
            topic: self._writer.add_connection(topic, kind, typestore=store) for topic, kind in topics.items()
        }
        # Each of these numbers belongs to one thread, so there is no lock: a reader may see it a little late.
        self._accepted = 0
        self._taken = 0
        self.dropped = 0
        """Messages that came while the queue was full, or after an error."""
        self.written = 0
        """Messages handed to the file."""
        self.free = -1
        """Bytes free on the disk, -1 until the first flush."""
        self.error = ""
        """What ended the recording."""
        self._queue: SimpleQueue[tuple[Connection, int, bytes] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Bytes that wait for the disk."""
        return self._accepted - self._taken

    def put(self, topic: str, stamp_ns: int, data: bytes) -> None:
        """Queue a serialized message, from one thread only; it is dropped and counted where there is no room."""
        if self.error or self.waiting + len(data) > QUEUE_BYTES:
            self.dropped += 1
            return
        self._accepted += len(data)
        self._queue.put((self._connections[topic], stamp_ns, data))

    def close(self) -> None:
        """Write the queued messages and the index; returns when that is done or has failed, see `error`."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._write()
            self._writer.close()
        except Exception as error:  # noqa: BLE001  whatever ends this thread must be known
            self.error = (
                f"{self._folder}: the recording ended after {self.written} messages: {error}. "
                "What is on the disk stays readable; start again with another output"
            )
            self._queue = SimpleQueue()
            with suppress(OSError):  # what is buffered finds no room either
                self._writer.abort()

    def _write(self) -> None:
        flush_at = time.monotonic() + _FLUSH_PERIOD
        while True:
            with suppress(Empty):
                item = self._queue.get(timeout=max(0.0, flush_at - time.monotonic()))
                if item is None:
                    return
                self._writer.write(*item)
                self._taken += len(item[2])
                self.written += 1
            if time.monotonic() >= flush_at:
                self._flush()
                flush_at = time.monotonic() + _FLUSH_PERIOD

    def _flush(self) -> None:
        storage = self._writer.storage
        assert isinstance(storage, McapWriter)
        if storage.chunk.msgs:  # rosbags would keep up to 1 MiB in memory
            storage.close_chunk()
        storage.bio.flush()
        os.fsync(storage.bio.fileno())
        disk = os.fstatvfs(storage.bio.fileno())
        self.free = disk.f_bavail * disk.f_frsize
