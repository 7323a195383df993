"""Read LeRobot datasets, versions 2.1 and 3.0, with the robot's joints in its own order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fastwam_policy.policies.base import Pixels
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_VERSIONS = ("v2.1", "v3.0")


@dataclass(frozen=True)
class RecordedEpisode:
    """Where one episode lies.

    Attributes:
        index: number in its dataset.
        length: frames.
        task: instruction.
        data: parquet file that holds its rows.
        videos: by camera, the file and the time in it, s, at which the episode begins.
    """

    index: int
    length: int
    task: str
    data: Path
    videos: dict[str, tuple[Path, float]]


class Reader:
    """One dataset folder, checked when it is opened.

    Attributes:
        folder: where it is.
        episodes: in order of their index.

    Raises:
        ConfigError: not a dataset, another version, frame rate or set of keys, or an episode without frames.
    """

    def __init__(self, folder: Path, robot: RobotConfig, fps: float, cameras: Sequence[str]) -> None:
        self.folder, self._robot, self._fps = folder, robot, fps
        try:
            info = json.loads((folder / "meta" / "info.json").read_text(encoding="utf-8"))
            version, features, rate = info["codebase_version"], info["features"], info["fps"]
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"{folder}: not a LeRobot dataset: meta/info.json is missing") from None
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{folder / 'meta' / 'info.json'}: not a LeRobot info.json: {error!r}") from None
        if version not in _VERSIONS:
            raise ConfigError(f"{folder}: codebase_version {version!r} is not read, only {' and '.join(_VERSIONS)}")
        if rate != fps:
            raise ConfigError(f"{folder}: recorded at {rate} fps, but {fps:g} is needed; convert it again")
        if unknown := [camera for camera in cameras if camera not in robot.cameras]:
            raise ConfigError(f"the robot has no camera {unknown[0]}; it has {', '.join(robot.cameras)}")
        self._keys = {camera: f"observation.images.{robot.cameras[camera].dataset_key}" for camera in cameras}
        self._columns = {prefix: self._vector_keys(prefix, features) for prefix in ("observation.state", "action")}
        self._check_videos(features)
        self._info = info
        try:
            self.episodes = self._episodes_v21() if version == "v2.1" else self._episodes_v30()
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            raise ConfigError(f"{folder / 'meta'}: not that of a whole {version} dataset: {error!r}") from None
        empty = [episode.index for episode in self.episodes if episode.length < 1]
        if empty or not self.episodes:
            raise ConfigError(f"{folder}: " + (f"episode {empty[0]} has no frames" if empty else "no episodes"))

    def vectors(self, episode: RecordedEpisode) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """State and action [T, D] in the order of `robot.joint_names`, rad and mm.

        Raises:
            ConfigError: the file cannot be read, has another number of rows, or numbers that are not finite.
        """
        columns = sorted({column for keys in self._columns.values() for column, _ in keys})
        try:
            table = pq.read_table(episode.data, columns=columns, filters=[("episode_index", "=", episode.index)])
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(f"{episode.data}: cannot be read: {error}") from None
        if len(table) != episode.length:
            raise ConfigError(
                f"{episode.data}: episode {episode.index} has {len(table)} rows, meta says {episode.length}"
            )
        found = []
        for prefix, keys in self._columns.items():
            parts = [self._matrix(episode, column, table[column])[:, places] for column, places in keys]
            values = np.concatenate(parts, axis=1)
            if not np.isfinite(values).all():
                row, place = np.argwhere(~np.isfinite(values))[0]
                name = self._robot.joint_names[place]
                raise ConfigError(f"{episode.data}: {prefix} of {name} is not finite in frame {row}")
            found.append(values)
        return found[0], found[1]

    def images(self, episode: RecordedEpisode, camera: str, frames: Sequence[int]) -> list[Pixels]:
        """RGB images of one camera at increasing frame numbers.

        Raises:
            ConfigError: the video is missing, damaged or too short; names file and frame.
        """
        path, begin = episode.videos[camera]
        times = [begin + frame / self._fps for frame in frames]
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                container.seek(max(0, round((times[0] - 0.5 / self._fps) * av.time_base)))
                found: list[Pixels] = []
                for image in container.decode(stream):
                    if image.time >= times[len(found)] - 0.5 / self._fps:
                        found.append(np.asarray(image.to_ndarray(format="rgb24"), np.uint8))
                        if len(found) == len(times):
                            return found
        except (OSError, av.FFmpegError) as error:
            raise ConfigError(f"{path}: cannot be decoded: {error}") from None
        raise ConfigError(f"{path}: frame {frames[len(found)]} of episode {episode.index} is missing")

    def _vector_keys(self, prefix: str, features: dict[str, Any]) -> list[tuple[str, list[int]]]:
        """Columns that make up a vector, and which of their numbers, in the robot's order."""
        groups = {f"{prefix}.{name}": len(group.joints) for name, group in self._robot.commanded.items()}
        if all(key in features for key in groups):
            wrong = {key: features[key]["shape"] for key, size in groups.items() if features[key]["shape"] != [size]}
            if wrong:
                raise ConfigError(f"{self.folder}: shapes do not fit the robot: {wrong}")
            return [(key, list(range(size))) for key, size in groups.items()]
        names = features.get(prefix, {}).get("names")
        names = next(iter(names.values())) if isinstance(names, dict) else names
        if names is not None and set(self._robot.joint_names) <= set(names):
            return [(prefix, [names.index(name) for name in self._robot.joint_names])]
        missing = ", ".join(key for key in groups if key not in features)
        raise ConfigError(
            f"{self.folder}: needs the keys {missing}, or {prefix} with the names of the robot's joints; it has: "
            f"{', '.join(features)}"
        )

    def _check_videos(self, features: dict[str, Any]) -> None:
        for camera, key in self._keys.items():
            if features.get(key, {}).get("dtype") != "video":
                have = [name for name, feature in features.items() if feature.get("dtype") == "video"]
                raise ConfigError(
                    f"{self.folder}: no video {key} for the camera {camera}; videos: {', '.join(have) or 'none'}"
                )

    def _episodes_v21(self) -> list[RecordedEpisode]:
        info, found = self._info, []
        for line in (self.folder / "meta" / "episodes.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            index = row["episode_index"]
            place = {"episode_chunk": index // info["chunks_size"], "episode_index": index}
            videos = {
                camera: (self.folder / info["video_path"].format(**place, video_key=key), 0.0)
                for camera, key in self._keys.items()
            }
            data = self.folder / info["data_path"].format(**place)
            found.append(RecordedEpisode(index, row["length"], row["tasks"][0], data, videos))
        return found

    def _episodes_v30(self) -> list[RecordedEpisode]:
        info, found = self._info, []
        for path in sorted((self.folder / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
            for row in pq.read_table(path).to_pylist():
                videos = {}
                for camera, key in self._keys.items():
                    place = {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
                    file = self.folder / info["video_path"].format(**place, video_key=key)
                    videos[camera] = (file, float(row[f"videos/{key}/from_timestamp"]))
                place = {name: row[f"data/{name}"] for name in ("chunk_index", "file_index")}
                data = self.folder / info["data_path"].format(**place)
                found.append(RecordedEpisode(row["episode_index"], row["length"], row["tasks"][0], data, videos))
        return sorted(found, key=lambda episode: episode.index)

    def _matrix(self, episode: RecordedEpisode, name: str, column: pa.ChunkedArray) -> NDArray[np.float32]:
        """[T, D] from a column of lists, or of numbers where D is 1."""
        shape = self._info["features"][name]["shape"]
        try:
            return np.array(column.to_pylist(), np.float32).reshape(len(column), *shape)
        except ValueError:
            raise ConfigError(f"{episode.data}: a row of {name} has not the shape {shape} of meta/info.json") from None
