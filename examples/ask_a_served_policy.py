"""Ask a policy that runs elsewhere. You see its name, how long ten answers take, and where the left arm would go.

./fastwam serve bundles/towel_small          # in one terminal, on this machine or another
source scripts/env.sh                        # in a second one
python examples/ask_a_served_policy.py ws://127.0.0.1:8000
"""

import sys
import time

import numpy as np

from fastwam_policy import Observation, load_policy
from galaxea_r1lite_bridge.robot.config import RobotConfig


def main(address: str) -> None:
    """The answer has the same type, and the same numbers, as that of a policy in this process."""
    policy, robot = load_policy(address), RobotConfig.load()
    policy.prepare(policy.info.default_instruction)
    print(f"{policy.info.name}: {policy.info.horizon} steps, {policy.info.fps:g} a second")

    images = {camera.name: np.full((180, 320, 3), 128, np.uint8) for camera in policy.info.cameras}
    joints = dict(zip(robot.joint_names, map(float, robot.home), strict=True))
    took = []
    for number in range(10):
        began = time.perf_counter()
        chunk = policy.infer(Observation(number * 10**9, images, joints, policy.info.default_instruction))
        took.append(time.perf_counter() - began)
    policy.close()

    print(f"answered in {1000 * np.median(took):.0f} ms (median of {len(took)})")
    for name, begin, end in zip(chunk.names, chunk.actions[0], chunk.actions[-1], strict=True):
        if name.startswith("left"):
            print(f"  {name:16} {begin:8.3f} -> {end:8.3f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/ask_a_served_policy.py ws://HOST:PORT")
    main(sys.argv[1])
