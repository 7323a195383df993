"""The folders and meta/ of a LeRobot dataset in versions 2.1 and 3.0.

Version 3.0 may put many episodes into one file. Here each has its own, which 3.0 allows, so that episodes can be
written in any order and a kill loses at most one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastwam_policy.common.files import write_text

Version = Literal["v2.1", "v3.0"]
CHUNK = 1000  # episodes a folder
INTERVENTION = "complementary_info.is_intervention"
"""Column that is 1 in rows that a person who took over commanded: as LeRobot's users name it in public datasets."""


@dataclass(frozen=True)
class Layout:
    """Where the files of an episode lie, as patterns of info.json."""

    version: Version
    data: str
    video: str

    def place(self, index: int) -> dict[str, int]:
        """What the patterns are filled with for one episode."""
        if self.version == "v2.1":
            return {"episode_chunk": index // CHUNK, "episode_index": index}
        return {"chunk_index": index // CHUNK, "file_index": index % CHUNK}


LAYOUTS: dict[Version, Layout] = {
    "v2.1": Layout(
        "v2.1",
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ),
    "v3.0": Layout(
        "v3.0",
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    ),
}


def write_meta(
    folder: Path, layout: Layout, info: dict[str, Any], episodes: Sequence[Mapping[str, Any]], tasks: Sequence[str]
) -> None:
    """Write meta/ for `episodes`, each with its length, task and statistics by feature; info.json comes last."""
    write = _write_v21 if layout.version == "v2.1" else _write_v30
    write(folder, layout, info, episodes, tasks)
    write_text(folder / "info.json", json.dumps(info, indent=4) + "\n")


def _write_v21(
    folder: Path, layout: Layout, info: dict[str, Any], episodes: Sequence[Mapping[str, Any]], tasks: Sequence[str]
) -> None:
    del layout
    info["total_videos"] = len(_videos(info)) * len(episodes)
    info["total_chunks"] = -(-len(episodes) // CHUNK)
    lines = {
        "tasks": [{"task_index": k, "task": task} for k, task in enumerate(tasks)],
        "episodes": [{"episode_index": k, "tasks": [e["task"]], "length": e["length"]} for k, e in enumerate(episodes)],
        "episodes_stats": [{"episode_index": k, "stats": e["stats"]} for k, e in enumerate(episodes)],
    }
    for name, rows in lines.items():
        write_text(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _write_v30(
    folder: Path, layout: Layout, info: dict[str, Any], episodes: Sequence[Mapping[str, Any]], tasks: Sequence[str]
) -> None:
    info |= {"data_files_size_in_mb": 100, "video_files_size_in_mb": 200}
    for feature in info["features"].values():
        if feature["dtype"] != "video":
            feature["fps"] = info["fps"]
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_type, "metadata": None}
        for name, (kind, numpy_type) in kinds.items()
    ]
    # lerobot reads this file with pandas and looks tasks up by its index.
    about = {"index_columns": ["task"], "columns": columns, "column_indexes": [], "pandas_version": "2.0.0"}
    _write_table(folder / "tasks.parquet", table.replace_schema_metadata({"pandas": json.dumps(about)}))
    rows, begin = [], 0
    for number, episode in enumerate(episodes):
        row: dict[str, Any] = {
            "episode_index": number, "tasks": [episode["task"]], "length": episode["length"],
            "dataset_from_index": begin, "dataset_to_index": begin + episode["length"],
            "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
        }  # fmt: skip
        place = layout.place(number)
        row |= {f"data/{name}": value for name, value in place.items()}
        for key in _videos(info):
            row |= {f"videos/{key}/{name}": value for name, value in place.items()}
            row |= {f"videos/{key}/from_timestamp": 0.0, f"videos/{key}/to_timestamp": episode["length"] / info["fps"]}
        for key, figures in episode["stats"].items():
            row |= {f"stats/{key}/{name}": value for name, value in figures.items()}
        rows.append(row)
        begin += episode["length"]
    _write_table(folder / "episodes" / "chunk-000" / "file-000.parquet", pa.Table.from_pylist(rows))
    statistics = {key: _combined([episode["stats"][key] for episode in episodes]) for key in episodes[0]["stats"]}
    write_text(folder / "stats.json", json.dumps(statistics, indent=4) + "\n")


def _combined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Statistics of all episodes from those of each."""
    low, high, mean, std, count = (
        np.array([part[name] for part in parts], np.float64) for name in ("min", "max", "mean", "std", "count")
    )
    weight = (count / count.sum()).reshape(-1, *[1] * (mean.ndim - 1))
    centre = (weight * mean).sum(axis=0)
    variance = (weight * (std**2 + (mean - centre) ** 2)).sum(axis=0)
    return {
        "min": low.min(axis=0).tolist(),
        "max": high.max(axis=0).tolist(),
        "mean": centre.tolist(),
        "std": np.sqrt(variance).tolist(),
        "count": [int(count.sum())],
    }


def _videos(info: Mapping[str, Any]) -> list[str]:
    return [key for key, feature in info["features"].items() if feature["dtype"] == "video"]


def _write_table(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    pq.write_table(table, unfinished)
    unfinished.replace(path)
