"""Statistics of an episode, as LeRobot keeps them in meta/."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import Pixels
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_IMAGES_COUNTED: Final = 10  # of an episode, for the statistics of its images
_VALUES: Final = 256  # of a pixel's colour


def statistics_of(values: NDArray[Any]) -> dict[str, list[float]]:
    """Of each number in the rows [T, ...]."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    return {
        "min": rows.min(axis=0).tolist(),
        "max": rows.max(axis=0).tolist(),
        "mean": rows.mean(axis=0).tolist(),
        "std": rows.std(axis=0).tolist(),
        "count": [len(rows)],
    }


class CountedImages:
    """The images of one camera, whose colours are counted while they pass.

    Iterating raises ConfigError where there are more or fewer than `length`, or one has another `shape` than those
    before.
    """

    def __init__(
        self, camera: str, images: Iterable[Pixels], length: int, shape: list[int] | None, source: str
    ) -> None:
        self._name, self._images, self._length = f"images of {camera}", images, length
        self._shape, self._source = shape, source or "this episode"
        self._chosen = set(np.linspace(0, self._length - 1, _IMAGES_COUNTED).round().astype(int).tolist())
        self._counts = np.zeros((3, _VALUES), np.int64)

    def __iter__(self) -> Iterator[Pixels]:
        count = 0
        for image in self._images:
            if self._shape is None:
                self._shape = list(image.shape)
            if list(image.shape) != self._shape:
                raise ConfigError(
                    f"{self._name} in {self._source} are {list(image.shape)}, those before {self._shape} (height, "
                    "width, channels): give all episodes one size (convert --height)"
                )
            if count in self._chosen:
                self._counts += [np.bincount(image[..., color].ravel(), minlength=_VALUES) for color in range(3)]
            count += 1
            yield image
        if count != self._length:
            raise ConfigError(f"{self._name}: {count}, but the episode has {self._length} frames")

    @property
    def shape(self) -> list[int]:
        """Of every image: [height, width, 3]."""
        assert self._shape is not None
        return self._shape

    def statistics(self) -> dict[str, Any]:
        """Of each colour channel, 0..1, shaped [3, 1, 1]."""
        values, count = np.arange(_VALUES) / (_VALUES - 1), self._counts.sum(axis=1)
        mean = self._counts @ values / count
        figures = {
            "min": np.array([values[channel > 0].min() for channel in self._counts]),
            "max": np.array([values[channel > 0].max() for channel in self._counts]),
            "mean": mean,
            "std": np.sqrt((self._counts * (values - mean[:, None]) ** 2).sum(axis=1) / count),
        }
        found = {name: value.reshape(3, 1, 1).tolist() for name, value in figures.items()}
        return found | {"count": [len(self._chosen)]}
