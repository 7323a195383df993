"""What the policy node knows about the bridge: its newest status."""

from __future__ import annotations

import time

from fastwam_msgs.msg import BridgeStatus
from fastwam_policy.runtime.inference_loop import Executing
from galaxea_r1lite_bridge.execution.reasons import State

_MAX_AGE = 1.0  # s: the bridge publishes at 10 Hz or more


class BridgeView:
    """Newest BridgeStatus; one that is too old counts as no bridge at all."""

    def __init__(self) -> None:
        self._status: BridgeStatus | None = None
        self._arrival = 0.0

    def store(self, status: BridgeStatus) -> None:
        """Callback of the status topic."""
        self._status, self._arrival = status, time.monotonic()

    @property
    def status(self) -> BridgeStatus | None:
        """Newest status, None when it is more than 1 s old."""
        return self._status if time.monotonic() - self._arrival < _MAX_AGE else None

    @property
    def state(self) -> State:
        """State of the bridge, INACTIVE without a status from it."""
        status = self.status
        return State.INACTIVE if status is None else State(status.state)

    @property
    def armed(self) -> bool:
        """Whether chunks would move the arms."""
        status = self.status
        return self.commanding and status is not None and not status.arm_again

    @property
    def commanding(self) -> bool:
        """Whether it is armed, also where it takes no chunks until it is armed again."""
        return self.state.armed

    def follows_another(self, session: int) -> bool:
        """Whether chunks of a policy session would be dropped, because the bridge follows those of another."""
        status = self.status
        return status is not None and status.session not in (0, session)

    @property
    def revocations(self) -> int:
        """How often the bridge gave up all chunks seen so far, -1 without a status from it."""
        status = self.status
        return -1 if status is None else int(status.revocations)

    @property
    def text(self) -> str:
        """State and reason for people."""
        status = self.status
        if status is None:
            return "no status from the bridge"
        again = "; arm again: it was stopped before it followed a policy" if status.arm_again else ""
        why = f", {status.reason} {status.reason_text}" if status.reason else ""
        return f"{State(status.state).name}{why}{again}"

    def executing(self) -> Executing | None:
        """Which chunk is being followed."""
        status = self.status
        if status is None or status.state != State.TRACKING or not status.chunk_id:
            return None
        return Executing(status.session, status.epoch, status.chunk_id, round(1e9 * status.plan_lag))
