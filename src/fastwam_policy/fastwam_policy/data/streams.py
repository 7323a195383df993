"""Stamps and numbers of one recorded topic, and which of its messages belongs to a time."""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_NS: Final = 1_000_000_000
_STEP: Final = 1.0  # s by which a clock was set back, where messages of more than that time are out of order


class Stream:
    """Messages of one topic as they were recorded: stamps, and numbers [N, width].

    Attributes:
        stamps: ns, ascending once :meth:`settle` was called; those that are 0 are left out.
        outliers: messages that :meth:`settle` left out.
    """

    def __init__(self, width: int = 0) -> None:
        self.stamps, self._values, self._width = array("q"), array("d"), width
        self._logs = array("q")
        self.outliers = 0

    def add(self, stamp: int, log: int, values: Iterable[float] = ()) -> None:
        """Take a message that was recorded at `log`, ns; one with the stamp of that before it is left out."""
        if stamp and (not self.stamps or stamp != self.stamps[-1]):
            self.stamps.append(stamp)
            self._logs.append(log)
            self._values.extend(values)

    def settle(self) -> None:
        """Keep the longest run of messages whose stamps ascend: a few stamps of another time do not end a stream.

        Raises:
            ValueError: they are not few: the clock was set back in the recording.
        """
        stamps, logs = np.array(self.stamps), np.array(self._logs)
        if (np.diff(stamps) > 0).all():
            return
        kept = np.array(_ascending(self.stamps))
        self.outliers = len(stamps) - len(kept)
        back = (np.diff(logs[kept]) - np.diff(stamps[kept])) * (np.diff(kept) > 1) / _NS
        if len(back) and back.max() > _STEP:
            at = (logs[kept[back.argmax()]] - logs[0]) / _NS
            raise ValueError(f"its clock was set back by {back.max():.2f} s after {at:.2f} s")
        values = self.rows(range(len(stamps)))[kept]
        self.stamps, self._values = array("q", stamps[kept].tolist()), array("d", values.ravel().tolist())

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
