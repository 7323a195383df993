"""States and numbered reasons of the bridge, with one text each. The numbers are those of BridgeStatus.msg."""

from __future__ import annotations

from enum import IntEnum


class OpenEnum(IntEnum):
    """Numbers of a message, of which another version's sender may have more."""

    @classmethod
    def _missing_(cls, value: object) -> OpenEnum | None:
        if not isinstance(value, int):
            return None
        unknown = int.__new__(cls, value)
        unknown._name_, unknown._value_ = f"UNKNOWN_{value}", value
        return unknown


class State(OpenEnum):
    """What the bridge is doing."""

    INACTIVE = 0
    DISARMED = 1
    HOLDING = 2
    TRACKING = 3
    STOPPING = 4
    FAULT = 5
    ESTOP = 6
    TAKEOVER = 7

    @property
    def armed(self) -> bool:
        """Whether the arms are armed, and may be moved."""
        return self in (State.HOLDING, State.TRACKING, State.STOPPING, State.TAKEOVER)

    @property
    def text(self) -> str:
        """One sentence for people."""
        return _STATES.get(self, "not known here: the bridge is of another version")


class Reason(IntEnum):
    """Why it is doing it, why a chunk was dropped (4xx), or which limit changed a command (5xx)."""

    NONE = 0
    NOT_ARMED = 100
    ARMED = 101
    NOT_STILL = 110
    OUTSIDE_LIMITS = 111
    OUTSIDE_WORKSPACE = 112
    ANOTHER_BRIDGE = 113
    CLOCKS_DIFFER = 114
    STARVED = 200
    PLAN_STALE = 201
    CLOCK_JUMPED_BACK = 202
    STOP_REQUESTED = 203
    CLOCK_JUMPED_AHEAD = 204
    CLOCK_INTERLEAVED = 205
    HOMING = 210
    AT_HOME = 211
    TAKEOVER = 220
    TAKEOVER_INPUT = 221
    TAKEOVER_FAR = 222
    TAKEOVER_ENDED = 223
    FEEDBACK_MISSING = 300
    FEEDBACK_STALE = 301
    FEEDBACK_INVALID = 302
    FEEDBACK_FROZEN = 303
    FEEDBACK_JUMPED = 304
    TRACKING_ERROR = 305
    CONTROL_OVERRUN = 306
    HEARTBEAT_LOST = 307
    DRIVER_ERROR = 308
    ESTOP_PRESSED = 309
    FEEDBACK_INTERLEAVED = 310
    FEEDBACK_CLOCK_STEPPED = 311
    HEARTBEAT_RELEASED = 312
    FEEDBACK_UNIT = 313
    FOREIGN_PUBLISHER = 314
    CONTROL_FAILED = 315
    CHUNK_OLD_EPOCH = 400
    CHUNK_OUT_OF_ORDER = 401
    CHUNK_TOO_OLD = 402
    CHUNK_NOT_FINITE = 403
    CHUNK_WRONG_JOINTS = 404
    CHUNK_FROM_FUTURE = 405
    CHUNK_WHILE_HOMING = 406
    CHUNK_OTHER_SESSION = 407
    CHUNK_NOT_ASKED_FOR = 408
    CHUNK_UNREADABLE = 409
    CHUNK_WHILE_TAKEOVER = 410
    CHUNK_CLOCKS_DIFFER = 411
    LIMIT_POSITION = 500
    LIMIT_VELOCITY = 501
    LIMIT_ACCELERATION = 502
    LIMIT_STEP = 503
    LIMIT_CLOCK = 504
    LIMIT_TABLE = 510
    LIMIT_BOX = 511
    LIMIT_ARM_DISTANCE = 512
    LIMIT_OWN_ARM = 513
    LIMIT_BODY = 514

    @property
    def text(self) -> str:
        """One sentence for people."""
        return _TEXTS[self]


_STATES = {
    State.INACTIVE: "not activated; nothing is sent",
    State.DISARMED: "watching only; nothing is sent",
    State.HOLDING: "armed; the last command is repeated",
    State.TRACKING: "armed; following a plan",
    State.STOPPING: "decelerating to a hold",
    State.FAULT: "stopped by a watchdog; arm again to continue",
    State.ESTOP: "emergency stop; release it and arm again to continue",
    State.TAKEOVER: "armed; following a person's input",
}

_TEXTS = {
    Reason.NONE: "",
    Reason.NOT_ARMED: "not armed: call ~/arm",
    Reason.ARMED: "armed, waiting for a chunk",
    Reason.NOT_STILL: "the arms are moving: wait until they are still",
    Reason.OUTSIDE_LIMITS: "a joint is outside its limits in config/r1lite.yaml: "
    "move it inside by the robot's own means",
    Reason.OUTSIDE_WORKSPACE: "an arm is outside the workspace or too close to something: "
    "move them by the robot's own means, or fix `workspace` in config/r1lite.yaml",
    Reason.ANOTHER_BRIDGE: "another bridge_node is in this ROS domain and would command the same arms: end it "
    "(one that was killed is seen for up to 20 s more)",
    Reason.CLOCKS_DIFFER: "the clocks of policy and bridge differ by more than 0.05 s: synchronise them with chrony",
    Reason.STARVED: "the last step of the newest chunk is over; no newer chunk came",
    Reason.PLAN_STALE: "the newest chunk's observation is older than watchdog.chunk_age",
    Reason.CLOCK_JUMPED_BACK: "time went backwards; the plan was discarded",
    Reason.STOP_REQUESTED: "stop requested; a newer task or instruction of the policy ends it, or ~/arm",
    Reason.CLOCK_JUMPED_AHEAD: "time jumped ahead; the plan was discarded",
    Reason.CLOCK_INTERLEAVED: "time goes back and forth: /clock has two publishers, end one of them",
    Reason.HOMING: "moving slowly to the start pose; chunks are ignored meanwhile",
    Reason.AT_HOME: "the move to the start pose is over",
    Reason.TAKEOVER: "a person has taken over; chunks are ignored meanwhile",
    Reason.TAKEOVER_INPUT: "the input of a person who takes over is missing, unusable or older than 0.2 s",
    Reason.TAKEOVER_FAR: "the input of a person who takes over is more than 0.1 rad or 10 mm from where the joints are "
    "measured: bring it there",
    Reason.TAKEOVER_ENDED: "given back to the policy, waiting for a chunk observed since",
    Reason.FEEDBACK_MISSING: "a joint stream has not been received",
    Reason.FEEDBACK_STALE: "a joint stream is older than watchdog.feedback_age, by its arrival or by its stamps",
    Reason.FEEDBACK_INVALID: "no usable joint message for watchdog.feedback_age: "
    "the newest ones have NaN, too few entries or other joints' names",
    Reason.FEEDBACK_FROZEN: "a joint stream repeats the same positions although the arm is commanded to move",
    Reason.FEEDBACK_JUMPED: "measured positions changed faster than the arm can move",
    Reason.TRACKING_ERROR: "the arm does not follow its commands",
    Reason.CONTROL_OVERRUN: "the control loop was late",
    Reason.HEARTBEAT_LOST: "no heartbeat of anybody who answers for the arms: "
    "run `fastwam operate`, or send one (docs/how-to/run-on-the-robot.md)",
    Reason.DRIVER_ERROR: "the robot's driver reports an error",
    Reason.ESTOP_PRESSED: "emergency stop pressed",
    Reason.HEARTBEAT_RELEASED: "a deadman switch is released, or silent: the arms move only while it is held",
    Reason.FEEDBACK_INTERLEAVED: "a joint stream's stamps go back and forth: it has two publishers, end one of them",
    Reason.FEEDBACK_CLOCK_STEPPED: "a joint stream's stamps and this clock stepped against each other: "
    "held for a second to learn its usual delay",
    Reason.FEEDBACK_UNIT: "a gripper hardly moves for what it is commanded, and stays between 0 and 1: "
    "it is stuck, or its feedback is not in the unit that the robot file says",
    Reason.FOREIGN_PUBLISHER: "another node publishes targets of the robot, which only the bridge may: end it "
    "(one that was killed is seen for up to 20 s more)",
    Reason.CONTROL_FAILED: "the bridge's own control step failed; please report it with the log",
    Reason.CHUNK_OLD_EPOCH: "chunk of an older epoch",
    Reason.CHUNK_OUT_OF_ORDER: "chunk not newer than the one in use",
    Reason.CHUNK_TOO_OLD: "chunk's observation older than watchdog.chunk_age on arrival",
    Reason.CHUNK_NOT_FINITE: "chunk with NaN, infinity or absurdly large numbers",
    Reason.CHUNK_WRONG_JOINTS: "chunk's joint names or shape do not match the robot, or its step is not within 10 s",
    Reason.CHUNK_FROM_FUTURE: "chunk's observation stamp is ahead of this clock: synchronise the machines' clocks",
    Reason.CHUNK_WHILE_HOMING: "chunk during the move to the start pose",
    Reason.CHUNK_OTHER_SESSION: "chunk of another policy session than the one followed since arming: "
    "arm again to follow it",
    Reason.CHUNK_NOT_ASKED_FOR: "chunk observed before the last arming, stop or move to the start pose, "
    "or after a stop with no policy to follow: arm again",
    Reason.CHUNK_UNREADABLE: "chunk longer than 256 kB, or malformed",
    Reason.CHUNK_WHILE_TAKEOVER: "chunk while a person has taken over",
    Reason.CHUNK_CLOCKS_DIFFER: "chunk of a policy whose clock differs from the bridge's by more than 0.05 s: "
    "synchronise them with chrony",
    Reason.LIMIT_POSITION: "joint position limit",
    Reason.LIMIT_VELOCITY: "joint velocity limit",
    Reason.LIMIT_ACCELERATION: "joint acceleration limit",
    Reason.LIMIT_STEP: "largest step from the measured position",
    Reason.LIMIT_CLOCK: "the node's clock did not keep real time: the plan follows the slower of the two",
    Reason.LIMIT_TABLE: "an arm would come too close to the table plane",
    Reason.LIMIT_BOX: "a gripper would leave the workspace box",
    Reason.LIMIT_ARM_DISTANCE: "the arms would come too close to each other",
    Reason.LIMIT_OWN_ARM: "an arm would come too close to itself",
    Reason.LIMIT_BODY: "an arm would come too close to torso, head or base",
}
