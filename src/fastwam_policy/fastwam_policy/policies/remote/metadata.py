"""What a server of ours says first: its policy, so that a client needs no mapping file. See docs/reference/wire.md."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from fastwam_policy.policies.base import PolicyInfo

VERSION = 1
_MARK = "fastwam"
_MOST_STEPS, _MOST_JOINTS, _MOST_CAMERAS, _MOST_FPS = 4096, 256, 64, 1000


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
    found = _METADATA.validate_python({key: value for key, value in received.items() if key != _MARK})
    info = found.policy
    if not (0 < info.fps <= _MOST_FPS and math.isfinite(info.fps)):
        raise ValueError(f"policy.fps: must be above 0 and at most {_MOST_FPS}, got {info.fps}")
    for name, count, most in (
        ("horizon", info.horizon, _MOST_STEPS),
        ("action", len(info.action), _MOST_JOINTS),
        ("state", max(1, len(info.state)), _MOST_JOINTS),
        ("cameras", max(1, len(info.cameras)), _MOST_CAMERAS),
    ):
        if not 1 <= count <= most:
            raise ValueError(f"policy.{name}: must be 1 to {most}, got {count}")
    if info.state_band and len(info.state_band) != len(info.state):
        raise ValueError(f"policy.state_band: must be empty or as long as policy.state, got {len(info.state_band)}")
    return found
