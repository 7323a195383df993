"""What meta/ of a LeRobot dataset, version 2.1 or 3.0, says: its features, and of each episode where it lies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from fastwam_policy.common.files import refuse_pointer
from fastwam_policy.common.json_files import read_json, read_json_lines
from fastwam_policy.data.bounded import check_pattern, inside, whole
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

VERSIONS: Final = ("v2.1", "v3.0")
MAX_ROWS: Final = 10**7  # of a table: 185 hours at 15 Hz
_RATE_TOLERANCE: Final = 1e-4
_FIELDS: Final = {
    "v2.1": {"episode_chunk": int, "episode_index": int, "video_key": str},
    "v3.0": {"chunk_index": int, "file_index": int, "video_key": str},
}


@dataclass(frozen=True)
class RecordedEpisode:
    """Where one episode lies.

    Attributes:
        index: number in its dataset.
        length: frames.
        task: instruction; where the rows have several, that of the first.
        data: parquet file that holds its rows.
        videos: by camera, the file and the time in it, s, at which the episode begins.
        ends: by camera, the time in that file, s, at which meta/ says that it ends.
        tasks: every sentence that meta/ gives it. Where that is not one, each row's `task_index` decides.
        listed: file and line, or row, of its entry in meta/.
    """

    index: int
    length: int
    task: str
    data: Path
    videos: dict[str, tuple[Path, float]]
    ends: dict[str, float]
    tasks: tuple[str, ...]
    listed: str


class Index:
    """The meta/ of one dataset folder.

    Attributes:
        version: of the format.
        features: by key.

    Raises:
        ConfigError: not a dataset, another version or frame rate, or paths that lead out of the folder.
    """

    def __init__(self, folder: Path, fps: float) -> None:
        self.folder, self._fps = folder, fps
        path = folder / "meta" / "info.json"
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder")
        if not path.exists():
            hint = ": it is a recording, which convert makes one of" if (folder / "metadata.yaml").exists() else ""
            raise ConfigError(f"{folder}: not a LeRobot dataset: meta/info.json is missing{hint}")
        info = read_json(path)
        if missing := [key for key in ("codebase_version", "features", "fps") if key not in info]:
            raise ConfigError(f"{path}: not a LeRobot info.json: {missing[0]} is missing")
        self.version, features, rate = info["codebase_version"], info["features"], info["fps"]
        if self.version not in VERSIONS:
            raise ConfigError(f"{folder}: codebase_version {self.version!r} is not read, only {' and '.join(VERSIONS)}")
        if isinstance(rate, bool) or not isinstance(rate, (int, float)):
            raise ConfigError(f"{path}: fps must be a number, got {rate!r}")
        if not math.isclose(rate, fps, rel_tol=_RATE_TOLERANCE):
            raise ConfigError(f"{folder}: recorded at {rate} fps, but {fps:g} is needed; convert it again")
        if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
            raise ConfigError(f"{path}: features must be an object of objects")
        self.features: dict[str, dict[str, Any]] = features
        self.robot_type = info.get("robot_type")
        self._patterns = {
            name: check_pattern(info.get(name), _FIELDS[self.version], f"{path}: {name}")
            for name in ("data_path", "video_path")
            if name == "data_path" or any(feature.get("dtype") == "video" for feature in features.values())
        }
        self._chunk = whole(info.get("chunks_size", 1000), f"{path}: chunks_size") or 1

    def episodes(self, keys: Mapping[str, str]) -> list[RecordedEpisode]:
        """All of them in order of their number; `keys` are the features of the cameras that are wanted.

        Raises:
            ConfigError: meta/ is damaged, or an episode is listed twice; names file and line.
        """
        find = self._episodes_v21 if self.version == "v2.1" else self._episodes_v30
        found: dict[int, RecordedEpisode] = {}
        incomplete = f"{self.folder / 'meta'}: not that of a whole {self.version} dataset"
        if self.version == "v2.1" and not (self.folder / "meta" / "episodes.jsonl").exists():
            raise ConfigError(f"{incomplete}: FileNotFoundError: episodes.jsonl")
        try:
            for episode in find(keys):
                if episode.index in found:
                    raise ConfigError(
                        f"{episode.listed}: episode {episode.index} is there already, at "
                        f"{found[episode.index].listed}: take one of them out"
                    )
                found[episode.index] = episode
        except KeyError as error:
            raise ConfigError(f"{incomplete}: no {error}") from None
        return [found[index] for index in sorted(found)]

    @cached_property
    def sentences(self) -> dict[int, str]:
        """Instruction by `task_index`, from meta/tasks."""
        found: dict[int, str] = {}
        if self.version == "v2.1":
            path = self.folder / "meta" / "tasks.jsonl"
            rows = read_json_lines(path) if path.exists() else iter(())
        else:
            path = self.folder / "meta" / "tasks.parquet"
            rows = iter(enumerate(read_table(path).to_pylist())) if path.exists() else iter(())
        for line, row in rows:
            text = row.get("task", row.get("__index_level_0__"))
            if not isinstance(text, str):
                raise ConfigError(f"{path} line {line}: task must be a sentence, got {str(text)[:100]!r}")
            number = whole(row.get("task_index"), f"{path} line {line}: task_index")
            if found.setdefault(number, text) != text:
                raise ConfigError(
                    f"{path} line {line}: task_index {number} is {text[:100]!r}, and {found[number][:100]!r} before"
                )
        return found

    def _episodes_v21(self, keys: Mapping[str, str]) -> Iterator[RecordedEpisode]:
        path = self.folder / "meta" / "episodes.jsonl"
        for line, row in read_json_lines(path):
            listed = f"{path} line {line}"
            index = whole(row.get("episode_index"), f"{listed}: episode_index")
            length = whole(row.get("length"), f"{listed}: length")
            place = {"episode_chunk": index // self._chunk, "episode_index": index}
            videos = {
                camera: (self._file("video_path", listed, video_key=key, **place), 0.0) for camera, key in keys.items()
            }
            ends = dict.fromkeys(keys, length / self._fps)
            data = self._file("data_path", listed, **place)
            yield self._episode(index, length, row, data, videos, ends, listed)

    def _episodes_v30(self, keys: Mapping[str, str]) -> Iterator[RecordedEpisode]:
        for path in sorted((self.folder / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
            wanted = {"episode_index", "length", "tasks", "task", "data/chunk_index", "data/file_index"}
            table = read_table(path)
            kept = [name for name in table.column_names if name in wanted or name.startswith("videos/")]
            for number, row in enumerate(table.select(kept).to_pylist()):
                listed = f"{path} row {number}"
                index = whole(row["episode_index"], f"{listed}: episode_index")
                length = whole(row["length"], f"{listed}: length")
                videos, ends = {}, {}
                for camera, key in keys.items():
                    file = self._file("video_path", listed, video_key=key, **_place(row, f"videos/{key}", listed))
                    videos[camera] = file, _seconds(row, f"videos/{key}/from_timestamp", listed)
                    ends[camera] = _seconds(row, f"videos/{key}/to_timestamp", listed)
                data = self._file("data_path", listed, **_place(row, "data", listed))
                yield self._episode(index, length, row, data, videos, ends, listed)

    def _episode(
        self, index: int, length: int, row: Mapping[str, Any], data: Path, videos: dict[str, tuple[Path, float]],
        ends: dict[str, float], listed: str,
    ) -> RecordedEpisode:  # fmt: skip
        given = row.get("tasks", row.get("task"))
        texts = [given] if isinstance(given, str) else [] if given is None else given
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"{listed}: tasks must be sentences, got {str(given)[:100]!r}")
        tasks = tuple(dict.fromkeys(text for text in texts if text.strip()))
        return RecordedEpisode(index, length, tasks[0] if tasks else "", data, videos, ends, tasks, listed)

    def _file(self, pattern: str, listed: str, **place: object) -> Path:
        return inside(self.folder, self._patterns[pattern].format(**place), f"{listed}: {pattern}")


def read_table(path: Path, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
    """A parquet file; of `columns` those that it has.

    Raises:
        ConfigError: missing, damaged, or with more rows than a table of an episode can have.
    """
    refuse_pointer(path)
    try:
        with pq.ParquetFile(path) as file:
            rows, names = file.metadata.num_rows, file.schema_arrow.names
        if rows > MAX_ROWS:
            raise ConfigError(f"{path}: has {rows} rows, more than {MAX_ROWS}: not a table of episodes")
        wanted = None if columns is None else [name for name in columns if name in names]
        kept = [term for term in filters or [] if term[0] in names]
        return pq.read_table(path, columns=wanted, filters=kept or None, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _place(row: Mapping[str, Any], prefix: str, listed: str) -> dict[str, int]:
    return {
        name: whole(row[f"{prefix}/{name}"], f"{listed}: {prefix}/{name}") for name in ("chunk_index", "file_index")
    }


def _seconds(row: Mapping[str, Any], key: str, listed: str) -> float:
    value = row[key]
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    raise ConfigError(f"{listed}: {key} must be a number of seconds, got {value!r}")
