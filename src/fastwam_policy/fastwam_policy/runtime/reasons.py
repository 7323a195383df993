"""Numbered reasons of the policy side, with one text each. The numbers are those of PolicyStatus.msg."""

from __future__ import annotations

from enum import IntEnum

from galaxea_r1lite_bridge.execution.reasons import OpenEnum


class PolicyState(OpenEnum):
    """What the policy is doing."""

    INACTIVE = 0
    WAITING = 1
    RUNNING = 2
    FAULT = 3
    IDLE = 4


class PolicyReason(IntEnum):
    """Why no chunk was computed, or why an input was ignored."""

    NONE = 0
    MISSING_STREAM = 100
    STALE_OBSERVATION = 101
    SKEWED_STREAMS = 102
    CORRUPT_IMAGE = 103
    SAME_OBSERVATION = 104
    INSTRUCTION_CHANGED = 105
    CLOCK_JUMPED_BACK = 106
    CAMERA_FROZEN = 107
    CAMERA_BLIND = 108
    CLOCK_STANDS_STILL = 109
    ZERO_STAMP = 110
    STAMP_WENT_BACK = 111
    NOT_FINITE = 112
    TOO_FEW_ENTRIES = 113
    OTHER_JOINTS = 114
    STAMP_UNLIKELY = 115
    HOVERING = 116
    INFERENCE_FAILED = 200
    POLICY_UNAVAILABLE = 201

    @property
    def text(self) -> str:
        """One sentence for people."""
        return _TEXTS[self]


CAMERA_WATCHDOGS = (PolicyReason.CAMERA_FROZEN, PolicyReason.CAMERA_BLIND)
_TEXTS = {
    PolicyReason.NONE: "",
    PolicyReason.MISSING_STREAM: "not received yet",
    PolicyReason.STALE_OBSERVATION: "newest common observation older than max_observation_age",
    PolicyReason.SKEWED_STREAMS: "no messages within max_skew of each other",
    PolicyReason.CORRUPT_IMAGE: "image does not decode",
    PolicyReason.SAME_OBSERVATION: "nothing newer than the last chunk's observation",
    PolicyReason.INSTRUCTION_CHANGED: "result belonged to an older epoch",
    PolicyReason.CLOCK_JUMPED_BACK: "time went backwards; buffer cleared",
    PolicyReason.CAMERA_FROZEN: "a camera sends the same picture again and again",
    PolicyReason.CAMERA_BLIND: "a camera shows nothing: it is dark, covered or of one colour",
    PolicyReason.CLOCK_STANDS_STILL: "this node's clock stands still: /clock has stopped, or has not begun",
    PolicyReason.ZERO_STAMP: "message without a stamp ignored",
    PolicyReason.STAMP_WENT_BACK: "message older than its predecessor ignored",
    PolicyReason.NOT_FINITE: "joint message with NaN or infinity ignored",
    PolicyReason.TOO_FEW_ENTRIES: "joint message with too few positions ignored",
    PolicyReason.OTHER_JOINTS: "joint message with other or repeated joint names ignored",
    PolicyReason.STAMP_UNLIKELY: "message whose stamp cannot be true by this clock ignored",
    PolicyReason.HOVERING: "the arms hover: the chunk is followed further before the next inference",
    PolicyReason.INFERENCE_FAILED: "the policy raised an error",
    PolicyReason.POLICY_UNAVAILABLE: "the policy runs elsewhere and does not answer",
}
