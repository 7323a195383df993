"""What happened from an observation on, to compare with what was imagined."""

from __future__ import annotations

from collections.abc import Sequence

from fastwam_policy.runtime.observation_buffer import Snapshot


class ObservedFuture:
    """What happens from an observation on: for each frame of a video, the snapshot nearest to its time."""

    def __init__(self, first: Snapshot, offsets_ns: Sequence[int]) -> None:
        """`offsets_ns`: time of each frame after the observation, the first 0, ascending."""
        self._times_ns = [first.stamp_ns + offset for offset in offsets_ns]
        self.snapshots = [first for _ in offsets_ns]

    def add(self, newest: Snapshot) -> bool:
        """Take the next snapshot; return whether the last frame's time has come."""
        for place, time_ns in enumerate(self._times_ns):
            if abs(newest.stamp_ns - time_ns) < abs(self.snapshots[place].stamp_ns - time_ns):
                self.snapshots[place] = newest
        return newest.stamp_ns >= self._times_ns[-1]

    @property
    def seconds(self) -> list[float]:
        """Time of each snapshot after the first, s."""
        return [(snapshot.stamp_ns - self.snapshots[0].stamp_ns) / 1e9 for snapshot in self.snapshots]
