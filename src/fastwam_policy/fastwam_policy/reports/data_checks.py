"""`check-dataset` and `check-recording`: all that can be found, and a copy of a dataset without it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fastwam_policy.common.files import alone_in
from fastwam_policy.common.json_files import read_json
from fastwam_policy.common.parallel import THIS_PROCESS, Where, blocks, map_tasks
from fastwam_policy.common.progress import counted
from fastwam_policy.data.lerobot_index import RecordedEpisode
from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.data.lerobot_writer import Dataset, Episode, claim
from fastwam_policy.data.picture_watch import Report, watched
from fastwam_policy.data.recorded_episode import ConvertSettings, read_episode
from fastwam_policy.data.streamed import local_folder
from fastwam_policy.policies.base import Pixels, PolicyInfo
from fastwam_policy.reports.findings import Checked, Finding, Vectors, unlike_others, unlike_policy
from fastwam_policy.reports.page import data_url, write_page
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

OF_BENCHMARKS: Final = ("libero", "robotwin")
"""What `robot_type` is of these: `embodiments.BENCHMARKS`, which takes torch to import."""
_SHOWN: Final = 24  # pictures on a page
_LEFT_OUT: Final = ("unusable", "duplicate", "frozen", "blind")  # of a copy that is fixed
_TOGETHER: Final = 8  # episodes that a process looks at before it gets others
_WIDTH: Final = 320  # pixels of one


def check_dataset(
    place: str | Path, robot: RobotConfig, policy: PolicyInfo | None = None, *, quick: bool = False,
    where: Where = THIS_PROCESS,
) -> Checked:  # fmt: skip
    """Structure, names, units, ranges, times, videos against tables, pictures, and episodes against each other.

    `place` is a folder, or an address as of :mod:`fastwam_policy.data.streamed`. With `quick`, no picture is decoded;
    otherwise they are at `where`.

    Raises:
        ConfigError: the address cannot be opened, or is empty.
    """
    checked, folder = Checked(str(place), 0), local_folder(place)
    try:
        reader = _reader(folder, robot)
    except ConfigError as error:
        checked.findings.append(Finding("structure", None, str(error)))
        return checked
    checked.episodes = len(reader.episodes)
    checked.findings += [Finding("odd", None, note) for note in reader.notes]
    states: dict[int, Vectors] = {}
    found: dict[int, list[Finding]] = {}
    usable: list[RecordedEpisode] = []
    taken_over: list[NDArray[np.bool_]] = []
    for episode in reader.episodes:
        try:
            found[episode.index] = [Finding("odd", episode.index, note) for note in reader.check(episode)]
            states[episode.index] = reader.vectors(episode)[0]
            taken_over.append(reader.interventions(episode))
            usable.append(episode)
        except ConfigError as error:
            found[episode.index] = [Finding("unusable", episode.index, str(error))]
    pieces = [] if quick else [(reader, part, robot) for part in blocks(usable, where, _TOGETHER)]
    with counted(shown=bool(pieces)) as progress:
        bar = progress.add_task("pictures", total=len(usable))
        for findings in map_tasks(_watch, pieces, where):
            for finding in findings:
                found[finding.episode].append(finding)
            progress.advance(bar)
    checked.findings += chain.from_iterable(found.values())
    if states:
        checked.intervention = float(np.concatenate(taken_over).mean())
        checked.findings += unlike_others(states, robot)
        checked.findings += unlike_policy(states, robot, policy) if policy else []
    return checked


def _watch(reader: Reader, episodes: Sequence[RecordedEpisode], robot: RobotConfig) -> Iterator[list[Finding]]:
    """What is wrong with the pictures of each of these episodes."""
    for episode in episodes:
        checked = Checked(str(reader.folder))
        try:
            state = reader.vectors(episode)[0]
            groups = {name: state[:, place] for name, place in robot.slices.items()}
            for camera in robot.cameras:
                images = reader.images(episode, camera, range(episode.length))
                report = _reporter(checked, episode.index)
                deque(watched(images, groups, robot, camera, reader.fps, report), maxlen=0)
        except ConfigError as error:
            checked.findings.append(Finding("unusable", episode.index, str(error)))
        yield checked.findings


def check_recording(path: Path, robot: RobotConfig, *, quick: bool = False) -> Checked:
    """What `convert` would refuse or say of it, and its pictures."""
    checked, notes, settings = Checked(str(path)), list[str](), ConvertSettings("")
    try:
        episode = read_episode(path, robot, settings, notes, _reporter(checked, None))
        if episode.intervention is not None:
            checked.intervention = float(episode.intervention.mean())
        for images in () if quick else episode.images.values():
            deque(images, maxlen=0)
    except ConfigError as error:
        checked.findings.append(Finding("unusable", None, str(error)))
    except Exception as error:  # noqa: BLE001  bytes of others: the next recording may be good
        checked.findings.append(Finding("unusable", None, f"{path}: {type(error).__name__}: {error}"))
    checked.findings += [Finding("odd", None, note) for note in notes]
    return checked


def write_fixed(checked: Sequence[Checked], target: Path, robot: RobotConfig) -> int:
    """Write the episodes of all datasets that can be used, each once, into a new one; return their number.

    Rows are sorted, numbers closed, an episode of several instructions becomes one for each. Videos are encoded again.

    Raises:
        ConfigError: the datasets have several rates, or nothing can be used.
    """
    if not (readers := [_reader(local_folder(each.source), robot) for each in checked if each.episodes]):
        raise ConfigError(f"{target}: nothing can be used of {', '.join(each.source for each in checked)}")
    rates = {reader.fps for reader in readers}
    if len(rates) != 1:
        raise ConfigError(f"datasets of {len(rates)} rates cannot become one: name those of one rate")
    with alone_in(target):
        claim(target, "check-dataset", ConvertSettings(""))
        dataset, number = Dataset(target, robot, round(rates.pop())), 0
        for reader, each in zip(readers, (c for c in checked if c.episodes), strict=True):
            bad = {finding.episode for finding in each.findings if finding.kind in _LEFT_OUT}
            for recorded in reader.episodes:
                if recorded.index in bad:
                    continue
                state, action = reader.vectors(recorded)
                tasks, taken_over = reader.instructions(recorded), reader.interventions(recorded)
                for task, rows in groupby(range(recorded.length), tasks.__getitem__):
                    part = list(rows)
                    images = {camera: reader.images(recorded, camera, part) for camera in robot.cameras}
                    one, other = (
                        {name: values[part][:, place].astype(np.float64) for name, place in robot.slices.items()}
                        for values in (state, action)
                    )
                    copied = Episode(task, images, one, other, taken_over[part])
                    dataset.write(number, copied, f"{recorded.data}, episode {recorded.index}")
                    number += 1
        if not number:
            raise ConfigError(f"{target}: nothing can be used of {', '.join(each.source for each in checked)}")
        dataset.finish()
    return number


def write_check_page(path: Path, checked: Sequence[Checked], title: str) -> None:
    """A page with all findings, and pictures of the worst."""
    shown = 0
    rows = []
    for each in checked:
        for finding in each.findings:
            picture = ""
            if finding.picture is not None and shown < _SHOWN:
                shown, picture = shown + 1, _data_url(finding.picture)
            where = "" if finding.episode is None else str(finding.episode)
            rows.append((each.source, where, finding.kind, finding.text, picture))
    sources = [(each.source, each.episodes, f"{each.intervention:.1%}", len(each.findings)) for each in checked]
    write_page(path, "check.html.jinja", title=title, sources=sources, rows=rows)


def _reporter(checked: Checked, episode: int | None) -> Report:
    return lambda kind, text, picture: checked.findings.append(Finding(kind, episode, text, picture))


def _reader(folder: Path, robot: RobotConfig) -> Reader:
    info = folder / "meta" / "info.json"
    said = read_json(info) if info.exists() else {}
    if (kind := said.get("robot_type")) in OF_BENCHMARKS:
        raise ConfigError(
            f"{folder}: robot_type is {kind}, but this checks datasets of {robot.robot_type}; what cannot be used of "
            "others, `fastwam train` says when it begins"
        )
    rate = said.get("fps")
    rate = float(rate) if isinstance(rate, (int, float)) and rate > 0 else 15.0
    return Reader(folder, robot, rate, list(robot.cameras))


def _data_url(image: Pixels) -> str:
    height = max(1, round(image.shape[0] * _WIDTH / image.shape[1]))
    small = cv2.resize(image, (_WIDTH, min(height, 4 * _WIDTH)), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1].tobytes()
    return data_url("image/jpeg", data)
