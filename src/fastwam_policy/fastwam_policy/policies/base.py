"""The policy interface, `Policy.infer(Observation) -> ActionChunk`, and the types that go in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

Pixels = NDArray[np.uint8]
"""RGB image [height, width, 3]."""

Unit = Literal["rad", "mm", "m", "opaque"]
"""Of one number of a state or an action; `opaque`: only the policy knows."""
ActionKind = Literal["absolute", "delta"]
Ability = Literal["realtime_chunking", "imagination"]
"""`realtime_chunking`: continues `Observation.running`. `imagination`: predicts video."""
Origin = Literal["random", "trained", "official", "scripted", "unknown"]


class PolicyUnavailableError(ConfigError):
    """A policy cannot answer now, and may later: it runs elsewhere, and is restarted, cut off or too slow.

    Args:
        text: why.
        retry_after: s until it is worth asking again.
    """

    def __init__(self, text: str, retry_after: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Channel:
    """One number of the state or the action: its joint, and its unit."""

    name: str
    unit: Unit


@dataclass(frozen=True)
class CameraInput:
    """A camera that a policy looks at; one that is not `required` is used where it is there, and never waited for."""

    name: str
    required: bool = True


@dataclass(frozen=True)
class Identity:
    """What distinguishes a policy from others.

    Attributes:
        origin: where the weights come from; `random` means that the actions mean nothing.
        sha256: of the weights, or of what takes their place; empty: not known.
        source: where it was loaded from.
        distilled_from: the policy whose denoise steps it takes in fewer, and in how many; empty: none.
        settings: hash of all else that its actions depend on; empty: not known.
    """

    origin: Origin = "unknown"
    sha256: str = ""
    source: str = ""
    distilled_from: str = ""
    settings: str = ""


@dataclass(frozen=True)
class PolicyInfo:
    """All that a runner must know of a policy.

    Attributes:
        name: for people and records.
        cameras: what it looks at.
        state: numbers of the joint state that it takes, in its order.
        action: columns of its chunks.
        fps: steps a second of its chunks.
        horizon: steps of a chunk.
        action_kind: `absolute` targets, or a `delta` that the robot's own controller adds to where it is at each step.
        default_instruction: task where none is given.
        instructions: the tasks that it knows; None: any text.
        abilities: what else it can do.
        history: s before the observation, ascending, of earlier frames that it wants in `Observation.earlier`.
        key_frame_steps: steps between the frames that :meth:`StatefulPolicy.executed` is given.
        robot_type: robot it was made for; empty: any with these cameras and joints.
        identity: which weights.
        state_band: for each number of `state` the 1 and 99 % quantile of the training data; empty: not known.
    """

    name: str
    cameras: tuple[CameraInput, ...]
    state: tuple[Channel, ...]
    action: tuple[Channel, ...]
    fps: float
    horizon: int
    action_kind: ActionKind = "absolute"
    default_instruction: str = ""
    instructions: tuple[str, ...] | None = None
    abilities: frozenset[Ability] = frozenset()
    history: tuple[float, ...] = ()
    key_frame_steps: int = 1
    robot_type: str = ""
    identity: Identity = field(default_factory=Identity)
    state_band: tuple[tuple[float, float], ...] = ()

    @property
    def step_ns(self) -> int:
        """Time between two actions, ns."""
        return round(1e9 / self.fps)


@dataclass(frozen=True)
class RunningPlan:
    """What the robot is executing while the next chunk is computed (real-time chunking).

    Attributes:
        actions: its targets [M, D] in rad and mm at the steps of the chunk to compute, from the first one on.
        committed: leading steps that will have been executed when the chunk is ready, at most M.
    """

    actions: NDArray[np.float64]
    committed: int


@dataclass(frozen=True)
class Frame:
    """What the robot sees and feels at one time.

    Attributes:
        stamp_ns: that time, on the node's clock.
        images: RGB uint8 [height, width, 3] by camera name.
        joints: position by joint name, rad and mm.
    """

    stamp_ns: int
    images: Mapping[str, Pixels]
    joints: Mapping[str, float]


@dataclass(frozen=True)
class Observation(Frame):
    """A frame to act on.

    Attributes:
        instruction: task text without the prompt template.
        running: what is being executed; None: the robot stands, or that is not known.
        earlier: the frame nearest to each time of `PolicyInfo.history`; at the beginning, the oldest there is.
    """

    instruction: str
    running: RunningPlan | None = None
    earlier: tuple[Frame, ...] = ()


@dataclass(frozen=True)
class Timing:
    """Wall time of the stages of one inference, ms; a policy without such stages leaves them at 0."""

    preprocess: float = 0.0
    encode: float = 0.0
    prefill: float = 0.0
    denoise: float = 0.0


@dataclass(frozen=True)
class ActionChunk:
    """What to do from the observation's time on.

    Attributes:
        stamp_ns: time of the observation; row k of `actions` is for stamp_ns + k * step_ns.
        step_ns: time between two rows.
        names: joint of each column.
        actions: targets [H, D], in the units and of the kind that `PolicyInfo` says.
        timing: where the time went.
        committed: leading rows taken over unchanged from the running plan.
    """

    stamp_ns: int
    step_ns: int
    names: list[str]
    actions: NDArray[np.float64]
    timing: Timing = field(default_factory=Timing)
    committed: int = 0

    def __post_init__(self) -> None:
        shape = np.shape(self.actions)
        if len(shape) != 2 or not shape[0] or shape[1] != len(self.names) or self.step_ns <= 0:
            raise ValueError(
                f"a chunk needs actions [steps, {len(self.names)}] and a step above 0 ns, "
                f"got {list(shape)} and {self.step_ns}"
            )


@runtime_checkable
class Policy(Protocol):
    """Anything that turns an observation into a chunk. Not thread-safe: one thread owns it."""

    @property
    def info(self) -> PolicyInfo:
        """What a runner must know; the same for the policy's whole life."""

    def prepare(self, instruction: str) -> None:
        """Get ready for an instruction (text embedding, warm-up).

        Raises:
            ConfigError: the policy does not know it; what was prepared before still is.
        """

    def infer(self, observation: Observation) -> ActionChunk:
        """Compute a chunk; `observation.instruction` must have been prepared.

        Raises:
            PolicyUnavailableError: not now; ask again later.
        """

    def reset(self) -> None:
        """Forget what came before: a new episode, task or scene begins."""

    def close(self) -> None:
        """Release connections, threads and memory."""


@runtime_checkable
class StatefulPolicy(Policy, Protocol):
    """A policy that is also told what its robot did since the last inference."""

    def executed(self, actions: NDArray[np.float64], key_frames: Sequence[Frame]) -> None:
        """Called before the next :meth:`infer`.

        Args:
            actions: targets [N, D] that were followed since the last observation, one row a step; N may be 0.
            key_frames: what was seen meanwhile, every `PolicyInfo.key_frame_steps` steps, oldest first.
        """


@runtime_checkable
class ImaginingPolicy(Policy, Protocol):
    """A policy that also predicts what its cameras will see; it has the ability `imagination`."""

    def imagine(self, observation: Observation) -> Pixels:
        """Video, RGB uint8 [F, H, W, 3], of what it sees from the observation on; frame 0 is the observation."""


@runtime_checkable
class BlindablePolicy(Policy, Protocol):
    """A policy that knows what it saw on average in its training, so that it can be tried without seeing."""

    def mean_pictures(self) -> Mapping[str, Pixels]:
        """The mean of its training pictures, RGB uint8 [height, width, 3] by camera, for all that it looks at.

        Raises:
            ConfigError: it was not kept.
        """
