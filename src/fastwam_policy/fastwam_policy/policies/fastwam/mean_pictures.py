"""The mean of the pictures a bundle was trained with, `mean_pictures/CAMERA.png`: what it sees when it is blind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from fastwam_policy.policies.base import Pixels
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_FOLDER = "mean_pictures"


def read_mean_pictures(bundle: Path, cameras: Iterable[str]) -> dict[str, Pixels]:
    """RGB [H, W, 3] by camera, of any size.

    Raises:
        ConfigError: the bundle does not have them all.
    """
    return {camera: _read(_file(bundle, camera)) for camera in cameras}


def write_mean_pictures(bundle: Path, pictures: Mapping[str, Pixels]) -> None:
    """Keep them in a bundle's folder."""
    for camera, pixels in pictures.items():
        file = _file(bundle, camera)
        file.parent.mkdir(exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        Image.fromarray(pixels).save(unfinished, "PNG")
        unfinished.replace(file)


def has_mean_pictures(bundle: Path, cameras: Iterable[str]) -> bool:
    """Whether a bundle has them all."""
    return all(_file(bundle, camera).is_file() for camera in cameras)


def _file(bundle: Path, camera: str) -> Path:
    return bundle / _FOLDER / f"{camera}.png"


def _read(file: Path) -> Pixels:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise ConfigError(
            f"{file}: there is none: the mean of the pictures that the bundle was trained with, which train keeps; of "
            "a bundle from elsewhere, put it there"
        ) from None
    except (OSError, UnidentifiedImageError) as error:
        raise ConfigError(f"{file}: not a picture: {error}") from None
