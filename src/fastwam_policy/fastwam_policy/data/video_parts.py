"""Which part of a video file belongs to which episode, and whether that can be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fastwam_policy.data.frame_times import TOLERANCE, frame_times
from fastwam_policy.data.lerobot_index import RecordedEpisode
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


class _Span(NamedTuple):
    """The part of a video file that an episode's rows claim: from `begin` to before `end`, s.

    It `agrees` where meta/ says that it ends there.
    """

    episode: int
    begin: float
    end: float
    agrees: bool


class VideoParts:
    """Of all videos of a dataset.

    Args:
        episodes: all of them.
        period: of their rows, s.
        told: whether meta/ says where each part ends; else a file has one episode, and ends with it.
    """

    def __init__(self, episodes: Iterable[RecordedEpisode], period: float, *, told: bool) -> None:
        self._period, self._told = period, told
        self._sharing: defaultdict[Path, list[_Span]] = defaultdict(list)
        for episode in episodes:
            for camera, (path, _) in episode.videos.items():
                self._sharing[path].append(self._span(episode, camera))

    def _span(self, episode: RecordedEpisode, camera: str) -> _Span:
        begin, length = episode.videos[camera][1], episode.length * self._period
        agrees = abs(episode.ends[camera] - begin - length) <= TOLERANCE * self._period
        return _Span(episode.index, begin, begin + length, agrees)

    def check(self, episode: RecordedEpisode, camera: str, place: str) -> None:
        """ConfigError where the file cannot hold this episode's frames where meta/ says that they are."""
        path, span = episode.videos[camera][0], self._span(episode, camera)
        margin, beside = TOLERANCE * self._period, [s for s in self._sharing[path] if s.episode != span.episode]
        for other in beside:
            overlap = max(span.begin, other.begin) < min(span.end, other.end) - margin
            if overlap and (other.agrees or not span.agrees):
                raise ConfigError(
                    f"{place}: its part of the video, {span.begin:.3f} to {span.end:.3f} s, overlaps with that of "
                    f"episode {other.episode}, {other.begin:.3f} to {other.end:.3f} s"
                )
        end = max([span.end, *(other.end for other in beside if other.agrees)])
        last = frame_times(path).seconds[-1] + self._period
        if beside and last < end - margin:
            raise ConfigError(
                f"{place}: the file ends at {last:.3f} s, its {len(beside) + 1} episodes at {end:.3f} s: frames are "
                "lost, and which cannot be told"
            )

    def check_end(self, episode: RecordedEpisode, camera: str, place: str) -> None:
        """ConfigError where the video has more frames than the episode has rows: perhaps it began before them."""
        path, begin = episode.videos[camera]
        rows = begin + episode.length * self._period
        end = episode.ends[camera] if self._told else frame_times(path).end(self._period)
        if end > rows + TOLERANCE * self._period:
            raise ConfigError(
                f"{place}: the video ends at {end:.3f} s, the episode's {episode.length} rows at {rows:.3f} s: which "
                "of its frames belong to them cannot be told. Leave the episode out, or cut the video"
            )

    def surplus(self, episode: RecordedEpisode, camera: str) -> Iterator[str]:
        """What to say where a file goes on after the last of its episodes, whose end meta/ says."""
        path, span = episode.videos[camera][0], self._span(episode, camera)
        late = frame_times(path).end(self._period) - span.end
        if late > TOLERANCE * self._period and span.end == max(other.end for other in self._sharing[path]):
            yield f"{path}: goes on {late:.2f} s after episode {episode.index}, its last one: that part is not used"
