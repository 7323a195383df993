"""Small datasets with one fault each. The frame's number is in the colour of its picture."""

from __future__ import annotations

import json
from fractions import Fraction

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.data.lerobot_writer import Dataset, Episode
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

ROBOT = RobotConfig.load()
CAMERAS = list(ROBOT.cameras)
FPS, LENGTH = 15, 12
HEAD = f"observation.images.{ROBOT.cameras['head'].dataset_key}"
KEYS = [f"observation.images.{camera.dataset_key}" for camera in ROBOT.cameras.values()]


def picture(number, size=(64, 48)):
    """Grey: no codec changes it much."""
    return np.full((size[1], size[0], 3), 20 + 3 * number, np.uint8)


def number(image):
    return round((float(image.mean()) - 20) / 3)


def positions(group, time):
    """Plausible ones: they are inside the limits, and move."""
    middle = np.array(ROBOT.groups[group].home)
    return middle + (20 if group.endswith("gripper") else 0.1) * np.sin(time + np.arange(len(middle)))


def episode(length=LENGTH, task="fold the towel", begin=0.0):
    times = begin + np.arange(length) / FPS
    state, action = (
        {group: np.array([positions(group, t + ahead) for t in times]) for group in ROBOT.commanded}
        for ahead in (0.0, 0.2)
    )
    return Episode(task, {camera: [picture(k) for k in range(length)] for camera in CAMERAS}, state, action)


def dataset(folder, lengths=(LENGTH, LENGTH), tasks=("fold the towel",), version="v2.1"):
    """The project's own writer: every case changes one thing of what it wrote."""
    made = Dataset(folder, ROBOT, FPS, version)
    for index, length in enumerate(lengths):
        made.write(index, episode(length, tasks[index % len(tasks)], begin=float(index)))
    made.finish()
    return folder


def joined(folder, lengths=(LENGTH, LENGTH)):
    """As lerobot 0.4 writes version 3.0: table and videos of all episodes in one file each."""
    dataset(folder, lengths, version="v3.0")
    tables = sorted((folder / "data" / "chunk-000").iterdir())
    pq.write_table(pa.concat_tables([pq.read_table(path) for path in tables]), tables[0])
    for path in tables[1:]:
        path.unlink()

    def change(rows):
        begin = 0
        for row in rows:
            row["data/file_index"] = 0
            for key in KEYS:
                times = {"from": begin / FPS, "to": (begin + row["length"]) / FPS}
                row |= {f"videos/{key}/file_index": 0} | {f"videos/{key}/{k}_timestamp": t for k, t in times.items()}
            begin += row["length"]

    edit_episodes(folder, change)
    for key in KEYS:
        write_frames(video(folder, 0, key, "v3.0"), [k for length in lengths for k in range(length)])
    return folder


def video(folder, index=0, key=HEAD, version="v2.1"):
    if version == "v2.1":
        return folder / f"videos/chunk-000/{key}/episode_{index:06d}.mp4"
    return folder / f"videos/{key}/chunk-000/file-{index:03d}.mp4"


def table(folder, index=0):
    return folder / f"data/chunk-000/episode_{index:06d}.parquet"


def write_frames(path, numbers, fps=FPS, places=None, codec="libx264", options=None, size=(64, 48)):
    """A video of the pictures with these numbers; `places`: in periods, when each is shown."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, fps, options=options or {"g": "2", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        base = Fraction(1, fps if codec in ("mpeg4", "libsvtav1") else 90_000)
        stream.codec_context.time_base = base
        for place, shown in zip(range(len(numbers)) if places is None else places, numbers, strict=True):
            frame = av.VideoFrame.from_ndarray(picture(shown, size), format="rgb24")
            frame.time_base, frame.pts = base, round(place / fps / base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def edit_info(folder, change):
    path = folder / "meta" / "info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))
    return folder


def edit_lines(folder, change, name="episodes"):
    """`change` the list of objects in a jsonl; it may return a text instead."""
    path = folder / "meta" / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().split("\n") if line]
    text = change(rows)
    written = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text or written, encoding="utf-8")
    return folder


def edit_episodes(folder, change):
    """`change` the rows of version 3.0's meta/episodes."""
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return folder


def edit_column(folder, column, change, index=0):
    """`change` the values of a column of an episode's table, as a list."""
    path = table(folder, index)
    content = pq.read_table(path)
    place = content.schema.get_field_index(column)
    values = pa.array(change(content[column].to_pylist()), content.schema.field(column).type)
    pq.write_table(content.set_column(place, column, values), path)
    return folder


def read(folder):
    """By episode what a training gets: its instructions and the numbers of its pictures; or why it is left out."""
    reader = Reader(folder, ROBOT, FPS, CAMERAS)
    found = {}
    for recorded in reader.episodes:
        try:
            reader.check(recorded)
            state, action = reader.vectors(recorded)
            assert state.shape == action.shape == (recorded.length, 14)
            expected = 70 + 20 * np.sin(recorded.index + np.arange(len(state)) / FPS)  # as `episode` makes the gripper
            np.testing.assert_allclose(state[:, 6], expected, atol=1e-3)
            pictures = {camera: reader.images(recorded, camera, range(recorded.length)) for camera in CAMERAS}
            found[recorded.index] = {camera: [number(image) for image in images] for camera, images in pictures.items()}
        except ConfigError as error:
            found[recorded.index] = str(error)
    assert not any("\n" in why for why in found.values() if isinstance(why, str)), found
    return reader, found


def as_written(length=LENGTH):
    return {camera: list(range(length)) for camera in CAMERAS}
