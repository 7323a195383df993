"""Reads sqlite3 recordings (.db3), also those whose recorder was killed.

What such a recorder left beside the file (a write-ahead log, or a journal to be rolled back) belongs to it. Both are
worked in on a copy: the recording's own files stay as they are.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fastwam_policy.common.files import require_space
from fastwam_policy.data.mcap_file import Channel

_LEFT_BY_A_KILL: Final = ("-wal", "-journal")


def left_by_a_kill(path: Path) -> list[Path]:
    """What a recorder that was killed left beside its file, and which belongs to it."""
    beside = (path.with_name(path.name + end) for end in _LEFT_BY_A_KILL)
    return [other for other in beside if other.exists() and other.stat().st_size]


class SqliteFile:
    """One file, open until :meth:`close`; as :class:`McapFile`.

    Raises:
        sqlite3.Error: it is none, or none of rosbag2. OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self.lost, self.finished, self._counted = 0, True, False
        if beside := left_by_a_kill(path):
            self.finished = False
            path = self._worked_in([path, *beside])
        try:
            self._open(path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_database"):
            self._database.close()
        if self._copy is not None:
            self._copy.cleanup()

    def messages(self, wanted: Collection[int], start: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """Channel, log time and bytes of each message of these channels from `start` to before `stop`, by time."""
        marks = ",".join("?" * len(wanted))
        query = (
            f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks}) "
            "AND timestamp >= ? AND timestamp < ? ORDER BY timestamp, id"
        )
        read = 0
        try:
            for channel, log, data in self._database.execute(query, (*wanted, start, stop)):
                read += 1
                yield int(channel), int(log), bytes(data)
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.DatabaseError:  # a page is damaged: what lies behind it cannot be found
            if not self._counted:
                self._counted = True
                self.lost += max(1, sum(self.counts[channel] for channel in wanted) - read)

    def _worked_in(self, parts: list[Path]) -> Path:
        self._copy = tempfile.TemporaryDirectory()
        copy = Path(self._copy.name) / parts[0].name
        size = sum(part.stat().st_size for part in parts)
        require_space(copy, size, f"a copy of {parts[0]}, which was not closed,")
        for part in parts:
            shutil.copyfile(part, copy.with_name(part.name))
        database = sqlite3.connect(copy)
        try:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.execute("PRAGMA journal_mode=DELETE")
        finally:
            database.close()
        return copy

    def _open(self, path: Path) -> None:
        address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        self._database = sqlite3.connect(address, uri=True, check_same_thread=False)  # a replay reads on its own thread
        ask = self._database.execute
        tables = {name for (name,) in ask("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if missing := {"topics", "messages"} - tables:
            raise sqlite3.DatabaseError(f"it has no table {missing.pop()}")
        columns = {row[1] for row in ask("PRAGMA table_info(topics)")}
        definitions: dict[str, tuple[str, str]] = {}
        if "message_definitions" in tables:
            query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            definitions = {kind: (encoding or "", text or "") for kind, encoding, text in ask(query)}
        qos = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
        self.channels = {
            int(number): Channel(topic, kind, *definitions.get(kind, ("", "")), str(profile or ""))
            for number, topic, kind, profile in ask(f"SELECT id, name, type, {qos} FROM topics")
        }
        self.counts = Counter(dict(ask("SELECT topic_id, count(*) FROM messages GROUP BY topic_id")))
        start, end = ask("SELECT min(timestamp), max(timestamp) FROM messages").fetchone()
        self.start, self.end = int(start or 0), int(end or 0)
