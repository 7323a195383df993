"""What a server of ours says first: its policy, so that a client needs no mapping file. See docs/reference/wire.md."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fastwam_policy.policies.base import PolicyInfo

VERSION = 1
_MARK = "fastwam"
_MOST_STEPS, _MOST_JOINTS, _MOST_CAMERAS, _MOST_FRAMES = 4096, 256, 64, 64
_SLOWEST, _FASTEST = 0.1, 1000.0  # steps a second
_OLDEST = 60.0  # s that frames are kept for a policy that looks back
_LETTERS = 200  # of a name, which is shown and sent around


@dataclass(frozen=True)
class Metadata:
    """The first message of `fastwam serve`.

    Attributes:
        policy: what the served policy says of itself.
        stateful: whether it is told what was executed; see :class:`fastwam_policy.policies.base.StatefulPolicy`.
        max_bytes: longest message that the server reads.
    """

    policy: PolicyInfo
    stateful: bool
    max_bytes: int

    def to_wire(self) -> dict[str, Any]:
        """As a map of texts, numbers and lists."""
        return {_MARK: VERSION, **asdict(self), "policy": _INFO.dump_python(self.policy, mode="json")}


_INFO, _METADATA = TypeAdapter(PolicyInfo), TypeAdapter(Metadata)


def read_metadata(received: object) -> Metadata | None:
    """The metadata of a server of ours; None: it is another project's.

    Raises:
        ValueError: it is of another version, or damaged; says which key.
    """
    if not isinstance(received, dict) or _MARK not in received:
        return None
    if received[_MARK] != VERSION:
        raise ValueError(
            f"the server speaks version {str(received[_MARK])[:20]} of the wire, this is version {VERSION}; "
            "install the same version of this project on both machines"
        )
    try:
        found = _METADATA.validate_python({key: value for key, value in received.items() if key != _MARK})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    info = found.policy
    if not _SLOWEST <= info.fps <= _FASTEST:
        raise ValueError(f"policy.fps: must be {_SLOWEST} to {_FASTEST:g}, got {info.fps}")
    for name, count, most in (
        ("horizon", info.horizon, _MOST_STEPS),
        ("key_frame_steps", info.key_frame_steps, _MOST_STEPS),
        ("action", len(info.action), _MOST_JOINTS),
        ("state", max(1, len(info.state)), _MOST_JOINTS),
        ("cameras", max(1, len(info.cameras)), _MOST_CAMERAS),
        ("history", max(1, len(info.history)), _MOST_FRAMES),
    ):
        if not 1 <= count <= most:
            raise ValueError(f"policy.{name}: must be 1 to {most}, got {count}")
    if not all(0 <= age <= _OLDEST for age in info.history):
        raise ValueError(f"policy.history: must be 0 to {_OLDEST:g} s, got {list(info.history)}")
    if info.state_band and len(info.state_band) != len(info.state):
        raise ValueError(f"policy.state_band: must be empty or as long as policy.state, got {len(info.state_band)}")
    if not all(math.isfinite(bound) for band in info.state_band for bound in band):
        raise ValueError("policy.state_band: not all numbers are finite")
    cameras, joints = (camera.name for camera in info.cameras), (one.name for one in (*info.state, *info.action))
    for name in (info.name, *cameras, *joints):
        if len(name) > _LETTERS or not name.isprintable():
            raise ValueError(f"policy: a name must be at most {_LETTERS} letters that can be shown, got {name[:20]!r}")
    return found
