"""States and numbered reasons of the bridge, with one text each. The numbers are those of BridgeStatus.msg."""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """What the bridge is doing."""

    INACTIVE = 0
    DISARMED = 1
    HOLDING = 2
    TRACKING = 3
    STOPPING = 4


class Reason(IntEnum):
    """Why it is doing it, or why a chunk was dropped."""

    NONE = 0
    NOT_ARMED = 100
    ARMED = 101
    PLAN_ENDED = 200
    PLAN_STALE = 201
    CLOCK_JUMPED_BACK = 202
    STOP_REQUESTED = 203
    FEEDBACK_MISSING = 300
    FEEDBACK_STALE = 301
    FEEDBACK_INVALID = 302
    CHUNK_OLD_EPOCH = 400
    CHUNK_OUT_OF_ORDER = 401
    CHUNK_TOO_OLD = 402
    CHUNK_NOT_FINITE = 403
    CHUNK_WRONG_JOINTS = 404
    CHUNK_FROM_FUTURE = 405

    @property
    def text(self) -> str:
        """One sentence for people."""
        return _TEXTS[self]


_TEXTS = {
    Reason.NONE: "",
    Reason.NOT_ARMED: "not armed: call ~/arm",
    Reason.ARMED: "armed, waiting for a chunk",
    Reason.PLAN_ENDED: "the last step of the newest chunk is over; no newer chunk came",
    Reason.PLAN_STALE: "the newest chunk's observation is older than max_chunk_age",
    Reason.CLOCK_JUMPED_BACK: "time went backwards; the plan was discarded",
    Reason.STOP_REQUESTED: "stop requested; chunks of the epochs seen so far are ignored",
    Reason.FEEDBACK_MISSING: "a joint stream has not been received",
    Reason.FEEDBACK_STALE: "a joint stream is older than max_feedback_age",
    Reason.FEEDBACK_INVALID: "a joint message has NaN or too few entries",
    Reason.CHUNK_OLD_EPOCH: "chunk of an older epoch",
    Reason.CHUNK_OUT_OF_ORDER: "chunk not newer than the one in use",
    Reason.CHUNK_TOO_OLD: "chunk's observation older than max_chunk_age on arrival",
    Reason.CHUNK_NOT_FINITE: "chunk with NaN or infinity",
    Reason.CHUNK_WRONG_JOINTS: "chunk's joint names or shape do not match the robot",
    Reason.CHUNK_FROM_FUTURE: "chunk's observation stamp is ahead of this clock: synchronise the machines' clocks",
}
