"""Scaling between physical units and the model's numbers, from the official dataset_stats.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.common.json_files import read_json
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

Normalization = Literal["z-score", "min_max", "q01_q99"]

_CLAMP = 5.0  # normalised values beyond it were clamped in training
_STD_FLOOR = 1e-8
_DEGENERATE = 1e-4  # a smaller range carries no information: the dimension is shifted, not stretched
_STATISTICS: dict[Normalization, tuple[str, str]] = {
    "z-score": ("mean", "std"),
    "min_max": ("min", "max"),
    "q01_q99": ("q01", "q99"),
}
_FIGURES = ("mean", "std", "min", "max", "q01", "q99")
_BOUNDS = (("min", "max"), ("q01", "q99"))


@dataclass(frozen=True)
class Normalizer:
    """Affine map of the last axis. `scale` and `offset` are float32 [D], or [T, D] when stepwise."""

    scale: NDArray[np.float32]
    offset: NDArray[np.float32]

    def forward(self, x: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Physical units [..., D] -> model, clamped to -5..5."""
        return np.clip(np.asarray(x, np.float32) * self.scale + self.offset, -_CLAMP, _CLAMP)

    def backward(self, y: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Model [..., D] -> physical units; not clamped."""
        return (np.asarray(y, np.float32) - self.offset) / self.scale

    def first(self, steps: int) -> Normalizer:
        """For the first rows of a chunk only."""
        return self if self.scale.ndim == 1 else Normalizer(self.scale[:steps], self.offset[:steps])

    @classmethod
    def z_score(cls, mean: NDArray[np.float32], std: NDArray[np.float32]) -> Normalizer:
        """Zero mean, unit deviation. A deviation of 0 makes any difference saturate, as in the official code."""
        spread = std + np.float32(_STD_FLOOR)
        return cls((1 / spread).astype(np.float32), (-mean / spread).astype(np.float32))

    @classmethod
    def bounds(cls, low: NDArray[np.float32], high: NDArray[np.float32]) -> Normalizer:
        """`low`..`high` to -1..1; a degenerate dimension is only shifted to 0."""
        span = high - low
        degenerate = span < _DEGENERATE
        scale = (np.float32(2) / np.where(degenerate, np.float32(2), span)).astype(np.float32)
        return cls(scale, np.where(degenerate, -low, -1 - scale * low).astype(np.float32))

    @classmethod
    def from_statistics(cls, entries: Mapping[str, Any], mode: Normalization, *, stepwise: bool = False) -> Normalizer:
        """From one block of dataset_stats.json, such as ``stats["action"]["default"]``."""
        first, second = (
            np.array(entries[f"{'stepwise' if stepwise else 'global'}_{name}"], np.float32)
            for name in _STATISTICS[mode]
        )
        return cls.z_score(first, second) if mode == "z-score" else cls.bounds(first, second)


def load_statistics(
    path: Path, kind: Literal["state", "action"], names: Sequence[str], mode: Normalization, *, stepwise: bool = False
) -> dict[str, Any]:
    """Read the block of `kind` from an official statistics file, of the dimensions `names`.

    Raises:
        ConfigError: missing file or key, entries of another length, or numbers that cannot normalise: not finite,
            a lower bound above its upper one, or no spread in the two that `mode` takes. Names the dimensions.
    """
    try:
        entries = read_json(path)[kind]["default"]
    except (KeyError, TypeError):
        raise ConfigError(f"{path}: not an official dataset_stats.json: it has no {kind}.default") from None
    return check_statistics(entries, f"{path}: {kind}.default", names, mode, stepwise=stepwise)


def check_statistics(
    entries: Any, source: str, names: Sequence[str], mode: Normalization, *, stepwise: bool = False
) -> dict[str, Any]:
    """The entries of a block, where they can normalise; see :func:`load_statistics`. Errors begin with `source`."""
    blocks = ("global", "stepwise") if stepwise else ("global",)
    try:
        figures = {f"{block}_{name}": np.asarray(entries[f"{block}_{name}"], np.float64)
                   for block in blocks for name in _FIGURES}  # fmt: skip
    except KeyError as error:
        raise ConfigError(f"{source}: not of an official dataset_stats.json: it has no {error}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{source}: not of an official dataset_stats.json: {error}") from None
    shapes = {name: value.shape[1:] if name.startswith("stepwise") else value.shape for name, value in figures.items()}
    wrong = {name: list(figures[name].shape) for name, shape in shapes.items() if shape != (len(names),)}
    if wrong:
        raise ConfigError(f"{source} needs {len(names)} numbers an entry, as policy.yaml says; got {wrong}")
    if problems := [text for block in blocks for text in _degenerate(figures, block, names, mode)]:
        raise ConfigError(f"{source} cannot normalise: {'; '.join(problems)}")
    return dict(entries)


def state_band(statistics: Mapping[str, Any]) -> tuple[tuple[float, float], ...]:
    """1 and 99 % quantile of each dimension, out of a block of statistics."""
    return tuple(zip(statistics["global_q01"], statistics["global_q99"], strict=True))


def _degenerate(
    figures: Mapping[str, NDArray[np.float64]], block: str, names: Sequence[str], mode: Normalization
) -> Iterator[str]:
    """What cannot be right in a block of statistics, with the names of the dimensions."""
    own = {f"{block}_{name}": figures[f"{block}_{name}"].reshape(-1, len(names)) for name in _FIGURES}
    bounds = [(f"{block}_{low}", f"{block}_{high}") for low, high in _BOUNDS]
    largest = np.finfo(np.float32).max  # they are used with so many digits
    checks = [(f"{name} is not finite", ~(np.abs(values) < largest)) for name, values in own.items()]
    checks += [(f"{low} is above {high}", own[low] > own[high]) for low, high in bounds]
    first, second = (f"{block}_{name}" for name in _STATISTICS[mode])
    if mode == "z-score":
        checks.append((f"{second} is not above 0", own[second] <= _STD_FLOOR))
    else:
        checks.append((f"{second} is not above {first}", own[second] <= own[first]))
    for text, flags in checks:
        if which := np.flatnonzero(np.any(flags, axis=0)).tolist():
            yield f"{text} for {', '.join(names[place] for place in which)}"
