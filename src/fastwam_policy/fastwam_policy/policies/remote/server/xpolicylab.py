"""XPolicyLab's websocket protocol: a request and its reply are named by an id, and by the trial that they belong to.

Grippers are 0 (closed) to 1 (open) there. What is wrong with a request is an `error` message; the connection stays.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from fastwam_policy.policies.base import Observation
from fastwam_policy.policies.remote.arrays import pack, unpack
from fastwam_policy.policies.remote.metadata import Metadata
from fastwam_policy.policies.remote.server.groups import Groups
from fastwam_policy.policies.remote.server.requests import (
    Answer,
    Ask,
    listed,
    read_map,
    read_pictures,
    read_prompt,
)
from fastwam_policy.policies.remote.server.turns import PolicyFailedError, SupersededError, Turns, one_line
from galaxea_r1lite_bridge.robot.joint_gate import JointMapping

_ECHOED = ("message_id", "evaluation_id", "action_case_id", "trial_id", "repeat_index", "step")
_REPLIES = {
    "hello": "hello_ack", "prepare_case": "prepare_case_ack", "reset": "reset_result", "infer": "infer_result",
    "trial_end": "trial_end_ack", "heartbeat": "heartbeat_ack",
}  # fmt: skip
_CAMERAS = {"head": "cam_head", "wrist_left": "cam_left_wrist", "wrist_right": "cam_right_wrist"}
_SHOWN = 60  # letters of a name
_LONGEST = 256  # letters of an id


class XPolicyLab:
    """One client's conversation."""

    ordered = False

    def __init__(self, turns: Turns, groups: Groups) -> None:
        self._turns, self._groups = turns, groups

    def greeting(self) -> None:
        """Nothing: the client says `hello` first."""

    async def answer(self, message: bytes) -> bytes | None:
        """The reply to a message, or None after `close`."""
        given = read_map(unpack(message, "msgpack_numpy", self._turns.max_bytes), (), "")
        envelope = {key: given.get(key) for key in _ECHOED}
        if not isinstance(envelope["message_id"], str) or any(
            not isinstance(value, str | int | None) or len(str(value)) > _LONGEST for value in envelope.values()
        ):
            raise ValueError(f"not a message of XPolicyLab: {', '.join(_ECHOED)} are texts and numbers")
        kind = given.get("message_type")
        if kind == "close":
            return None
        if kind not in _REPLIES:
            self._turns.metrics.count("refused")
            line = f"message_type: {str(kind)[:_SHOWN]!r} is not known; known: {listed([*_REPLIES])}"
            return _error(envelope, "unknown_message_type", line)
        try:
            payload = read_map(given.get("payload") or {}, (), "payload")
            return _message(_REPLIES[kind], envelope, await self._payload(kind, payload))
        except SupersededError as error:
            return _error(envelope, "infer_failed", one_line(error))
        except (ValueError, PolicyFailedError) as error:
            self._turns.metrics.count("failed" if isinstance(error, PolicyFailedError) else "refused")
            return _error(envelope, "infer_failed" if kind == "infer" else "invalid_frame", one_line(error))

    async def _payload(self, kind: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        turns = self._turns
        if kind == "infer":
            return self._actions(await turns.take(self, lambda: self._ask(payload)))
        if kind == "reset":
            turns.reset(self)
        if kind == "hello":
            return {"ok": True, "server": "fastwam", **Metadata(turns.info, turns.stateful, turns.max_bytes).to_wire()}
        return {"ok": True}

    def _ask(self, payload: Mapping[str, Any]) -> Ask:
        info = self._turns.info
        observation = read_map(payload.get("observation"), (), "observation")
        vision = read_map(observation.get("vision", {}), (), "observation.vision")
        pictures = {}
        for camera in info.cameras:
            key = _CAMERAS.get(camera.name, f"cam_{camera.name}")
            if key in vision:
                pictures[camera.name] = read_map(vision[key], (), f"observation.vision.{key}").get("color")
        images = read_pictures(pictures, info, "observation.vision")
        state = read_map(observation.get("state", {}), (), "observation.state")
        prompt = observation.get("instruction", observation.get("instructions"))
        if isinstance(prompt, list) and prompt:
            prompt = prompt[0]
        return Ask(
            Observation(
                time.time_ns(),
                images,
                self._groups.read(state, _key, "observation.state."),
                read_prompt(prompt or None, info, "observation.instruction"),
            )
        )

    def _actions(self, found: Answer) -> dict[str, Any]:
        groups = self._groups.write(found.chunk)
        steps = [{_key(name): values[k] for name, values in groups.items()} for k in range(len(found.chunk.actions))]
        return {"actions": steps, "latency_ms": found.infer_ms}


def measured(unit: str) -> JointMapping:
    """How XPolicyLab measures joints of that unit of ours."""
    return JointMapping(range=(0.0, 1.0)) if unit == "mm" else JointMapping()


def _key(group: str) -> str:
    """`left_arm` -> `left_arm_joint_state`, `left_gripper` -> `left_ee_joint_state`."""
    return f"{group.replace('gripper', 'ee')}_joint_state"


def _error(envelope: Mapping[str, Any], code: str, line: str) -> bytes:
    return _message("error", envelope, {"code": code, "message": line, "details": {}})


def _message(kind: str, envelope: Mapping[str, Any], payload: Mapping[str, Any]) -> bytes:
    sent = datetime.now(timezone.utc).isoformat()
    return pack({"message_type": kind, **envelope, "sent_at": sent, "payload": payload}, "msgpack_numpy")
