"""The protocols of policy servers: what is said over a line, and in which order. One class for each.

A reply is arrays by name, or one array: the mapping file says which is which.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.remote.arrays import Dialect, numbers, pack, unpack
from fastwam_policy.policies.remote.lines import MAX_REPLY, Line, LineError, ServerError
from fastwam_policy.policies.remote.mapping import Mapping, ProtocolName
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

Message = dict[str, Any]
_MAX_GREETING = 2**20  # bytes


class Openpi:
    """openpi's websocket: the server speaks first; a request is an observation, a reply has the actions.

    Args:
        line: to the server; it may be opened anew at any time.
        mapping: of the policy; None with a server of ours.
    """

    dialect: Dialect = "openpi"

    def __init__(self, line: Line, mapping: Mapping | None) -> None:
        self.line, self.mapping = line, mapping

    def greet(self, timeout: float) -> Message:
        """After connecting: what the server says of itself.

        Raises:
            ConfigError: it contradicts the mapping.
        """
        return self._dict(unpack(self.line.hear(timeout), self.dialect, _MAX_GREETING))

    def reset(self, prompt: str, timeout: float) -> None:
        """Tell the server that an episode begins, where it can be told."""

    def executed(self, frames: Sequence[Message], actions: Any, prompt: str, timeout: float) -> None:
        """Tell the server what was followed since the last request, and the pictures of what was seen."""

    def infer(self, request: Message, timeout: float) -> Any:
        """The reply to a request."""
        return self.ask(request, timeout)

    def ask(self, message: Message, timeout: float) -> Any:
        """One message, and its answer."""
        return unpack(self.line.ask(pack(message, self.dialect), timeout), self.dialect, MAX_REPLY)

    def _dict(self, found: Any, *keys: str) -> Message:
        """What was found, if it is a map with these keys."""
        if not isinstance(found, dict) or any(key not in found for key in keys):
            has = ", ".join(list(map(str, found))[:8]) if isinstance(found, dict) else type(found).__name__
            raise LineError(f"expected an answer with {', '.join(keys) or 'keys'}, got {has[:200] or 'nothing'}")
        return found

    def _agree(self, key: str, said: Any, wanted: Any) -> None:
        if said is not None and said != wanted:
            raise ConfigError(f"the server says {key} {str(said)[:40]}, the mapping {wanted}")


class VllmOmni(Openpi):
    """vLLM-Omni's realtime robot endpoint: requests name what they want, and a session."""

    def greet(self, timeout: float) -> Message:
        """See :class:`Openpi`."""
        said = super().greet(timeout)
        if self.mapping is not None:
            self._agree("action_horizon", said.get("action_horizon"), self.mapping.action.horizon)
        self._session = uuid.uuid4().hex
        return said

    def reset(self, prompt: str, timeout: float) -> None:
        """See :class:`Openpi`."""
        self.ask({"endpoint": "reset", "session_id": self._session}, timeout)

    def infer(self, request: Message, timeout: float) -> Any:
        """See :class:`Openpi`."""
        return self.ask({"endpoint": "infer", "session_id": self._session, **request}, timeout)

    def ask(self, message: Message, timeout: float) -> Any:
        """See :class:`Openpi`."""
        found = super().ask(message, timeout)
        if isinstance(found, dict) and found.get("type") == "error":
            raise ServerError(str(found.get("message")))
        return found


class LingbotVa(Openpi):
    """LingBot-VA: the server remembers one robot's episode, and is told what was executed and seen.

    Its actions are [D, F, N]: N steps for each of F frames of its video. The first frame of an episode is what is seen
    already: its steps are not to be executed, but are told with the first report.
    """

    def __init__(self, line: Line, mapping: Mapping | None) -> None:
        super().__init__(line, mapping)
        self._begins, self._steps = True, 0
        self._first: NDArray[np.float64] = np.zeros((0, 0, 0))

    def reset(self, prompt: str, timeout: float) -> None:
        """See :class:`Openpi`."""
        self._dict(self.ask({"reset": True, "prompt": self._text(prompt)}, timeout))
        self._begins, self._steps = True, 0

    def executed(self, frames: Sequence[Message], actions: Any, prompt: str, timeout: float) -> None:
        """See :class:`Openpi`; steps beyond the last whole frame are left out."""
        assert self.mapping is not None
        state = np.asarray(actions, np.float32)
        if self._steps:
            whole = len(state) // self._steps
            frames = frames[: whole * self._steps // self.mapping.key_frame_steps]
            state = state[: whole * self._steps].reshape(whole, self._steps, -1).transpose(2, 0, 1)
            state = np.concatenate([self._first, state], axis=1) if self._begins else state
        if not frames:
            return
        seen = [self._observation(frame, self._text(prompt))[0] for frame in frames]
        message = {"obs": seen, "compute_kv_cache": True, "imagine": False, "state": np.ascontiguousarray(state)}
        self._dict(self.ask(message, timeout))
        self._begins = False

    def infer(self, request: Message, timeout: float) -> Any:
        """See :class:`Openpi`."""
        prompt = request.get(self.mapping.prompt.key, "") if self.mapping and self.mapping.prompt else ""
        seen, others = self._observation(request, prompt)
        found = self._dict(self.ask({"obs": seen, "prompt": prompt, **others}, timeout), "action")
        actions = found["action"]
        if not (isinstance(actions, np.ndarray) and actions.ndim == 3 and actions.size):
            return found
        self._first, self._steps = actions[:, :1], actions.shape[2]
        rows = actions.transpose(1, 2, 0).reshape(-1, len(actions))
        if self._begins:  # the chunk is a frame shorter: its end is held
            rows = np.concatenate([rows[self._steps :], np.repeat(rows[-1:], self._steps, axis=0)])
        return found | {"action": rows}

    def _text(self, prompt: str) -> str:
        return self.mapping.prompt.text(prompt) if self.mapping and self.mapping.prompt else prompt

    def _observation(self, request: Message, prompt: str) -> tuple[Message, Message]:
        """What belongs into `obs`, and the constants that stand beside it."""
        beside = set(self.mapping.constants) | {"prompt"} if self.mapping else set()
        seen = {key: value for key, value in request.items() if key not in beside}
        return seen | {"task": prompt}, {key: request[key] for key in beside - {"prompt"} if key in request}


class Galaxea(Openpi):
    """GalaxeaVLA's own server: it holds the chunk, and gives one step a reply. All of them are collected."""

    def greet(self, timeout: float) -> Message:
        """See :class:`Openpi`."""
        said = super().greet(timeout)
        if self.mapping is not None:
            self._agree("action_steps", said.get("action_steps"), self.mapping.action.horizon)
        return said

    def reset(self, prompt: str, timeout: float) -> None:
        """See :class:`Openpi`."""
        self.ask({"__reset__": True}, timeout)

    def infer(self, request: Message, timeout: float) -> Any:
        """See :class:`Openpi`."""
        assert self.mapping is not None
        ends, more = time.monotonic() + timeout, True
        steps: list[Any] = []
        while more and len(steps) <= self.mapping.action.horizon:
            found = self.ask({} if steps else request, max(0.0, ends - time.monotonic()))
            if isinstance(found, dict) and (error := found.get("error")) is not None:
                raise ServerError(str(error.get("message", error)) if isinstance(error, dict) else str(error))
            found = self._dict(found, "action", "need_obs")
            steps.append(found["action"])
            more = not found["need_obs"]
        if more:
            raise ConfigError(f"the server holds more than {self.mapping.action.horizon} steps, the mapping's horizon")
        return {"action": stacked(steps)}


class XPolicyLab(Openpi):
    """XPolicyLab: messages in envelopes; the client speaks first."""

    dialect: Dialect = "msgpack_numpy"

    def __init__(self, line: Line, mapping: Mapping | None) -> None:
        super().__init__(line, mapping)
        self._trial, self._step = "", 0

    def greet(self, timeout: float) -> Message:
        """See :class:`Openpi`."""
        self._evaluation = uuid.uuid4().hex
        return self._say("hello", {}, "hello_ack", timeout)

    def reset(self, prompt: str, timeout: float) -> None:
        """See :class:`Openpi`."""
        self._trial, self._step = uuid.uuid4().hex, 0
        if not self._say("reset", {}, "reset_result", timeout).get("ok", True):
            raise ServerError("reset: not ok")

    def infer(self, request: Message, timeout: float) -> Any:
        """See :class:`Openpi`."""
        answer = self._say("infer", {"observation": request}, "infer_result", timeout)
        self._step += 1
        return stacked(self._dict(answer, "actions")["actions"])

    def _say(self, kind: str, payload: Message, expected: str, timeout: float) -> Message:
        envelope = {
            "message_type": kind, "message_id": uuid.uuid4().hex, "evaluation_id": self._evaluation,
            "action_case_id": "", "trial_id": self._trial, "repeat_index": 0, "step": self._step,
            "sent_at": datetime.now(timezone.utc).isoformat(), "payload": payload,
        }  # fmt: skip
        found = self._dict(self.ask(envelope, timeout), "message_type", "message_id")
        if found["message_id"] != envelope["message_id"]:
            raise LineError("the answer belongs to another request")
        answer = found.get("payload") or {}
        if found["message_type"] == "error":
            said = answer if isinstance(answer, dict) and answer else found
            raise ServerError(f"{said.get('code', '')} {said.get('message', '')}".strip())
        if found["message_type"] != expected:
            raise LineError(f"expected {expected}, got {str(found['message_type'])[:40]}")
        return self._dict(answer)


class Gr00t(Openpi):
    """GR00T's policy server over ZeroMQ."""

    dialect: Dialect = "gr00t"
    key = ""

    def greet(self, timeout: float) -> Message:
        """See :class:`Openpi`."""
        found = self._call("ping", None, timeout)
        return found if isinstance(found, dict) else {"ping": str(found)[:200]}

    def reset(self, prompt: str, timeout: float) -> None:
        """See :class:`Openpi`."""
        self._call("reset", {"options": None}, timeout)

    def infer(self, request: Message, timeout: float) -> Any:
        """See :class:`Openpi`."""
        found = self._call("get_action", {"observation": request, "options": None}, timeout)
        return found[0] if isinstance(found, list) and found else found

    def _call(self, endpoint: str, data: Message | None, timeout: float) -> Any:
        message = {"endpoint": endpoint} | ({} if data is None else {"data": data})
        found = self.ask(message | ({"api_token": self.key} if self.key else {}), timeout)
        if isinstance(found, dict) and "error" in found:
            raise ServerError(str(found["error"]))
        return found


class OpenVla(Openpi):
    """`POST /act` of OpenVLA, OpenVLA-OFT and MolmoAct2: no greeting, no reset."""

    dialect: Dialect = "json_numpy"

    def greet(self, timeout: float) -> Message:
        """See :class:`Openpi`."""
        return {}

    def infer(self, request: Message, timeout: float) -> Any:
        """See :class:`Openpi`."""
        found = self.ask(request, timeout)
        if isinstance(found, str) and found.lstrip()[:1] in ("[", "{"):  # JSON in JSON
            found = unpack(found.encode(), self.dialect, MAX_REPLY)
        if isinstance(found, str):  # with status 200
            raise ServerError(found)
        return found


class Ours(Openpi):
    """`fastwam serve`; see docs/reference/wire.md."""

    def __init__(self, line: Line, mapping: Mapping | None = None) -> None:
        super().__init__(line, mapping)
        self._executed: Message = {}

    def reset(self, prompt: str, timeout: float) -> None:
        """See :class:`Openpi`."""
        self._executed = {}
        self._dict(self.ask({"reset": True}, timeout))

    def executed(self, frames: Sequence[Message], actions: Any, prompt: str, timeout: float) -> None:
        """See :class:`Openpi`; it goes with the next request."""
        self._executed = {"executed": {"actions": actions, "key_frames": list(frames)}}

    def infer(self, request: Message, timeout: float) -> Any:
        """See :class:`Openpi`."""
        request, self._executed = request | self._executed, {}
        found = self._dict(self.ask(request, timeout), "actions", "stamp_ns")
        if found["stamp_ns"] != request["stamp_ns"]:
            raise LineError("the reply belongs to another request")
        return found


PROTOCOLS: dict[ProtocolName, type[Openpi]] = {
    "openpi": Openpi, "vllm-omni": VllmOmni, "lingbot-va": LingbotVa, "galaxea": Galaxea, "xpolicylab": XPolicyLab,
    "gr00t": Gr00t, "openvla": OpenVla, "openvla-oft": OpenVla,
}  # fmt: skip


def stacked(steps: Any) -> dict[str, np.ndarray]:
    """Arrays [H, ...] by name of H maps, one a step; LineError where they do not have the same names and sizes."""
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise LineError("expected a list of maps, one a step")
    if any(step.keys() != steps[0].keys() for step in steps):
        raise LineError("the steps of the chunk have different names")
    try:
        return {key: np.array([np.atleast_1d(numbers(step[key])) for step in steps]) for key in steps[0]}
    except ValueError:
        raise LineError("the steps of the chunk are not numbers, or of different sizes") from None
