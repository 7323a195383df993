"""The mean of a training's pictures, kept in its bundles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.policies.base import Pixels
from fastwam_policy.policies.fastwam.mean_pictures import has_mean_pictures, write_mean_pictures
from fastwam_policy.training.datasets import spread

_PICTURES = 100  # of each camera, spread evenly: the mean of all is no other to the eye
_LONGEST = 320  # px of a side


def keep_mean_pictures(readers: Sequence[Reader], cameras: Sequence[str], bundles: Iterable[Path]) -> None:
    """Write the mean pictures of all episodes into those bundles that do not have them yet."""
    if missing := [bundle for bundle in bundles if not has_mean_pictures(bundle, cameras)]:
        pictures = mean_pictures(readers, cameras)
        for bundle in missing:
            write_mean_pictures(bundle, pictures)


def mean_pictures(readers: Sequence[Reader], cameras: Sequence[str]) -> dict[str, Pixels]:
    """See :func:`mean_picture`, by camera."""
    return {camera: mean_picture(readers, camera) for camera in cameras}


def mean_picture(readers: Sequence[Reader], camera: str) -> Pixels:
    """The mean of pictures of one camera, RGB [H, W, 3], scaled down.

    Raises:
        ConfigError: pictures cannot be read.
    """
    pictures: list[Image.Image] = []
    for reader, episode, frames in spread(readers, _PICTURES):
        for image in reader.images(episode, camera, frames):
            picture = Image.fromarray(image)
            picture.thumbnail((_LONGEST, _LONGEST))
            pictures.append(picture.resize(pictures[0].size) if pictures else picture)
    return np.stack([np.asarray(picture) for picture in pictures]).mean(axis=0).round().astype(np.uint8)
