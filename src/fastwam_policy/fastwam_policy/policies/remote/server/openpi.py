"""The websocket protocol of openpi, with what this project adds; see docs/reference/wire.md."""

from __future__ import annotations

import time
from typing import Any

from fastwam_policy.policies.base import Frame, Observation, PolicyInfo, RunningPlan
from fastwam_policy.policies.remote.arrays import pack, unpack
from fastwam_policy.policies.remote.metadata import Metadata
from fastwam_policy.policies.remote.server.requests import (
    MAX_STEPS,
    Answer,
    Ask,
    Executed,
    kind_of,
    read_joints,
    read_map,
    read_numbers,
    read_pictures,
    read_prompt,
)
from fastwam_policy.policies.remote.server.turns import SupersededError, Turns

_FRAME = ("stamp_ns", "images", "state")
_KEYS = (*_FRAME, "prompt", "running_plan", "committed", "earlier", "executed", "reset", "imagine")
_MAX_STAMP = 2**63


class Openpi:
    """One client's conversation; see :class:`fastwam_policy.policies.remote.server.connections.Conversation`."""

    ordered = True

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._previous_ms: float | None = None

    def greeting(self) -> bytes:
        """The metadata: the server speaks first."""
        turns = self._turns
        return pack(Metadata(turns.info, turns.stateful, turns.max_bytes).to_wire(), "openpi")

    async def answer(self, message: bytes) -> bytes:
        """The reply to a request."""
        arrived = time.perf_counter()
        given = read_map(unpack(message, "openpi", self._turns.max_bytes), _KEYS, "")
        if _flag(given, "reset"):
            self._turns.reset(self)
            if len(given) == 1:
                return pack({}, "openpi")
        try:
            found = await self._turns.take(self, lambda: read_request(given, self._turns.info))
        except SupersededError:
            return pack({"superseded": True}, "openpi")
        reply = pack(_reply(found, self._previous_ms), "openpi")
        self._previous_ms = 1e3 * (time.perf_counter() - arrived)
        return reply


def read_request(given: dict[str, Any], info: PolicyInfo) -> Ask:
    """A request from its map; ValueError says what is wrong with it."""
    imagine = _flag(given, "imagine")
    if imagine and "imagination" not in info.abilities:
        raise ValueError(f"imagine: {info.name} does not imagine")
    frame = _frame(given, info, "")
    earlier = _frames(given.get("earlier", []), info, "earlier")
    if len(earlier) != len(info.history):
        raise ValueError(f"earlier: must be {len(info.history)} frames, got {len(earlier)}")
    prompt, running = read_prompt(given.get("prompt"), info, "prompt"), _running_plan(given, info)
    observation = Observation(frame.stamp_ns, frame.images, frame.joints, prompt, running, earlier)
    return Ask(observation, _executed(given.get("executed"), info), imagine)


def _flag(given: dict[str, Any], key: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise ValueError(f"{key}: must be true or false, got {kind_of(value)}")
    return value


def _frame(given: dict[str, Any], info: PolicyInfo, place: str) -> Frame:
    stamp_ns = given.get("stamp_ns", time.time_ns())
    if type(stamp_ns) is not int or not 0 <= stamp_ns < _MAX_STAMP:
        raise ValueError(f"{place}stamp_ns: must be a whole number of nanoseconds, got {kind_of(stamp_ns)}")
    images = read_pictures(read_map(given.get("images", {}), (), f"{place}images"), info, f"{place}images")
    state = given.get("state", {})
    if isinstance(state, dict):
        joints = read_joints(list(state), list(state.values()), info, f"{place}state")
    else:
        numbers = read_numbers(state, (len(info.state),), f"{place}state")
        joints = dict(zip((channel.name for channel in info.state), numbers.tolist(), strict=True))
    return Frame(stamp_ns, images, joints)


def _frames(given: object, info: PolicyInfo, place: str) -> tuple[Frame, ...]:
    if not isinstance(given, list):
        raise ValueError(f"{place}: must be a list of frames, got {kind_of(given)}")
    named = [(frame, f"{place}[{k}].") for k, frame in enumerate(given)]
    return tuple(_frame(read_map(frame, _FRAME, name), info, name) for frame, name in named)


def _running_plan(given: dict[str, Any], info: PolicyInfo) -> RunningPlan | None:
    if "running_plan" not in given:
        if "committed" in given:
            raise ValueError("committed: there is no running_plan")
        return None
    actions = read_numbers(given["running_plan"], ((1, info.horizon + 1), len(info.action)), "running_plan")
    committed = given.get("committed")
    if type(committed) is not int or not 0 <= committed <= len(actions):
        shown = committed if type(committed) is int else kind_of(committed)
        raise ValueError(f"committed: must be 0 to {len(actions)}, got {shown}")
    return RunningPlan(actions, committed)


def _executed(given: object, info: PolicyInfo) -> Executed | None:
    if given is None:
        return None
    found = read_map(given, ("actions", "key_frames"), "executed")
    actions = read_numbers(found.get("actions"), ((0, MAX_STEPS), len(info.action)), "executed.actions")
    return Executed(actions, _frames(found.get("key_frames", []), info, "executed.key_frames"))


def _reply(found: Answer, previous_ms: float | None) -> dict[str, Any]:
    chunk, timing = found.chunk, found.chunk.timing
    stages = {f"{stage}_ms": getattr(timing, stage) for stage in ("preprocess", "encode", "prefill", "denoise")}
    reply = {
        "actions": chunk.actions,
        "stamp_ns": chunk.stamp_ns,
        "committed": chunk.committed,
        "policy_timing": {"infer_ms": found.infer_ms, **stages},
        "server_timing": {"wait_ms": found.wait_ms, "infer_ms": found.infer_ms}
        | ({} if previous_ms is None else {"prev_total_ms": previous_ms}),
    }
    return reply if found.video is None else {**reply, "imagination": found.video}
