"""Read LeRobot datasets, versions 2.1 and 3.0, with the numbers of a robot in its own order.

A row has the place that its `frame_index` says, and its pictures are those of its time (:mod:`frame_times`): nothing
goes by the order or the number of rows and frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastwam_policy.data.body import Body, NamedColumns
from fastwam_policy.data.frame_times import check_row_times, frame_times, frames_at
from fastwam_policy.data.joint_columns import JointColumns
from fastwam_policy.data.lerobot_index import Index, RecordedEpisode, read_table
from fastwam_policy.data.lerobot_layout import INTERVENTION
from fastwam_policy.data.video import read_frames
from fastwam_policy.data.video_parts import VideoParts
from fastwam_policy.policies.base import Pixels
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_ORDER = ["frame_index", "timestamp", "episode_index", "task_index"]  # columns that say where a row belongs
_SHOWN = 100  # letters of a sentence


class Reader:
    """One dataset folder, checked when it is opened.

    Attributes:
        folder: where it is.
        fps: rows a second.
        body: whose numbers it reads, and in which order.
        episodes: in order of their index, without those that are left out.
        notes: what was left out or is odd, a line each.

    Raises:
        ConfigError: not a dataset, another version, frame rate or set of keys, or no episode with frames.
    """

    def __init__(self, folder: Path, robot: RobotConfig | Body, fps: float, cameras: Sequence[str]) -> None:
        self.folder, self.fps, self.body, self._period = folder, fps, Body.of(robot), 1 / fps
        self._index, own = Index(folder, fps), self.body
        if unknown := [camera for camera in cameras if camera not in own.cameras]:
            raise ConfigError(f"the robot has no camera {unknown[0]}; it has {', '.join(own.cameras)}")
        self._keys = {camera: f"observation.images.{own.cameras[camera]}" for camera in cameras}
        features = self._index.features
        self._columns: JointColumns | NamedColumns = (
            NamedColumns(folder, features, robot) if isinstance(robot, Body) else JointColumns(folder, features, robot)
        )
        self._check_videos(self._index.features)
        self.notes: list[str] = []
        if self._index.robot_type not in (None, own.robot_type):
            self.notes.append(f"{folder}: robot_type is {self._index.robot_type!r}, this robot is {own.robot_type!r}")
        self._said: set[tuple[str, tuple[int, int]]] = set()
        self._last: tuple[int, pa.Table, NDArray[np.float64]] | None = None
        listed = self._index.episodes(self._keys)
        self._parts = VideoParts(listed, self._period, told=self._index.version != "v2.1")
        self.episodes = [found for episode in listed if (found := self._with_task(episode)) is not None]
        if not self.episodes:
            raise ConfigError("\n".join([f"{folder}: no episodes", *self.notes]))

    def leave_out_unusable(self) -> None:
        """Read each episode's rows and its videos' times, and take out of `episodes` what :meth:`check` refuses.

        Raises:
            ConfigError: nothing is left.
        """
        usable = []
        for episode in self.episodes:
            try:
                self.notes += self.check(episode)
                usable.append(episode)
            except ConfigError as error:
                self.notes.append(f"episode {episode.index} is left out: {error}")
        self.episodes = usable
        if not usable:
            raise ConfigError("\n".join([f"{self.folder}: no episode can be used", *self.notes]))

    def check(self, episode: RecordedEpisode) -> list[str]:
        """What is odd about an episode that can be used, a line each; its pictures are not decoded.

        Raises:
            ConfigError: it cannot be used; says what, where, and both times where they differ.
        """
        place = f"{episode.data}: episode {episode.index}"
        state, action = self.vectors(episode)
        self._columns.check(state, action, place)
        self.instructions(episode)
        self.interventions(episode)
        odd = [f"{place}: {text}" for text in (*self._columns.oddities(state, action), *self._other_task(episode))]
        for camera in episode.videos:
            self._frames(episode, camera)
            odd += [*self._other_size(episode, camera), *self._parts.surplus(episode, camera)]
        return odd

    def vectors(self, episode: RecordedEpisode) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """State and action [T, D] in the order of `body`; of a robot of ours rad and mm.

        Raises:
            ConfigError: the file cannot be read, has other rows, or numbers that are not finite or not in the unit
                that they should be in.
        """
        table = self._rows(episode)[0]
        columns = {name: self._matrix(episode, name, table) for name in self._columns.names}
        return self._columns.vectors(columns, f"{episode.data}: episode {episode.index}")

    def instructions(self, episode: RecordedEpisode) -> list[str]:
        """Of each row; they differ where the episode has several tasks.

        Raises:
            ConfigError: meta/ gives the episode no sentence or several, and its rows do not choose one of meta/tasks.
        """
        if len(episode.tasks) == 1:
            return list(episode.tasks) * episode.length
        several = f"{episode.listed}: episode {episode.index} has {len(episode.tasks) or 'no'} tasks"
        table, sentences = self._rows(episode)[0], self._index.sentences
        if "task_index" not in table.column_names:
            raise ConfigError(f"{several}, and {episode.data} has no column task_index to choose one")
        numbers = table["task_index"].to_pylist()
        if unknown := [number for number in numbers if not sentences.get(number, "").strip()]:
            raise ConfigError(f"{several}, and {episode.data} has task_index {unknown[0]}, which is not in meta/tasks")
        return [sentences[number] for number in numbers]

    def interventions(self, episode: RecordedEpisode) -> NDArray[np.bool_]:
        """Which rows somebody commanded who had taken over, [T]; none where the dataset does not say.

        Raises:
            ConfigError: the column holds something else than 0 and 1.
        """
        table, place = self._rows(episode)[0], f"{episode.data}: episode {episode.index}"
        if INTERVENTION not in table.column_names:
            return np.zeros(episode.length, bool)
        values = _numbers(table, INTERVENTION, place)
        if len(odd := values[~np.isin(values, (0, 1))]):
            raise ConfigError(f"{place}: {INTERVENTION} must be 0 or 1 in each row, got {odd[0]:g}")
        return values == 1

    def times(self, episode: RecordedEpisode) -> NDArray[np.float64]:
        """When each row was recorded, [T] s from the first one.

        Raises:
            ConfigError: the file cannot be read or has other rows.
        """
        return self._rows(episode)[1]

    def images(self, episode: RecordedEpisode, camera: str, frames: Sequence[int]) -> list[Pixels]:
        """RGB images of one camera at increasing frame numbers.

        Raises:
            ConfigError: the video is missing or damaged, or has no frame at the time of some row of the episode.
        """
        path, _ = episode.videos[camera]
        stamps = frame_times(path).stamps[self._frames(episode, camera)[list(frames)]].tolist()
        found = read_frames(path, stamps)
        if len(found) < len(stamps):
            raise ConfigError(f"{path}: frame {frames[len(found)]} of episode {episode.index} cannot be decoded")
        return found

    def _with_task(self, episode: RecordedEpisode) -> RecordedEpisode | None:
        """The episode with its instruction, None where it is left out."""
        if episode.length < 1:
            self.notes.append(f"{episode.listed}: episode {episode.index} has no frames: it is left out")
            return None
        if len(episode.tasks) == 1:
            return episode
        try:
            return replace(episode, task=self.instructions(episode)[0])
        except ConfigError as error:
            self.notes.append(f"episode {episode.index} is left out: {error}")
            return None

    def _other_task(self, episode: RecordedEpisode) -> Iterator[str]:
        """What to say where an episode's rows have another instruction than its entry in meta/."""
        table = self._rows(episode)[0]
        if len(episode.tasks) != 1 or "task_index" not in table.column_names:
            return
        try:
            sentences = self._index.sentences
        except ConfigError:  # of which nothing is needed here
            return
        said = [sentences[number] for number in table["task_index"].unique().to_pylist() if number in sentences]
        if said and episode.task not in said:
            one, other = said[0][:_SHOWN], episode.task[:_SHOWN]
            yield f"its rows say {one!r}, {episode.listed} says {other!r}: that is used"

    def _other_size(self, episode: RecordedEpisode, camera: str) -> Iterator[str]:
        """What to say, once a camera and size, where a video has another one than meta/ says."""
        size, shape = frame_times(episode.videos[camera][0]).size, self._index.features[self._keys[camera]].get("shape")
        if isinstance(shape, list) and list(size) not in (shape[:2], shape[1:]) and (camera, size) not in self._said:
            self._said.add((camera, size))
            yield f"{episode.videos[camera][0]}: frames of {size[1]}x{size[0]}, meta/info.json says {shape}: read as is"

    def _rows(self, episode: RecordedEpisode) -> tuple[pa.Table, NDArray[np.float64]]:
        """The rows of an episode in order, and their times."""
        if self._last and self._last[0] == episode.index:
            return self._last[1:]
        columns, place = self._columns.names, f"{episode.data}: episode {episode.index}"
        wanted = [*columns, *_ORDER, INTERVENTION]
        table = read_table(episode.data, wanted, [("episode_index", "=", episode.index)])
        if not len(table) and self._index.version == "v2.1":  # a tool renumbered the files only
            table = read_table(episode.data, wanted)
            if "episode_index" in table.column_names and len(numbers := table["episode_index"].unique()) > 1:
                raise ConfigError(f"{place} has no rows; its episode_index says {numbers.to_pylist()[:5]}")
        if len(table) != episode.length:
            raise ConfigError(f"{place} has {len(table)} rows, meta says {episode.length}")
        if missing := [column for column in columns if column not in table.column_names]:
            raise ConfigError(f"{place} has no column {missing[0]}, which meta/info.json names")
        if "frame_index" in table.column_names:
            frames = _numbers(table, "frame_index", place)
            order = np.argsort(frames, kind="stable")
            if len(wrong := np.flatnonzero(frames[order] != np.arange(len(table)))):
                raise ConfigError(f"{place}: frame_index has no {wrong[0]}, or one twice: rows are lost or doubled")
            table = table.take(order)
        times: NDArray[np.float64] = np.arange(len(table), dtype=np.float64) * self._period
        if "timestamp" in table.column_names:
            times = _numbers(table, "timestamp", place)
            check_row_times(times, self._period, place)
        self._last = episode.index, table, times
        return table, times

    def _frames(self, episode: RecordedEpisode, camera: str) -> NDArray[np.int64]:
        """Which frame of the video belongs to each row."""
        path, begin = episode.videos[camera]
        place = f"{path}: episode {episode.index}, camera {camera}"
        self._parts.check(episode, camera, place)
        found = frames_at(frame_times(path), begin + self.times(episode), self._period, place)
        self._parts.check_end(episode, camera, place)
        return found

    def _check_videos(self, features: dict[str, Any]) -> None:
        for camera, key in self._keys.items():
            if features.get(key, {}).get("dtype") != "video":
                have = [name for name, feature in features.items() if feature.get("dtype") == "video"]
                raise ConfigError(
                    f"{self.folder}: no video {key} for the camera {camera}; videos: {', '.join(have) or 'none'}"
                )

    def _matrix(self, episode: RecordedEpisode, name: str, table: pa.Table) -> NDArray[np.float32]:
        """[T, D] from a column of lists, or of numbers where D is 1."""
        shape = self._index.features[name].get("shape")
        try:
            return np.array(table[name].to_pylist(), np.float32).reshape(len(table), *shape or [-1])
        except (TypeError, ValueError):
            raise ConfigError(f"{episode.data}: a row of {name} has not the shape {shape} of meta/info.json") from None


def _numbers(table: pa.Table, name: str, place: str) -> NDArray[np.float64]:
    """[T] from a column of numbers."""
    try:
        return np.array(table[name].to_pylist(), np.float64).reshape(len(table))
    except (TypeError, ValueError):
        raise ConfigError(f"{place}: {name} must be a number in each row") from None
