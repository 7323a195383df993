"""Runs with openpi-client: asks a server for the chunk of an observation, and steps through it as openpi's robots do.

python ask_with_openpi.py ADDRESS KEY OBSERVATION.npz CHUNK.npz
"""

import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.image_tools import convert_to_uint8, resize_with_pad
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def main(address: str, key: str, given: str, found: str) -> None:
    """As ALOHA's main loop: pictures resized and channels first, the state as it is, a text."""
    seen = np.load(given)
    images = {
        name.removeprefix("image."): convert_to_uint8(resize_with_pad(seen[name], 96, 128)).transpose(2, 0, 1)
        for name in seen.files
        if name.startswith("image.")
    }
    observation = {"images": images, "state": seen["state"], "prompt": str(seen["prompt"])}
    policy = WebsocketClientPolicy(address, api_key=key or None)
    reply = policy.infer(observation)
    broker = ActionChunkBroker(policy, action_horizon=len(reply["actions"]))
    steps = np.array([broker.infer(observation)["actions"] for _ in range(len(reply["actions"]))])
    try:
        policy.infer({"images": {}})
        refusal = ""
    except RuntimeError as error:
        refusal = str(error)
    name = policy.get_server_metadata()["policy"]["name"]
    np.savez(found, actions=reply["actions"], steps=steps, refusal=refusal, name=name, **images)


if __name__ == "__main__":
    main(*sys.argv[1:])
