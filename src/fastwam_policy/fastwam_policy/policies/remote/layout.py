"""The maths between this robot and a policy of others: pictures, joint order, units, signs and deltas."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastwam_policy.policies.base import (
    ActionChunk,
    CameraInput,
    Channel,
    Frame,
    Identity,
    Observation,
    Pixels,
    PolicyInfo,
    PolicyUnavailableError,
    Unit,
)
from fastwam_policy.policies.remote.arrays import numbers
from fastwam_policy.policies.remote.mapping import ImageMapping, Kind, Mapping, Part, joined
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

Vector = NDArray[np.float64]
_SHOWN = 12  # keys of a reply that are listed


class Layout:
    """Observations as a mapping file says, and its policy's replies as chunks of absolute targets.

    Args:
        mapping: of a file that fits the robot.
        robot: whose groups and cameras it names.
        name: of the policy.
        source: where it runs.

    Attributes:
        info: as a runner must know it: the action is absolute, in rad and mm.
    """

    def __init__(self, mapping: Mapping, robot: RobotConfig, name: str, source: str) -> None:
        self._mapping = mapping
        self._last: ActionChunk | None = None
        self._state = [_Joints(part, robot) for part in (mapping.state.parts if mapping.state else [])]
        self._action = [_Joints(part, robot, mapping.action.kind) for part in mapping.action_parts]
        needed = self._state + [part for part in self._action if part.kind != "absolute"]
        if mapping.protocol == "galaxea":
            needed += self._action  # a part that is left out is held
        state = dict.fromkeys(channel for part in needed for channel in part.channels)
        cameras = dict.fromkeys(image.camera for image in mapping.images.values())
        self.info = PolicyInfo(
            name,
            tuple(CameraInput(camera) for camera in cameras),
            tuple(state),
            tuple(channel for part in self._action for channel in part.channels),
            mapping.action.fps,
            mapping.action.horizon,
            default_instruction=mapping.prompt.default if mapping.prompt else "",
            key_frame_steps=mapping.key_frame_steps,
            identity=Identity(source=source),
        )

    def request(self, observation: Observation) -> dict[str, Any]:
        """What the policy is sent."""
        request = self.seen(observation)
        mapping = self._mapping
        if mapping.state is not None:
            written = [part.write(observation.joints).astype(np.float32) for part in self._state]
            if self._state[0].key:
                values = {
                    joined(mapping.state.key, part.key): row for part, row in zip(self._state, written, strict=True)
                }
            else:
                values = {mapping.state.key: np.concatenate(written)}
            for key, row in values.items():
                self._put(request, key, self._sample(row))
        if mapping.prompt is not None:
            prompt = mapping.prompt.text(observation.instruction)
            self._put(
                request, mapping.prompt.key, [[prompt]] if mapping.axes == 2 else [prompt] if mapping.axes else prompt
            )
        for key, value in mapping.constants.items():
            self._put(request, key, value)
        return request

    def seen(self, frame: Frame) -> dict[str, Any]:
        """The pictures of a frame."""
        request: dict[str, Any] = {}
        for key, image in self._mapping.images.items():
            self._put(request, key, self._sample(picture(frame.images[image.camera], image)))
        return request

    def sent(self, actions: Vector) -> NDArray[np.float32]:
        """Targets [N, D] in the order of `info.action` as the policy would have said them, absolute."""
        return np.concatenate(
            [part.written(rows) for part, rows in zip(self._action, self._split(actions), strict=True)], axis=1
        ).astype(np.float32)

    def chunk(self, reply: Any, observation: Observation) -> ActionChunk:
        """The chunk of a reply.

        Raises:
            ConfigError: it has not the arrays that the mapping says, or they are of another size.
            PolicyUnavailableError: it has numbers that are not finite.
        """
        found = self._given(reply)
        with np.errstate(over="ignore"):  # what is too large is refused below
            read = [
                self._held(part, observation) if rows is None else part.read(rows, observation.joints)
                for part, rows in zip(self._action, found, strict=True)
            ]
        actions = np.concatenate(read, axis=1)
        if not np.isfinite(actions).all():
            raise PolicyUnavailableError(f"{self.info.name}: the reply has numbers that are not finite")
        names = [channel.name for channel in self.info.action]
        self._last = ActionChunk(observation.stamp_ns, self.info.step_ns, names, actions)
        return self._last

    def forget(self) -> None:
        """A new episode begins."""
        self._last = None

    def _sample(self, array: NDArray[Any]) -> NDArray[Any]:
        return array[(None,) * self._mapping.axes]

    def _given(self, reply: Any) -> list[Vector | None]:
        """Rows of each part as they came; None: GalaxeaVLA leaves a part out where it has nothing to say."""
        key, counts = self._mapping.action.key, [len(part.channels) for part in self._action]
        if not self._action[0].key:
            return [*self._split(self._rows(reply, key, sum(counts)))]
        parts, missing = [part.key for part in self._action], set[str]()
        if self._mapping.protocol == "galaxea":
            given = reply.get(key, {})
            missing = set(parts) - set(given)
            if len(missing) == len(parts) or set(given) - set(parts):
                said, known = ", ".join(map(str, given)) or "nothing", ", ".join(parts)
                raise ConfigError(f"{self.info.name}: expected some of {known}, the reply has {said[:200]}")
        return [
            None if part in missing else self._rows(reply, joined(key, part), count)
            for part, count in zip(parts, counts, strict=True)
        ]

    def _held(self, part: _Joints, observation: Observation) -> Vector:
        """What was last wanted of that part: not where it is, since a gripper that holds something would let go."""
        row = [observation.joints[channel.name] for channel in part.channels]
        if self._last is not None:
            step = (observation.stamp_ns - self._last.stamp_ns) // self._last.step_ns
            if 0 <= step < len(self._last.actions):
                row = [float(self._last.actions[step, self._last.names.index(each.name)]) for each in part.channels]
        return np.tile(row, (self.info.horizon, 1))

    def _split(self, actions: Vector) -> list[Vector]:
        ends = np.cumsum([len(part.channels) for part in self._action])
        return np.split(actions, ends[:-1], axis=1)

    def _put(self, request: dict[str, Any], key: str, value: Any) -> None:
        *outer, last = self._mapping.path(key)
        for name in outer:
            request = request.setdefault(name, {})
        request[last] = value

    def _rows(self, reply: Any, key: str, columns: int) -> Vector:
        """The array [horizon, columns] of a reply."""
        expected = f"expected {key or 'actions'} [{self.info.horizon}, {columns}]"
        for name in self._mapping.path(key) if key else []:
            if isinstance(reply, np.ndarray | list):  # no name: the reply is the array
                break
            if not isinstance(reply, dict) or name not in reply:
                has = ", ".join(list(map(str, reply))[:_SHOWN]) if isinstance(reply, dict) else type(reply).__name__
                raise ConfigError(f"{self.info.name}: {expected}, the reply has {has[:200] or 'nothing'}")
            reply = reply[name]
        try:
            rows = numbers(reply)
        except ValueError:
            raise ConfigError(f"{self.info.name}: {expected}, the reply has no array of numbers there") from None
        while rows.ndim > 2 and rows.shape[0] == 1:
            rows = rows[0]
        if rows.ndim == 1 and 1 in (columns, self.info.horizon):
            rows = rows[:, None] if columns == 1 else rows[None]
        if rows.shape != (self.info.horizon, columns):
            raise ConfigError(
                f"{self.info.name}: {expected}, the reply has {list(rows.shape)}; "
                "correct action.horizon or action.parts of the mapping if the policy is the right one"
            )
        return rows


class _Joints:
    """Some numbers of the state or the action, by the names of our joints and in the others' order and measure."""

    def __init__(self, part: Part, robot: RobotConfig, kind: Kind = "absolute") -> None:
        self.key, self.kind = part.key, part.kind or kind
        if part.group is None:
            unit: Unit = part.unit if part.unit is not None and part.unit != "deg" else "opaque"
            self.channels = [Channel(name, unit) for name in part.channels or []]
            self._gate, self._ours = None, list(range(len(self.channels)))
            return
        group = robot.groups[part.group]
        names = part.joints or group.joints
        self.channels = [Channel(name, group.unit) for name in names]
        self._gate = robot.gate(part.group, part.gate())
        self._ours = [group.joints.index(name) for name in names]  # place in the group of each that is sent
        self._theirs = np.argsort(self._ours)

    def write(self, joints: Dict[str, float]) -> Vector:
        """Positions [D] as they are sent."""
        return self.written(np.array([joints[channel.name] for channel in self.channels]))

    def written(self, positions: Vector) -> Vector:
        """The same for positions [..., D] in the order of `channels`."""
        if self._gate is None:
            return positions
        return self._gate.write(positions[..., self._theirs])[..., self._ours]

    def read(self, rows: Vector, joints: Dict[str, float]) -> Vector:
        """Absolute targets [H, D], in rad and mm, of what the policy said; `joints` are the observed ones."""
        if self.kind != "absolute":
            rows = self.write(joints) + (np.cumsum(rows, axis=0) if self.kind == "delta_stepwise" else rows)
        return rows if self._gate is None else self._gate.rows(rows[:, self._theirs])[:, self._ours]


def picture(pixels: Pixels, image: ImageMapping) -> Pixels:
    """A camera's picture [H, W, 3] in the size and layout of the mapping."""
    if image.size is not None and pixels.shape[:2] != image.size:
        pixels = _fitted(pixels, image)
    return np.ascontiguousarray(np.moveaxis(pixels, 2, 0) if image.layout == "CHW" else pixels)


def _fitted(pixels: Pixels, image: ImageMapping) -> Pixels:
    assert image.size is not None
    (height, width), (to_height, to_width) = pixels.shape[:2], image.size
    if image.fit == "stretch":
        return _resized(pixels, to_height, to_width)
    if image.fit == "crop":
        scale = max(to_height / height, to_width / width)
        kept_height, kept_width = round(to_height / scale), round(to_width / scale)
        top, left = (height - kept_height) // 2, (width - kept_width) // 2
        return _resized(pixels[top : top + kept_height, left : left + kept_width], to_height, to_width)
    # With borders, as openpi's client does it: the smaller picture is rounded down.
    scale = max(height / to_height, width / to_width)
    inside = _resized(pixels, max(1, int(height / scale)), max(1, int(width / scale)))
    top, left = (to_height - inside.shape[0]) // 2, (to_width - inside.shape[1]) // 2
    framed = np.zeros((to_height, to_width, 3), np.uint8)
    framed[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return framed


def _resized(pixels: Pixels, height: int, width: int) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
