"""Types of recorded messages: as the recording defines them, or else as they are installed here."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Final

from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from galaxea_r1lite_bridge.robot.share import share_directory
from galaxea_r1lite_bridge.robot.yaml_model import MAX_LENGTH

JOINT_STATE, COMPRESSED_IMAGE = "sensor_msgs/msg/JointState", "sensor_msgs/msg/CompressedImage"
_IDL_BEGIN: Final = "=" * 80 + "\n"


def typestore(kinds: Collection[str] = ()) -> Typestore:
    """ROS 2's own message types, ours, and those of the installed packages that `kinds` are in."""
    store = get_typestore(Stores.ROS2_JAZZY)
    known = {kind.split("/")[0] for kind in store.types}
    types = {}
    for package in {"fastwam_msgs", *(kind.split("/")[0] for kind in kinds)} - known:
        for path in sorted((share_directory(package) / "msg").glob("*.msg")):
            types.update(get_types_from_msg(path.read_text(encoding="utf-8"), f"{package}/msg/{path.stem}"))
    store.register(types)
    return store


@lru_cache
def store_of(kind: str, encoding: str, definition: str) -> Typestore:
    """A store that knows `kind`: as the recording defines it, or else as it is installed here."""
    if definition and len(definition) <= MAX_LENGTH:
        store = get_typestore(Stores.EMPTY)
        if encoding == "ros2msg":
            store.register(get_types_from_msg(definition, kind))
        else:
            parts = definition.split(_IDL_BEGIN)[1:] if definition.startswith(_IDL_BEGIN) else ["\n" + definition]
            for part in parts:
                store.register(get_types_from_idl(part.split("\n", 1)[1]))
        return store
    store = get_typestore(Stores.ROS2_JAZZY)
    try:
        return store if kind in store.types else typestore([kind])
    except LookupError:
        return store
