"""Runs with openpi-server: serves a policy that moves both arms it sees towards a goal, in ALOHA's form.

python serve_with_openpi.py PORT GOAL.npy
"""

import sys

import numpy as np
from openpi_client.base_policy import BasePolicy
from openpi_server import WebsocketPolicyServer

HORIZON = 50
CAMERAS = ("cam_high", "cam_left_wrist", "cam_right_wrist")


class Towards(BasePolicy):
    """Rows from where the arms are to the goal, which is reached after 8 of them."""

    def __init__(self, goal: np.ndarray) -> None:
        self._goal = goal

    def infer(self, obs: dict) -> dict:
        """What pi0 for ALOHA is sent: anything else is an error."""
        shapes = {name: obs["images"][name].shape for name in CAMERAS}
        assert set(shapes.values()) == {(3, 224, 224)}, shapes
        assert all(obs["images"][name].dtype == np.uint8 for name in CAMERAS)
        assert isinstance(obs["prompt"], str)
        here = np.asarray(obs["state"])
        assert here.shape == (14,), here.shape
        share = np.minimum(1.0, (np.arange(HORIZON) + 1) / 8)[:, None]
        return {"actions": here + share * (self._goal - here), "state": here}

    def reset(self) -> None:
        """Nothing is remembered."""


if __name__ == "__main__":
    WebsocketPolicyServer(Towards(np.load(sys.argv[2])), "127.0.0.1", int(sys.argv[1]), {}).serve_forever()
