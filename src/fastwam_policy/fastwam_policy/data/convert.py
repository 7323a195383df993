"""`fastwam convert`: recordings of the robot as a LeRobot dataset, resampled to one rate."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from fastwam_policy.common.files import alone_in, require_space
from fastwam_policy.common.parallel import EVERY_CORE, Where, map_tasks
from fastwam_policy.common.progress import counted
from fastwam_policy.data.known_recordings import Work, missing
from fastwam_policy.data.lerobot_writer import Dataset, claim
from fastwam_policy.data.recorded_episode import ConvertSettings, read_episode
from fastwam_policy.data.recording_files import content_of
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_SIZE: Final = 0.15  # of a recording's size that its episode has at least: to see early that a disk is too small


@dataclass
class Converted:
    """What became of recordings.

    Attributes:
        skipped: why, of those that gave no episode.
        left: those that were not looked at, after one that gave none.
        notes: what was left out of the others, or is odd about them.
    """

    skipped: dict[Path, str] = field(default_factory=dict)
    left: list[Path] = field(default_factory=list)
    notes: dict[Path, list[str]] = field(default_factory=dict)


def convert(
    recordings: Sequence[Path],
    folder: Path,
    settings: ConvertSettings,
    where: Where = EVERY_CORE,
    robot: Path | None = None,
    *,
    strict: bool = False,
) -> Converted:
    """Append each recording that is not in the dataset at `folder` yet, in order.

    A recording is known by its content: one that changed is converted again, a copy of one is not. `robot` is another
    robot file than the installed one. With `strict`, the first recording that gives no episode ends the work.

    Raises:
        ConfigError: the dataset's folder holds something else, or was begun with another rate, height, skew or
            format; another command writes into it; or no recording gave an episode.
        RunError: the disk is too small.
    """
    with alone_in(folder):
        claim(folder, "convert", settings)
        dataset = Dataset(folder, RobotConfig.load(robot), settings.fps, settings.version)
        result = Converted()
        paths = list({path.resolve(): path for path in recordings}.values())
        work, result.notes = missing(paths, dataset, settings.task)
        require_space(folder, _SIZE * sum(each.size for each in work), "the episodes")
        failed, looked = dict[Path, str](), set[Path]()
        with counted() as progress:
            task = progress.add_task("recordings", total=len(work))
            jobs = ((each, folder, settings, robot) for each in work)
            with closing(map_tasks(_convert_one, jobs, where)) as done:
                for path, reason, notes in done:
                    progress.advance(task)
                    looked.add(path)
                    if reason:
                        failed[path] = reason
                        if strict:
                            break
                    elif notes:
                        result.notes.setdefault(path, []).extend(notes)
        result.skipped = {path: failed[path] for path in paths if path in failed}
        result.left = [each.path for each in work if each.path not in looked]
        if len(result.skipped) == len(paths) or not dataset.sources():
            raise ConfigError("no recording gave an episode:\n" + "\n".join(result.skipped.values()))
        dataset.close_gaps()
        dataset.finish()
    return result


def _convert_one(
    work: Work, folder: Path, settings: ConvertSettings, robot_file: Path | None
) -> tuple[Path, str, list[str]]:
    """The recording, why it was skipped, and what is odd about it."""
    path, robot, notes = work.path, RobotConfig.load(robot_file), list[str]()
    dataset = Dataset(folder, robot, settings.fps, settings.version)
    try:
        episode = read_episode(path, robot, settings, notes)
        content = asdict(content_of(path, hashed=True))
        dataset.write(work.index, episode, str(path.resolve()), content)
    except ConfigError as error:
        return path, str(error), notes
    except OSError:  # a full disk, or a folder that cannot be written: the next recording would find the same
        raise
    except Exception as error:
        logging.getLogger(__name__).debug("%s", path, exc_info=True)
        return path, f"{path}: cannot be converted ({type(error).__name__}: {error})", notes
    if work.instead is not None:
        dataset.remove(work.instead)
    return path, "", notes
