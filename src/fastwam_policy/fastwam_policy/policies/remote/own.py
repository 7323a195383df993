"""Observations and chunks as a server of ours takes and gives them: nothing is lost. See docs/reference/wire.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import (
    ActionChunk,
    Frame,
    Observation,
    Pixels,
    PolicyInfo,
    PolicyUnavailableError,
    Timing,
)
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


class OwnLayout:
    """See the module; the other :class:`fastwam_policy.policies.remote.layout.Layout`."""

    def __init__(self, info: PolicyInfo) -> None:
        self.info = info

    def request(self, observation: Observation) -> dict[str, Any]:
        """What the server is sent."""
        request = {**self.seen(observation), "prompt": observation.instruction}
        if observation.running is not None:
            request |= {"running_plan": observation.running.actions, "committed": observation.running.committed}
        if observation.earlier:
            request["earlier"] = [self.seen(frame) for frame in observation.earlier]
        return request

    def seen(self, frame: Frame) -> dict[str, Any]:
        """A frame."""
        names = [camera.name for camera in self.info.cameras if camera.name in frame.images]
        state = {name: float(position) for name, position in frame.joints.items()}
        return {"images": {name: frame.images[name] for name in names}, "state": state, "stamp_ns": frame.stamp_ns}

    def forget(self) -> None:
        """Nothing is remembered."""

    def sent(self, actions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Targets [N, D]."""
        return np.asarray(actions, np.float64)

    def chunk(self, reply: Any, observation: Observation) -> ActionChunk:
        """The chunk of a reply.

        Raises:
            ConfigError: it is of another size than the server has said, or does not continue the running plan.
            PolicyUnavailableError: it has numbers that are not finite.
        """
        info, actions, running = self.info, np.asarray(reply["actions"]), observation.running
        expected = (info.horizon, len(info.action))
        if actions.shape != expected or actions.dtype.kind != "f":
            found = f"{actions.dtype.str} {list(actions.shape)}"
            raise ConfigError(f"{info.name}: expected actions {list(expected)}, the reply has {found}")
        with np.errstate(over="ignore"):  # what is too large is refused below
            actions = actions.astype(np.float64)
        if not np.isfinite(actions).all():
            raise PolicyUnavailableError(f"{info.name}: the reply has numbers that are not finite")
        names = [channel.name for channel in info.action]
        committed, most = reply.get("committed", 0), running.committed if running is not None else 0
        if type(committed) is not int or not 0 <= committed <= min(most, info.horizon):
            raise ConfigError(
                f"{info.name}: committed must be 0 to {min(most, info.horizon)}, got {str(committed)[:40]}"
            )
        if running is not None and (actions[:committed] != running.actions[:committed]).any():
            raise ConfigError(f"{info.name}: the {committed} steps that the reply calls committed are others")
        timing = _timing(reply.get("policy_timing"))
        return ActionChunk(observation.stamp_ns, info.step_ns, names, actions, timing, committed)


def read_video(reply: Any) -> Pixels:
    """The video [F, H, W, 3] of a reply; ConfigError where there is none."""
    video = reply.get("imagination")
    if not isinstance(video, np.ndarray) or video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3:
        found = f"{video.dtype.str} {list(video.shape)}" if isinstance(video, np.ndarray) else type(video).__name__
        raise ConfigError(f"expected imagination |u1 [F, H, W, 3], the reply has {found}")
    return video


def _timing(said: Any) -> Timing:
    known = said if isinstance(said, Mapping) else {}
    stages = [known.get(f"{stage}_ms", 0.0) for stage in ("preprocess", "encode", "prefill", "denoise")]
    return Timing(*(float(ms) if isinstance(ms, int | float) and 0 <= ms < 1e7 else 0.0 for ms in stages))
