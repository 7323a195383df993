"""What a client may ask, and how what it sends becomes an Observation; nothing that comes is trusted.

Where something is wrong these functions raise ValueError with one line that says what, where, and what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import ActionChunk, Frame, Observation, Pixels, PolicyInfo
from fastwam_policy.policies.images import decode_image
from galaxea_r1lite_bridge.robot.joint_gate import places

MAX_PICTURE = 1920 * 1080 * 3
"""Bytes of a picture that is not compressed."""
MAX_STEPS = 4096
"""Rows of what was executed since the last request."""
_MAX_MESSAGE = 2**26
_CAMERAS = 3  # of which a client may send pictures, whatever the policy looks at
_MARGIN = 2**20  # bytes of a message besides its pictures
_MAX_JOINTS = 256
_MAX_PROMPT = 4096  # letters
_SHOWN = 60  # letters of what is wrong


@dataclass(frozen=True)
class Executed:
    """What the robot did since the last request, for :meth:`StatefulPolicy.executed`: targets [N, D], and frames."""

    actions: NDArray[np.float64]
    key_frames: tuple[Frame, ...]


@dataclass(frozen=True)
class Ask:
    """What to infer from.

    Attributes:
        observation: now.
        executed: since the last one, for a policy with a state.
        imagine: whether the answer has the video that the policy predicts.
    """

    observation: Observation
    executed: Executed | None = None
    imagine: bool = False


@dataclass(frozen=True)
class Answer:
    """What a request is answered with.

    Attributes:
        chunk: its columns in the order of `PolicyInfo.action`, as many steps as its horizon says.
        video: RGB [F, H, W, 3], where it was asked for.
        wait_ms: from the request's arrival to its turn.
        infer_ms: from there to this.
    """

    chunk: ActionChunk
    video: NDArray[np.uint8] | None
    wait_ms: float
    infer_ms: float


def longest_message(info: PolicyInfo, *, stateful: bool) -> int:
    """Bytes of the longest message for that policy; pictures larger than full HD must come compressed."""
    frames = 1 + len(info.history) + (info.horizon // info.key_frame_steps if stateful else 0)
    return min(_MAX_MESSAGE, frames * max(_CAMERAS, len(info.cameras)) * MAX_PICTURE + _MARGIN)


def read_pictures(given: Mapping[str, Any], info: PolicyInfo, place: str) -> dict[str, Pixels]:
    """Pictures by camera name; others than the policy's are ignored, missing ones refused.

    Args:
        given: by camera name: uint8 [H, W, 3] or [3, H, W], or the bytes of a JPEG or PNG.
        info: of the policy that will look at them.
        place: where they were, for errors.
    """
    missing = [camera.name for camera in info.cameras if camera.required and camera.name not in given]
    if missing:
        raise ValueError(f"{place}: {', '.join(missing)} missing; got {listed(list(given))}")
    return {
        camera.name: picture(given[camera.name], f"{place}.{camera.name}")
        for camera in info.cameras
        if camera.name in given
    }


def picture(given: object, place: str) -> Pixels:
    """RGB [H, W, 3] of the policy's own: writable, one row after the other."""
    if isinstance(given, bytes):
        try:
            return decode_image(given)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    if not isinstance(given, np.ndarray) or given.dtype != np.uint8 or given.ndim != 3 or not given.size:
        raise ValueError(f"{place}: must be uint8 [H, W, 3] or [3, H, W], or a JPEG or PNG; got {kind_of(given)}")
    if given.nbytes > MAX_PICTURE:
        raise ValueError(f"{place}: {kind_of(given)} is larger than 1920 x 1080: send a JPEG")
    if given.shape[2] == 3:
        return np.array(given)
    if given.shape[0] == 3:
        return np.array(given.transpose(1, 2, 0), order="C")
    raise ValueError(f"{place}: must be [H, W, 3] or [3, H, W], got {list(given.shape)}")


def read_joints(names: Sequence[object], values: Sequence[object], info: PolicyInfo, place: str) -> dict[str, float]:
    """Position by joint name; each joint of the policy's state must be there once, others may."""
    if len(names) > _MAX_JOINTS:
        raise ValueError(f"{place}: at most {_MAX_JOINTS} joints are taken, got {len(names)}")
    wrong = [name for name, value in zip(names, values, strict=True) if not _is_finite(value)]
    if wrong:
        raise ValueError(f"{place}: not a finite number: {listed(wrong)}")
    texts = [str(name) for name in names]
    try:
        places(texts, [channel.name for channel in info.state])
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return {name: float(value) for name, value in zip(texts, values, strict=True)}  # type: ignore[arg-type]


def read_numbers(given: object, shape: Sequence[int | tuple[int, int]], place: str) -> NDArray[np.float64]:
    """Finite numbers as float64; each entry of `shape` is a length, or the least and the largest one."""
    bounds = [(length, length) if isinstance(length, int) else length for length in shape]
    array = _as_array(given)
    fits = array is not None and array.dtype.kind in "fiu" and array.ndim == len(bounds)
    if (
        array is None
        or not fits
        or any(not low <= length <= high for length, (low, high) in zip(array.shape, bounds, strict=True))
    ):
        wanted = ", ".join(str(low) if low == high else f"{low}..{high}" for low, high in bounds)
        raise ValueError(f"{place}: must be numbers [{wanted}], got {kind_of(given)}")
    numbers = np.array(array, np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{place}: not all numbers are finite")
    return numbers


def read_prompt(given: object, info: PolicyInfo, place: str) -> str:
    """Task text; None: the policy's default."""
    if given is None:
        return info.default_instruction
    if not isinstance(given, str) or len(given) > _MAX_PROMPT:
        raise ValueError(f"{place}: must be a text of at most {_MAX_PROMPT} letters, got {kind_of(given)}")
    return given


def read_map(given: object, known: Sequence[str], place: str) -> dict[str, Any]:
    """A map with text keys, all of them known; `known` empty: any."""
    if not isinstance(given, dict):
        raise ValueError(f"{place or 'the message'}: must be a map, got {kind_of(given)}")
    foreign = [key for key in given if not isinstance(key, str) or (known and key not in known)]
    if foreign:
        raise ValueError(f"{place or 'the message'}: {listed(foreign)} not known; known: {', '.join(known)}")
    return given


def kind_of(value: object) -> str:
    """A few words for an error."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name} {list(value.shape)}"
    if isinstance(value, str | bytes | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def listed(values: Sequence[object]) -> str:
    """Names for an error."""
    text = ", ".join(str(value)[:_SHOWN] for value in values[:8])
    return f"{text} ... ({len(values)})" if len(values) > 8 else text or "none"


def _as_array(given: object) -> NDArray[Any] | None:
    if isinstance(given, list):
        try:
            given = np.array(given)
        except ValueError:  # lists of several lengths
            return None
    return given if isinstance(given, np.ndarray) else None


def _is_finite(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)
    )
