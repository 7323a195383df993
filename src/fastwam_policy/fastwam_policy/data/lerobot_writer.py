"""Write a LeRobot dataset, version 2.1 or 3.0: one parquet and one mp4 a camera for each episode, and meta/.

Format: https://github.com/huggingface/lerobot, `lerobot/datasets`, at v0.3 for 2.1 and at v0.4 for 3.0. Keys are those
of the vendor's converter for the R1 Lite, in 2.1 a column for each joint group: `observation.state.left_arm`,
`action.left_arm`, `observation.images.head_rgb`. In 3.0 state and action have one column each, since LeRobot's policies
take `observation.state` and `action`, and nothing else. The package itself cannot be a dependency: it pins torch and a
torchvision to match, and this project works with any torch >= 2.4.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fastwam_policy.common.files import settle, write_text
from fastwam_policy.common.settings import changes
from fastwam_policy.data.body import Body
from fastwam_policy.data.lerobot_layout import CHUNK, INTERVENTION, LAYOUTS, Version, write_meta
from fastwam_policy.data.lerobot_statistics import CountedImages, statistics_of
from fastwam_policy.data.video import PIXEL_FORMAT, write_video
from fastwam_policy.policies.base import Pixels
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_STATE, _ACTION = "observation.state", "action"


@dataclass(frozen=True)
class Episode:
    """One episode of T frames.

    Attributes:
        task: instruction.
        images: by camera, T images RGB uint8 [h, w, 3]; read once, one camera after the other.
        state: measured positions by joint group [T, joints], rad and mm; what a benchmark measures.
        action: targets by joint group, in the same form; what a benchmark takes.
        intervention: which rows somebody commanded who had taken over from a policy, [T]; None: none.
    """

    task: str
    images: Mapping[str, Iterable[Pixels]]
    state: Mapping[str, NDArray[np.float64]]
    action: Mapping[str, NDArray[np.float64]]
    intervention: NDArray[np.bool_] | None = None

    @property
    def length(self) -> int:
        """Frames."""
        return len(next(iter(self.action.values())))


class Dataset:
    """A dataset folder that episodes are written into, in any order and from several processes.

    An episode counts once its part in meta/parts is there, which is written last: a kill loses at most that episode.
    :meth:`finish` makes the folder a LeRobot dataset of the episodes that are there.
    """

    def __init__(self, folder: Path, robot: RobotConfig | Body, fps: int, version: Version = "v2.1") -> None:
        self.folder, self._body, self._fps, self._layout = folder, Body.of(robot), fps, LAYOUTS[version]

    def has(self, index: int) -> bool:
        """Whether an episode is complete."""
        return self._part(index).exists()

    def sources(self) -> dict[int, tuple[str, dict[str, Any]]]:
        """By episode that is there, its source and content, as given to :meth:`write`."""
        parts = {_index(path): json.loads(path.read_text()) for path in self._parts()}
        return {index: (part.get("source", ""), part.get("content") or {}) for index, part in parts.items()}

    def task(self, index: int) -> str:
        """Instruction of an episode that is there."""
        return str(json.loads(self._part(index).read_text())["task"])

    def remove(self, index: int) -> None:
        """Take an episode out; :meth:`close_gaps` closes the gap."""
        keys = [self._image_key(camera) for camera in json.loads(self._part(index).read_text())["shape"]]
        self._part(index).unlink()
        for path in (self._path(self._layout.data, index), *(self._path(self._layout.video, index, k) for k in keys)):
            path.unlink(missing_ok=True)

    def write(self, index: int, episode: Episode, source: str = "", content: Mapping[str, Any] | None = None) -> None:
        """Write one episode; `content` tells its source from another one of the same name.

        Raises:
            ConfigError: no frames, unequal lengths, numbers that are not finite, images of another size than the
                dataset's, or a takeover that the dataset has no column for; nothing is left of it.
        """
        _check(episode)
        columns = self._columns(index, episode, source)
        statistics = {key: statistics_of(values) for key, values in columns.items()}
        path = self._path(self._layout.data, index)
        videos = {camera: self._path(self._layout.video, index, self._image_key(camera)) for camera in episode.images}
        before, shape = self._shape(), dict[str, list[int]]()
        if before and before.keys() != videos.keys():
            raise ConfigError(
                f"{source or 'this episode'} has images of {', '.join(videos)}, {self.folder} of {', '.join(before)}: "
                "write it into another folder"
            )
        try:
            for camera, video in videos.items():
                video.parent.mkdir(parents=True, exist_ok=True)
                images = CountedImages(camera, episode.images[camera], episode.length, before.get(camera), source)
                write_video(video, images, self._fps)
                shape[camera], statistics[self._image_key(camera)] = images.shape, images.statistics()
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({key: _column(values) for key, values in columns.items()}), path)
            for written in (path, *videos.values()):
                settle(written)  # before the part, which says that all of it is there
        except BaseException:
            for written in (path, *videos.values()):
                written.unlink(missing_ok=True)
            raise
        part = self._part(index)
        part.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "version": self._layout.version,
            "source": source,
            "content": dict(content or {}),
            "length": episode.length,
            "task": episode.task,
            "shape": shape,
            "stats": statistics,
        }
        write_text(part, json.dumps(about))

    def close_gaps(self) -> None:
        """Renumber the episodes that are there from 0 on, in their order."""
        for index, part in enumerate(self._parts()):
            before = _index(part)
            if before == index:
                continue
            keys = [self._image_key(camera) for camera in json.loads(part.read_text())["shape"]]
            files = [(self._layout.data, ""), *((self._layout.video, key) for key in keys)]
            moved = [(self._path(pattern, before, key), self._path(pattern, index, key)) for pattern, key in files]
            for old, new in moved:
                new.parent.mkdir(parents=True, exist_ok=True)
                new.unlink(missing_ok=True)
                os.link(old, new)
            part.replace(self._part(index))  # up to here a kill leaves the old episode, and from here on the new one
            for old, _ in moved:
                old.unlink()

    def finish(self) -> int:
        """Write meta/ for the episodes that are there and return their number.

        Raises:
            ConfigError: there are none, or their numbers have a gap.
        """
        parts = self._parts()
        indices = [_index(part) for part in parts]
        if not parts or indices != list(range(len(parts))):
            missing = sorted(set(range(max(indices, default=0) + 1)) - set(indices))
            raise ConfigError(f"{self.folder}: episodes are missing: {missing[:10]}; collect again to fill them in")
        episodes = [json.loads(path.read_text()) for path in parts]
        other = {episode.get("version", "v2.1") for episode in episodes} - {self._layout.version}
        if other:
            raise ConfigError(f"{self.folder} holds episodes in version {other.pop()}, not {self._layout.version}")
        if len({frozenset(episode["stats"]) for episode in episodes}) > 1:
            raise ConfigError(f"{self.folder} holds episodes with other columns: write into another folder")
        tasks = list(dict.fromkeys(episode["task"] for episode in episodes))
        self._renumber(episodes, tasks)
        info = self._info(episodes, tasks)
        write_meta(self.folder / "meta", self._layout, info, episodes, tasks)
        return len(episodes)

    def _renumber(self, episodes: Sequence[dict[str, Any]], tasks: Sequence[str]) -> None:
        """Set the running frame number, the task's and the episode's, which an episode cannot know alone."""
        begin = 0
        for index, episode in enumerate(episodes):
            path = self._path(self._layout.data, index)
            table = pq.read_table(path)
            numbers = np.arange(begin, begin + episode["length"], dtype=np.int64)
            task = np.full(episode["length"], tasks.index(episode["task"]), np.int64)
            wanted = {"index": numbers, "task_index": task, "episode_index": np.full(episode["length"], index)}
            if any(not np.array_equal(table[key].to_numpy(), values) for key, values in wanted.items()):
                for key, values in wanted.items():
                    table = table.set_column(table.schema.get_field_index(key), key, pa.array(values))
                unfinished = path.with_suffix(".tmp")
                pq.write_table(table, unfinished)
                unfinished.replace(path)
            for key, values in wanted.items():
                episode["stats"][key] = statistics_of(values)
            begin += episode["length"]

    def _columns(self, index: int, episode: Episode, source: str) -> dict[str, NDArray[Any]]:
        length = episode.length
        columns: dict[str, NDArray[Any]] = {}
        body = self._body
        for kind, groups, names in ((_STATE, episode.state, body.state), (_ACTION, episode.action, body.action)):
            if self._layout.version == "v3.0":
                parts = {kind: np.concatenate([groups[name] for name in names], axis=1)}
            else:
                parts = {f"{kind}.{name}": values for name, values in groups.items()}
            columns |= {key: values.astype(np.float32) for key, values in parts.items()}
        columns |= self._intervention(episode, source)
        frames = np.arange(length, dtype=np.int64)
        return columns | {
            "timestamp": (frames / self._fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(length, index, np.int64),
            "index": frames,
            "task_index": np.zeros(length, np.int64),
        }

    def _intervention(self, episode: Episode, source: str) -> dict[str, NDArray[np.float32]]:
        """The column that says who commanded; datasets that were begun before it existed go on without it."""
        rows = np.zeros(episode.length, bool) if episode.intervention is None else episode.intervention
        first = self._parts()[:1]
        if not first or INTERVENTION in json.loads(first[0].read_text())["stats"]:
            return {INTERVENTION: rows.astype(np.float32)}
        if rows.any():
            raise ConfigError(
                f"{source or 'this episode'} has rows of a takeover, and {self.folder} was begun without the column "
                f"{INTERVENTION}: write it into another folder"
            )
        return {}

    def _info(self, episodes: Sequence[dict[str, Any]], tasks: Sequence[str]) -> dict[str, Any]:
        features: dict[str, Any] = {}
        for camera, shape in episodes[0]["shape"].items():
            height, width, channels = shape
            features[self._image_key(camera)] = {
                "dtype": "video",
                "shape": shape,
                "names": ["height", "width", "channels"],
                "info": {
                    "video.fps": self._fps, "video.height": height, "video.width": width, "video.channels": channels,
                    "video.codec": "h264", "video.pix_fmt": PIXEL_FORMAT, "video.is_depth_map": False,
                    "has_audio": False,
                },
            }  # fmt: skip
        for key in episodes[0]["stats"]:
            if names := self._names(key):
                features[key] = {"dtype": "float32", "shape": [len(names)], "names": names}
        if INTERVENTION in episodes[0]["stats"]:
            features[INTERVENTION] = {"dtype": "float32", "shape": [1], "names": ["is_intervention"]}
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        for key in ("frame_index", "episode_index", "index", "task_index"):
            features[key] = {"dtype": "int64", "shape": [1], "names": None}
        return {
            "codebase_version": self._layout.version,
            "robot_type": self._body.robot_type,
            "total_episodes": len(episodes),
            "total_frames": sum(episode["length"] for episode in episodes),
            "total_tasks": len(tasks),
            "chunks_size": CHUNK,
            "fps": self._fps,
            "splits": {"train": f"0:{len(episodes)}"},
            "data_path": self._layout.data,
            "video_path": self._layout.video,
            "features": features,
        }

    def _names(self, key: str) -> list[str]:
        """Of the numbers of a column of state or action; none of another."""
        for kind, groups in ((_STATE, self._body.state), (_ACTION, self._body.action)):
            found = groups if key == kind else [name for name in groups if key == f"{kind}.{name}"]
            if found:
                return [name for group in found for name in groups[group]]
        return []

    def _image_key(self, camera: str) -> str:
        return f"observation.images.{self._body.cameras[camera]}"

    def _path(self, pattern: str, index: int, video_key: str = "") -> Path:
        return self.folder / pattern.format(**self._layout.place(index), video_key=video_key)

    def _shape(self) -> dict[str, list[int]]:
        """Of the images in the dataset, [height, width, 3] by camera; empty before the first episode."""
        return {
            key: value for part in self._parts()[:1] for key, value in json.loads(part.read_text())["shape"].items()
        }

    def _parts(self) -> list[Path]:
        return sorted((self.folder / "meta" / "parts").glob("episode_*.json"))

    def _part(self, index: int) -> Path:
        return self.folder / "meta" / "parts" / f"episode_{index:06d}.json"


def _index(part: Path) -> int:
    return int(part.stem.removeprefix("episode_"))


def _check(episode: Episode) -> None:
    if not episode.length:
        raise ConfigError("an episode without frames cannot be written")
    if episode.intervention is not None and episode.intervention.shape != (episode.length,):
        raise ConfigError(
            f"intervention: shape {episode.intervention.shape}, but the episode has {episode.length} frames"
        )
    for kind, groups in (("state", episode.state), ("action", episode.action)):
        for name, values in groups.items():
            if len(values) != episode.length:
                raise ConfigError(f"{kind}.{name}: {len(values)} rows, but the episode has {episode.length} frames")
            if not np.isfinite(values).all():
                raise ConfigError(
                    f"{kind}.{name}: NaN or infinity in row {int(np.argwhere(~np.isfinite(values))[0, 0])}"
                )


def _column(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 1 or values.shape[1] == 1:
        return pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def claim(folder: Path, writer: str, settings: object) -> None:
    """Note in a dataset's folder what writes it, and its settings (a dataclass); it is continued as it was begun.

    Raises:
        ConfigError: the folder belongs to something else, or was begun with other settings, which are named.
    """
    path = folder / "meta" / f"{writer}.txt"
    if not path.exists():
        if any(place.is_file() for place in folder.rglob("*")):
            raise ConfigError(f"{folder} is not empty and was not written by {writer}; name another folder")
        path.parent.mkdir(parents=True, exist_ok=True)
    elif any((folder / "meta" / "parts").glob("*")):  # else no episode was written with the others
        lines = (line.partition(": ") for line in path.read_text().splitlines())
        if changed := list(changes({name: value for name, _, value in lines}, settings)):
            raise ConfigError(f"{folder} was begun with other settings: {'; '.join(changed)}. Name another folder")
    write_text(path, "".join(f"{name}: {value}\n" for name, value in vars(settings).items()))
