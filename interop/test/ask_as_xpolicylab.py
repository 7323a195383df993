"""Runs with inspect-robots-xpolicylab: two trials with a policy behind XPolicyLab's wire.

python ask_as_xpolicylab.py ADDRESS OBSERVATION.npz CHUNK.npz
"""

import sys

import numpy as np
from inspect_robots_xpolicylab._client import PolicyClient
from inspect_robots_xpolicylab._protocol import MessageType, WsError

KEYS = ("left_arm_joint_state", "left_ee_joint_state", "right_arm_joint_state", "right_ee_joint_state")
CAMERAS = {"cam_head": "head", "cam_left_wrist": "wrist_left", "cam_right_wrist": "wrist_right"}


def main(address: str, given: str, found: str) -> None:
    """Reset, infer and end, twice; then something that is wrong."""
    seen = np.load(given)
    observation = {
        "data_format_version": "v1.0",
        "instruction": str(seen["prompt"]),
        "vision": {slot: {"color": seen[f"image.{name}"]} for slot, name in CAMERAS.items()},
        "state": {key: seen[key] for key in KEYS},
        "additional_info": {"frequency": 15},
    }
    client = PolicyClient(address, "interop", connect_attempts=1)
    client.connect()
    chunks = []
    for trial in ("first", "second"):
        client.reset(trial)
        reply = client.infer(observation, trial_id=trial, step=0)
        chunks.append([np.concatenate([step[key] for key in KEYS]) for step in reply.payload["actions"]])
        assert reply.trial_id == trial
        client.trial_end(trial)
    client.request(MessageType.HEARTBEAT, {})
    try:
        client.infer({}, trial_id="third", step=0)
        refusal = ""
    except WsError as error:
        refusal = f"{error.code}: {error.message}"
    client.close()
    np.savez(found, chunks=np.array(chunks), refusal=refusal)


if __name__ == "__main__":
    main(*sys.argv[1:])
