"""Serve a policy of LeRobot (ACT, diffusion, SmolVLA, pi0, pi0.5, its Fast-WAM, ...) to this project.

It runs in LeRobot's own environment (Python >= 3.12) and imports nothing of this project:

    pip install "lerobot[dataset]==0.6.1" websockets msgpack      # and the policy's extra, such as lerobot[smolvla]
    python serve_lerobot.py outputs/act/checkpoints/last/pretrained_model --dataset data/towel

    ./fastwam eval-sim ws://127.0.0.1:8000                        # elsewhere; no mapping file is needed

The wire is openpi's: docs/reference/wire.md. The dataset's meta/ gives what a checkpoint of LeRobot does not say:
frames a second, the joints' names, the task. Its numbers must be rad, and mm for grippers, as `fastwam collect` and
`convert` write them. Without --dataset the metadata is empty, as openpi's own server sends it, and the client needs a
mapping file: images by the end of their key, the state as a list in the policy's order.
"""

import argparse
import hashlib
import io
import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pandas as pd
import torch
from lerobot.configs import FeatureType, PreTrainedConfig
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.policies.utils import prepare_observation_for_inference
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Request, Response, ServerConnection, serve

MAX_BYTES = 64 * 2**20
CAMERAS = {"head_rgb": "head", "left_wrist_rgb": "wrist_left", "right_wrist_rgb": "wrist_right"}
"""Names in datasets of the R1 Lite -> of the robot; others keep theirs."""
STATE, IMAGES = "observation.state", "observation.images."


class LeRobotPolicy:
    """A checkpoint with its processors.

    Args:
        folder: `pretrained_model` of a training run, or a name on the hub.
        dataset: folder of the dataset it was trained on, for its meta/.
        device: such as cpu or cuda.
        task: prompt where a request has none; empty: the dataset's first.
    """

    def __init__(self, folder: str, dataset: Path | None, device: str, task: str) -> None:
        self.config = PreTrainedConfig.from_pretrained(folder)
        self.config.device, self.config.pretrained_path = device, folder
        self.policy = get_policy_class(self.config.type).from_pretrained(folder, config=self.config)
        self.before, self.after = make_pre_post_processors(
            self.config, folder, preprocessor_overrides={"device_processor": {"device": device}}
        )
        features = self.config.input_features
        images = {key: feature for key, feature in features.items() if feature.type is FeatureType.VISUAL}
        self.cameras = {_camera(key): (key, feature.shape[1:]) for key, feature in images.items()}
        self.state = [str(k) for k in range(features[STATE].shape[0])] if STATE in features else []
        self.history: list[float] = []
        self.task, self.metadata = task, {}
        about = None
        if dataset is not None:
            about = json.loads((dataset / "meta" / "info.json").read_text())
            self.state = _names(about["features"][STATE]) if self.state else []
            self.task = task or str(pd.read_parquet(dataset / "meta" / "tasks.parquet").index[0])
            # Of a policy that sees several frames: how long before the observation the others are, in s.
            self.history = [k / about["fps"] for k in range(1, self.config.n_obs_steps)]
        nothing = {name: np.zeros((*size, 3), np.uint8) for name, (_, size) in self.cameras.items()}
        chunk = self.infer(
            {"images": nothing, "state": [0.0] * len(self.state)}
        )  # warm-up, which also tells the horizon
        logging.info("%s: chunks of %d steps x %d numbers", self.config.type, *chunk.shape)
        if about is not None:
            self.metadata = self._describe(folder, about, len(chunk))

    def _describe(self, folder: str, about: dict[str, Any], horizon: int) -> dict[str, Any]:
        """What the server says first."""
        weights = Path(folder) / "model.safetensors"
        sha256 = hashlib.file_digest(weights.open("rb"), "sha256").hexdigest() if weights.exists() else ""
        policy = {
            "name": self.config.type,
            "cameras": [{"name": name, "required": True} for name in self.cameras],
            "state": [_channel(name) for name in self.state],
            "action": [_channel(name) for name in _names(about["features"]["action"])],
            "fps": float(about["fps"]),
            "horizon": horizon,
            "action_kind": "absolute",
            "default_instruction": self.task,
            "instructions": None,
            "abilities": [],
            "history": self.history,
            "key_frame_steps": 1,
            "robot_type": about.get("robot_type") or "",
            "identity": {"origin": "trained", "sha256": sha256, "source": folder},
            "state_band": [],
        }
        return {"fastwam": 1, "policy": policy, "stateful": False, "max_bytes": MAX_BYTES}

    def infer(self, request: dict[str, Any]) -> np.ndarray:
        """Chunk [H, D] for an observation; KeyError and ValueError where something is missing or does not fit."""
        frames = [*request.get("earlier", [])[::-1], request][-self.config.n_obs_steps :]  # the oldest first
        frames = [frames[0]] * (self.config.n_obs_steps - len(frames)) + frames
        batches = [self.before(self._observation(frame, request.get("prompt") or self.task)) for frame in frames]
        batch = batches[-1]
        if len(batches) > 1:
            batch |= {key: torch.stack([b[key] for b in batches], 1) for key in batch if key.startswith("observation.")}
        self.policy.reset()
        with torch.inference_mode():
            chunk = self.after(self.policy.predict_action_chunk(batch))
        return chunk.squeeze(0).float().cpu().numpy().astype(np.float64)

    def _observation(self, frame: dict[str, Any], task: str) -> dict[str, Any]:
        found: dict[str, np.ndarray] = {}
        for name, (key, size) in self.cameras.items():
            images = frame["images"]
            found[key] = _image(images[name] if name in images else images[key.removeprefix(IMAGES)], size)
        if self.state:
            values = frame["state"]
            row = [values[name] for name in self.state] if isinstance(values, dict) else values
            found[STATE] = np.asarray(row, np.float32)
            if found[STATE].shape != (len(self.state),) or not np.isfinite(found[STATE]).all():
                raise ValueError(f"state: needs {len(self.state)} finite numbers, got {found[STATE].tolist()}")
        return prepare_observation_for_inference(found, torch.device(self.config.device), task, "")


def _camera(key: str) -> str:
    return CAMERAS.get(key.removeprefix(IMAGES), key.removeprefix(IMAGES))


def _channel(joint: str) -> dict[str, str]:
    return {"name": joint, "unit": "mm" if "gripper" in joint else "rad"}


def _names(feature: dict[str, Any]) -> list[str]:
    """Of a feature's numbers: a list, or one in a mapping."""
    names = feature["names"]
    return list(next(iter(names.values())) if isinstance(names, dict) else names)


def _image(image: Any, size: tuple[int, int]) -> np.ndarray:
    """RGB uint8 [height, width, 3] of the size that the policy was trained on, from pixels, or a JPEG or PNG."""
    if isinstance(image, bytes):
        picture = Image.open(io.BytesIO(image)).convert("RGB")
    else:
        picture = Image.fromarray(image.transpose(1, 2, 0) if image.shape[0] == 3 else image)
    height, width = size
    same = picture.size == (width, height)
    return np.array(picture if same else picture.resize((width, height), Image.Resampling.BILINEAR))


def pack(data: Any) -> bytes:
    """msgpack, with arrays as openpi sends them."""

    def array(value: Any) -> Any:
        value = np.asarray(value)
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}

    return msgpack.packb(data, default=array)


def unpack(data: bytes) -> Any:
    """The opposite; arrays of numbers only."""

    def array(value: dict[Any, Any]) -> Any:
        if b"__ndarray__" not in value and b"__npgeneric__" not in value:
            return value
        dtype = np.dtype(value[b"dtype"])
        if dtype.kind not in "biuf":
            raise ValueError(f"arrays of {dtype} are not taken")
        return np.frombuffer(value[b"data"], dtype).reshape(value.get(b"shape", ()))

    return msgpack.unpackb(data, object_hook=array)


def answer(policy: LeRobotPolicy, request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one request."""
    if request.pop("reset", False):
        policy.policy.reset()
        if not request:
            return {}
    begin = time.perf_counter()
    actions = policy.infer(request)
    elapsed = {"infer_ms": 1e3 * (time.perf_counter() - begin)}
    reply = {"actions": actions, "committed": 0, "policy_timing": elapsed, "server_timing": elapsed}
    return reply | {key: request[key] for key in ("stamp_ns",) if key in request}


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", help="folder of a checkpoint, or its name on the hub")
    parser.add_argument("--dataset", type=Path, help="folder of the dataset that it was trained on")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--task", default="", help="prompt where a request has none")
    parser.add_argument("--host", default="127.0.0.1", help="there is no authentication: a network you trust")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its choice")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)  # lerobot has made one
    if given.threads:
        torch.set_num_threads(given.threads)
    policy, lock = LeRobotPolicy(given.policy, given.dataset, given.device, given.task), threading.Lock()

    def connected(connection: ServerConnection) -> None:
        try:
            connection.send(pack(policy.metadata))
            for message in connection:
                try:
                    with lock:  # one inference at a time
                        reply = pack(answer(policy, unpack(message)))
                except Exception as error:
                    logging.exception("a request failed")
                    connection.send(f"{type(error).__name__}: {error}")
                    connection.close(1011)
                    return
                connection.send(reply)
        except ConnectionClosed:
            pass

    def health(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(200, "OK\n") if request.path == "/healthz" else None

    limits = {"max_size": MAX_BYTES, "compression": None, "ping_interval": None}
    with serve(connected, given.host, given.port, process_request=health, **limits) as server:
        logging.info("ws://%s:%d", given.host, server.socket.getsockname()[1])
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            logging.info("ended")


if __name__ == "__main__":
    main()
