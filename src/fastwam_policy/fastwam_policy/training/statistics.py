"""Statistics for normalisation, in the official `dataset_stats.json`.

All figures are of windows: one for each frame of an episode, of the rows from there on; past the end of the episode
its last row is repeated. `stepwise` figures are [steps, D], one row for each place in the window; `global` are [D].
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.fastwam.bundle import POLICY_FILE, STATISTICS_FILE, Bundle, BundleConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_LOW, _HIGH = 0.01, 0.99  # quantiles
_LEAST_SPREAD = 1e-3  # rad or mm

Vectors = NDArray[np.float32]


def windows(rows: Vectors, steps: int) -> Vectors:
    """Rows [T, D] -> windows [T, steps, D]; the last row is repeated past the end."""
    places = np.arange(len(rows))[:, None] + np.arange(steps)
    return rows[places.clip(max=len(rows) - 1)]


def origins(state: Vectors, relative: Any) -> Vectors:
    """What each window's actions are counted from, [T, 1, D] of states [T, D]; 0 where no action is `relative`.

    Only then may states be as wide as they like: a relative action counts from the number in its own place.
    """
    return (relative * state)[:, None] if np.any(relative) else np.zeros(1, np.float32)


def dataset_statistics(
    episodes: Iterable[tuple[Vectors, Vectors]], horizon: int, *, relative: Any = 0
) -> dict[str, Any]:
    """The content of `dataset_stats.json`.

    Args:
        episodes: state and action of each episode, [T, D] each, as wide as they are.
        horizon: steps of an action window.
        relative: 1 for each dimension whose actions are counted from the state at the window's start, else 0.
    """
    states, actions, frames = [], [], 0
    for state, action in episodes:
        states.append(_of_episode(state[:, None]))
        actions.append(_of_episode(windows(action, horizon) - origins(state, relative)))
        frames += len(state)
    return {
        "state": {"default": _combined(states)},
        "action": {"default": _combined(actions)},
        "num_episodes": len(states),
        "num_transition": frames,
    }


def with_spread(statistics: dict[str, Any]) -> dict[str, Any]:
    """The same where everything moves. A dimension that never does gets a spread of 0.001 rad or mm.

    Without one, the noise of a sensor that the training did not see would be stretched beyond all bounds.
    """
    for kind in ("state", "action"):
        figures = {name: np.array(values) for name, values in statistics[kind]["default"].items()}
        for block in ("stepwise", "global"):
            std = figures[f"{block}_std"]
            std[std < _LEAST_SPREAD] = _LEAST_SPREAD
            for low, high in (("min", "max"), ("q01", "q99")):
                lower, upper = figures[f"{block}_{low}"], figures[f"{block}_{high}"]
                still = upper <= lower
                lower[still] -= _LEAST_SPREAD
                upper[still] += _LEAST_SPREAD
        statistics[kind]["default"] = {name: values.tolist() for name, values in figures.items()}
    return statistics


def _of_episode(values: Vectors) -> dict[str, Vectors]:
    """Figures [steps, D] over the windows [T, steps, D] of one episode."""
    return {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "q01": np.quantile(values, _LOW, axis=0),
        "q99": np.quantile(values, _HIGH, axis=0),
        "mean": values.mean(axis=0),
        "variance": values.var(axis=0, ddof=1) if len(values) > 1 else np.zeros_like(values[0]),
    }


def _combined(episodes: list[dict[str, Vectors]]) -> dict[str, list[Any]]:
    """Episodes count alike, however long they are."""
    figures = {name: np.stack([episode[name] for episode in episodes]).astype(np.float64) for name in episodes[0]}
    result: dict[str, NDArray[np.float64]] = {}
    for kind, axes in (("stepwise", 0), ("global", (0, 1))):
        mean = figures["mean"].mean(axis=axes)
        result |= {
            f"{kind}_min": figures["min"].min(axis=axes),
            f"{kind}_max": figures["max"].max(axis=axes),
            f"{kind}_q01": figures["q01"].min(axis=axes),
            f"{kind}_q99": figures["q99"].max(axis=axes),
            f"{kind}_mean": mean,
            f"{kind}_std": np.sqrt((figures["variance"] + (figures["mean"] - mean) ** 2).mean(axis=axes)),
        }
    return {name: value.tolist() for name, value in result.items()}


def bundle_statistics(folder: Path | None, policy: BundleConfig) -> dict[str, Any]:
    """Those of a bundle, for a policy that is trained on from it.

    Raises:
        ConfigError: there is no such bundle, or it normalises other numbers, or in another way.
    """
    if folder is None or not (folder / POLICY_FILE).is_file():
        raise ConfigError(f"keep_statistics: start_from must be a bundle, got {folder}")
    bundle = Bundle.read_config(folder)
    if (bundle.state, bundle.action) != (policy.state, policy.action):
        raise ConfigError(
            f"keep_statistics: {folder} has other joints, units or normalisation than policy.state and policy.action: "
            "make them equal, or leave it out"
        )
    bundle.statistics(folder, "state")
    bundle.statistics(folder, "action")
    statistics: dict[str, Any] = json.loads((folder / STATISTICS_FILE).read_text(encoding="utf-8"))
    return statistics
