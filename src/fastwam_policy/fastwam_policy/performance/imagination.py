"""How good is what a bundle imagines: beside what happened in recorded episodes, and beside its own actions.

Pictures are compared by PSNR and SSIM (Wang et al. 2004, the luminance), next to two that bound them: nothing changes,
and what happened through the autoencoder alone. Whether the actions reach what the video shows is an inverse dynamics:
a ridge regression reads the action of a frame from its picture. It is fitted to half of the episodes and judged by its
own error on the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from fastwam_policy.data.lerobot_reader import Reader, RecordedEpisode
from fastwam_policy.data.video import write_video
from fastwam_policy.policies.base import Frame, Observation, Pixels, Policy
from fastwam_policy.policies.fastwam.policy import FastWamPolicy
from fastwam_policy.visualization.strip import comparison_strip
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_OBSERVATIONS = 32  # looked at
_FITTED = 400  # pictures that the regression is fitted to
_READ_AS = (24, 24)  # pixels of a picture for it
_RIDGE = 1e-2  # of the features' mean square
_WINDOW, _DEVIATION = (11, 11), 1.5  # of SSIM
_STABLE = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)
_VIDEO_FPS = 2


@dataclass(frozen=True)
class _Moment:
    """An observation, and what happened after it: canvases [F, H, W, 3] and actions [F, D] at the video's frames."""

    observation: Observation
    pictures: Pixels
    actions: NDArray[np.float32]


def check_imagination(policy: Policy, dataset: Path, robot: RobotConfig, video: Path | None = None) -> dict[str, Any]:
    """Figures of the imagined frames, means over observations of every second episode of a LeRobot dataset.

    `psnr` (dB) and `ssim` of `imagined`, `no change` and `autoencoder`; in `actions`, mean absolute errors by unit of
    what the regression reads in `happened` pictures against what was recorded, in `imagined` ones against the policy's
    chunk, in those `of another` observation against it. `video` is written with a strip for each observation.

    Raises:
        ConfigError: the policy is no bundle, or has not learned to imagine; the dataset does not fit, or has fewer
            than two episodes that are long enough.
    """
    if not isinstance(policy, FastWamPolicy):
        raise ConfigError(f"{policy.info.name}: only a bundle on this machine can be asked what it imagines")
    config = policy.bundle.config
    cameras = [tile.camera for tile in config.layout.tiles]
    reader = Reader(dataset, robot, config.fps, cameras)
    reader.leave_out_unusable()
    stride, last = config.video_stride, config.video_stride * (config.video_frames - 1)
    long = [episode for episode in reader.episodes if episode.length > last]
    if len(long) < 2:
        raise ConfigError(
            f"{dataset}: needs two episodes of more than {last} frames, which is how far {config.name} sees"
        )
    order = [reader.body.action_names.index(name) for name in config.action.names]
    read_action = _Regression(*_pictures_and_actions(policy, reader, long[::2], order))
    prepared = ""
    steps = np.minimum(stride * np.arange(1, config.video_frames), config.horizon - 1)
    figures: dict[str, list[tuple[float, float]]] = {"imagined": [], "no change": [], "autoencoder": []}
    chunks, recorded, seen, shown, strips = [], [], [], [], []
    for moment in _moments(policy, reader, long[1::2], order):
        if moment.observation.instruction != prepared:
            policy.prepare(prepared := moment.observation.instruction)
        imagined, happened = policy.imagine(moment.observation), moment.pictures
        through = policy.imagination.reconstruct(happened)
        still = np.broadcast_to(happened[:1], happened.shape)
        for name, others in (("imagined", imagined), ("no change", still), ("autoencoder", through)):
            figures[name] += [(psnr(a, b), ssim(a, b)) for a, b in zip(others[1:], happened[1:], strict=True)]
        chunks.append(policy.infer(moment.observation).actions[steps])
        recorded.append(moment.actions[1:])
        seen.append(read_action(through[1:]))
        shown.append(read_action(imagined[1:]))
        times = (stride * np.arange(config.video_frames) / config.fps).tolist()
        strips.append(comparison_strip(imagined, happened, times, times))
    if video is not None:
        write_video(video, strips, _VIDEO_FPS)
    units = config.action.units
    return {
        "observations": len(chunks),
        "psnr": {name: float(np.mean([p for p, _ in values])) for name, values in figures.items()},
        "ssim": {name: float(np.mean([s for _, s in values])) for name, values in figures.items()},
        "actions": {
            "happened": _errors(seen, recorded, units),
            "imagined": _errors(shown, chunks, units),
            "of another": _errors(np.roll(shown, len(shown) // 2, axis=0), chunks, units),
        },
    }


def psnr(one: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio of two pictures, dB; equal ones have that of an error of 1 in all numbers together."""
    error = np.square(one.astype(np.float64) - other).sum()
    return float(10 * np.log10(255**2 * one.size / max(error, 1.0)))


def ssim(one: Pixels, other: Pixels) -> float:
    """Structural similarity of the luminance of two RGB pictures, 1 for equal ones (Wang et al. 2004)."""
    x, y = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64) for picture in (one, other))

    def blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(values, _WINDOW, _DEVIATION), np.float64)

    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _STABLE[0]) / (mean_x**2 + mean_y**2 + _STABLE[0])
    structure = (2 * covariance + _STABLE[1]) / (var_x + var_y + _STABLE[1])
    return float((luminance * structure).mean())


def table(found: Mapping[str, Any]) -> Table:
    """The figures for a terminal."""
    title = f"The imagined future of {found['observations']} observations"
    shown = Table("", "PSNR, dB", "SSIM", "error of the actions", title=title)
    for name in found["psnr"]:
        shown.add_row(name, f"{found['psnr'][name]:.1f}", f"{found['ssim'][name]:.3f}", "")
    for name, text in (
        ("happened", "read in what happened, against the recorded actions"),
        ("imagined", "read in what it imagines, against its own actions"),
        ("of another", "the same of another observation"),
    ):
        errors = ", ".join(f"{error:.3g} {unit}" for unit, error in found["actions"][name].items())
        shown.add_row(text, "", "", errors)
    return shown


class _Regression:
    """Reads actions from pictures: ridge regression on small ones, fitted to pictures [N, H, W, 3], actions [N, D]."""

    def __init__(self, pictures: Pixels, actions: NDArray[np.float32]) -> None:
        features = _features(pictures)
        self._centre, self._mean = features.mean(axis=0), actions.mean(axis=0)
        centred = features - self._centre
        gram = centred @ centred.T
        gram[np.diag_indices(len(gram))] += _RIDGE * np.trace(gram) / len(gram)
        self._weights = centred.T @ np.linalg.solve(gram, actions - self._mean)

    def __call__(self, pictures: Pixels) -> NDArray[np.float64]:
        """Actions [N, D]."""
        return (_features(pictures) - self._centre) @ self._weights + self._mean


def _features(pictures: Pixels) -> NDArray[np.float64]:
    small = [cv2.resize(picture, _READ_AS, interpolation=cv2.INTER_AREA) for picture in pictures]
    return np.stack(small).reshape(len(pictures), -1) / 255.0


def _pictures_and_actions(
    policy: FastWamPolicy, reader: Reader, episodes: Sequence[RecordedEpisode], order: Sequence[int]
) -> tuple[Pixels, NDArray[np.float32]]:
    """Pictures [N, H, W, 3] as the autoencoder gives them back, and the actions [N, D] of their rows."""
    step = max(1, sum(episode.length for episode in episodes) // _FITTED)
    pictures, actions = [], []
    for episode in episodes:
        rows = range(0, episode.length, step)
        pictures += [
            policy.imagination.reconstruct(canvas[None])[0] for canvas in _canvases(policy, reader, episode, rows)
        ]
        actions.append(reader.vectors(episode)[1][rows][:, order])
    return np.stack(pictures), np.concatenate(actions)


def _moments(
    policy: FastWamPolicy, reader: Reader, episodes: Sequence[RecordedEpisode], order: Sequence[int]
) -> Iterator[_Moment]:
    """Observations at equal distances, after which the episode goes on for as long as the policy sees."""
    config = policy.bundle.config
    ahead = config.video_stride * np.arange(config.video_frames)
    places = [(episode, row) for episode in episodes for row in range(episode.length - ahead[-1])]
    for number in np.unique(np.linspace(0, len(places) - 1, _OBSERVATIONS).astype(int)):
        episode, row = places[number]
        state, action = reader.vectors(episode)
        joints = dict(zip(reader.body.state_names, state[row].tolist(), strict=True))
        observed, *earlier = [
            Frame(
                0, {tile.camera: reader.images(episode, tile.camera, [at])[0] for tile in config.layout.tiles}, joints
            )
            for at in [row, *(max(0, row - steps) for steps in config.model.history)]
        ]
        rows = (row + ahead).tolist()
        canvases = _canvases(policy, reader, episode, rows)
        observation = Observation(0, observed.images, joints, episode.task, earlier=tuple(earlier))
        yield _Moment(observation, canvases, action[rows][:, order])


def _canvases(policy: FastWamPolicy, reader: Reader, episode: RecordedEpisode, rows: Sequence[int]) -> Pixels:
    layout = policy.bundle.config.layout
    cameras = [tile.camera for tile in layout.tiles]
    views = zip(*(reader.images(episode, camera, rows) for camera in cameras), strict=True)
    return np.stack([layout.compose(dict(zip(cameras, images, strict=True))) for images in views])


def _errors(one: Any, other: Any, units: Sequence[str]) -> dict[str, float]:
    """Mean absolute difference of actions [N, F, D] by unit."""
    difference = np.abs(np.asarray(one) - np.asarray(other))
    return {unit: float(difference[..., [u == unit for u in units]].mean()) for unit in dict.fromkeys(units)}
