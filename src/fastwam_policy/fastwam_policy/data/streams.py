"""Stamps and numbers of one recorded topic, and which of its messages belongs to a time."""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_NS: Final = 1_000_000_000
_BACK: Final = 0.2  # s by which a clock was set back where stamps go back; what the network reorders is closer
_STEP: Final = 1.0  # s by which a clock differs: messages may really be late by less
_AHEAD: Final = 0.25  # s the same, ahead: no message comes before its time
_LASTS: Final = 1.0  # s that a difference of a clock lasts; what is shorter are odd stamps, or messages that waited
_RATE: Final = 0.1  # by which log time may run faster or slower than stamps: else it says nothing about them


class Stream:
    """Messages of one topic as they were recorded: stamps, and numbers [N, width].

    Attributes:
        stamps: ns, ascending once :meth:`settle` was called; those that are 0 are left out.
        unstamped: messages with the stamp 0.
        repeated: messages with the stamp of that before them.
        outliers: messages that :meth:`settle` left out.
        shifted_ns: what was added to the stamps since they were recorded.
    """

    def __init__(self, width: int = 0) -> None:
        self.stamps, self._values, self._width = array("q"), array("d"), width
        self._logs = array("q")
        self.unstamped = self.repeated = self.outliers = self.shifted_ns = 0

    def add(self, stamp: int, log: int, values: Iterable[float] = ()) -> None:
        """Take a message that was recorded at `log`, ns; one without a stamp of its own is left out."""
        if not stamp:
            self.unstamped += 1
        elif self.stamps and stamp == self.stamps[-1]:
            self.repeated += 1
        else:
            self.stamps.append(stamp)
            self._logs.append(log)
            self._values.extend(values)

    def settle(self) -> None:
        """Keep the longest run of messages whose stamps ascend: a few stamps of another time do not end a stream.

        Raises:
            ValueError: they are not few: the clock was set in the recording.
        """
        stamps, logs = np.array(self.stamps), np.array(self._logs)
        kept: NDArray[np.intp] = np.arange(len(stamps))
        if not (np.diff(stamps) > 0).all():
            kept = np.array(_ascending(self.stamps))
            back = (np.diff(logs[kept]) - np.diff(stamps[kept])) * (np.diff(kept) > 1) / _NS
            if len(back) and back.max() > _BACK:
                at = (logs[kept[back.argmax()]] - logs[0]) / _NS
                raise ValueError(f"its clock was set back by {back.max():.2f} s after {at:.2f} s")
        if _tells_time(stamps[kept], logs[kept]):
            kept = kept[_of_this_time(stamps[kept], logs[kept])]
            ahead, at = _set_ahead(stamps[kept], logs[kept])
            if ahead > _STEP:
                raise ValueError(f"its clock was set ahead by {ahead:.2f} s after {at:.2f} s")
        self.outliers = len(stamps) - len(kept)
        if self.outliers:
            values = self.rows(range(len(stamps)))[kept]
            self.stamps, self._values = array("q", stamps[kept].tolist()), array("d", values.ravel().tolist())
            self._logs = array("q", logs[kept].tolist())

    @property
    def delay_ns(self) -> int | None:
        """Least of log time minus stamp; None where log times say nothing about the stamps."""
        stamps, logs = np.array(self.stamps), np.array(self._logs)
        return int((logs - stamps).min()) if _tells_time(stamps, logs) else None

    def shift(self, by_ns: int) -> None:
        """Add to all stamps."""
        self.stamps, self.shifted_ns = array("q", (np.array(self.stamps) + by_ns).tolist()), self.shifted_ns + by_ns

    def nearest(self, times: Sequence[int]) -> list[int]:
        """Index of the message nearest to each time."""
        return [self._nearest(time) for time in times]

    def last(self, times: Sequence[int]) -> list[int]:
        """Index of the newest message at each time: the last one up to it, or the first."""
        return [max(0, bisect.bisect(self.stamps, time) - 1) for time in times]

    def rows(self, indices: Sequence[int]) -> NDArray[np.float64]:
        """Numbers of these messages, [len(indices), width]."""
        return np.array(self._values).reshape(-1 if self._width else len(self.stamps), self._width)[indices]

    def _nearest(self, time_ns: int) -> int:
        place = bisect.bisect(self.stamps, time_ns)
        around = range(max(0, place - 1), min(len(self.stamps), place + 1))
        return min(around, key=lambda index: abs(self.stamps[index] - time_ns))


def follow_clocks(streams: Mapping[str, Stream]) -> dict[str, float]:
    """Put the stamps of settled streams on one clock: that of the most; the s by which a stream's clock was behind it.

    Log time is everybody's. A stream that comes a second later by it than the others, or before its time, has another
    clock: its least delay then counts as theirs, as in the nodes.
    """
    delays = {name: delay for name, stream in streams.items() if (delay := stream.delay_ns) is not None}
    if len(delays) < 3:  # of two, nothing says which is right
        return {}
    usual = int(np.median(list(delays.values())))
    off = {name: (delay - usual) / _NS for name, delay in delays.items()}
    off = {name: seconds for name, seconds in off.items() if seconds > _STEP or seconds < -_AHEAD}
    for name in off:
        streams[name].shift(delays[name] - usual)
    return off


def _tells_time(stamps: NDArray[np.int64], logs: NDArray[np.int64]) -> bool:
    """Whether log times go on as stamps do: some tools write none, and simulated clocks have another rate."""
    places = np.unique(np.linspace(0, len(stamps) - 1, 17).astype(int))
    if len(places) < 3:
        return False
    return bool(abs(np.median(np.diff(logs[places]) / np.diff(stamps[places])) - 1) < _RATE)


def _of_this_time(stamps: NDArray[np.int64], logs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which messages are not odd ones at the beginning or the end: in between, odd stamps do not ascend."""
    late = (logs - stamps - np.median(logs - stamps)) / _NS
    first = (np.abs(late) > _STEP) & (logs < logs[0] + _LASTS * _NS)
    last = (late < -_STEP) & (logs > logs[-1] - _LASTS * _NS)  # late ones may have waited for the recorder
    return ~(np.logical_and.accumulate(first) | np.logical_and.accumulate(last[::-1])[::-1])


def _set_ahead(stamps: NDArray[np.int64], logs: NDArray[np.int64]) -> tuple[float, float]:
    """By how much, s, all messages from some time on came earlier than all before it, and that time."""
    delay = (logs - stamps) / _NS
    before, after = np.minimum.accumulate(delay)[:-1], np.minimum.accumulate(delay[::-1])[::-1][1:]
    lasting = (logs[:-1] - logs[0] >= _LASTS * _NS) & (logs[-1] - logs[1:] >= _LASTS * _NS)
    ahead = np.where(lasting, before - after, 0.0)
    place = int(ahead.argmax())
    return float(ahead[place]), float((logs[place] - logs[0]) / _NS)


def _ascending(values: Sequence[int]) -> list[int]:
    """Indices of the longest strictly ascending subsequence."""
    ends: list[int] = []  # smallest last value of a subsequence of each length
    places: list[int] = []
    before: list[int] = []
    for index, value in enumerate(values):
        length = bisect.bisect_left(ends, value)
        before.append(places[length - 1] if length else -1)
        if length == len(ends):
            ends.append(value)
            places.append(index)
        else:
            ends[length], places[length] = value, index
    found = []
    index = places[-1] if places else -1
    while index >= 0:
        found.append(index)
        index = before[index]
    return found[::-1]
