"""Servers of other projects in threads of the test, written from the facts of their wires, and not with our own code.

Each has a policy that moves the arms it sees towards a goal: whoever gets units, order or signs wrong ends elsewhere.
"""

import base64
import io
import json
import socket
import threading
import traceback
from contextlib import contextmanager, suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgpack
import numpy as np
import zmq
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

HORIZON = 16
PARTS = {"left_arm": 6, "left_gripper": 1, "right_arm": 6, "right_gripper": 1}


def towards(here, goal, steps=HORIZON):
    """Rows [steps, D] from one position to another, which is reached half way."""
    share = np.minimum(1.0, 2 * (np.arange(steps) + 1) / steps)[:, None]
    return np.asarray(here) + share * (np.asarray(goal) - here)


@contextmanager
def websocket_peer(talk, port=0, **how):
    """The address of a server: `talk(connection)` for each connection. Its failures are sent as openpi sends them."""
    open_ones = []

    def handle(connection):
        open_ones.append(connection)
        try:
            talk(connection)
        except ConnectionClosed:
            pass
        except Exception:  # noqa: BLE001
            with suppress(ConnectionClosed):
                connection.send(traceback.format_exc())
                connection.close(1011)

    how = {"compression": None, "max_size": None, "ping_interval": None, "close_timeout": 0.1} | how
    with serve(handle, "127.0.0.1", port, **how) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            for connection in open_ones:
                with suppress(OSError):
                    connection.socket.shutdown(socket.SHUT_RDWR)
            thread.join()


def openpi_pack(value):
    def mark(array):
        return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}

    return msgpack.packb(value, default=mark)


def openpi_unpack(data):
    def unmark(found):
        if b"__ndarray__" in found:
            return np.ndarray(found[b"shape"], np.dtype(found[b"dtype"]), found[b"data"])
        return found

    return msgpack.unpackb(data, object_hook=unmark)


def _check_picture(pixels, shape):
    assert pixels.dtype == np.uint8, pixels.dtype
    assert pixels.shape == shape, pixels.shape
    assert pixels.max() > 0, "black"


def openpi(goal, heard):
    """ALOHA's form."""

    def talk(connection):
        connection.send(openpi_pack({"reset_pose": [0.0] * 14}))
        for message in connection:
            seen = openpi_unpack(message)
            assert set(seen) == {"images", "state", "prompt"}
            for name in ("cam_high", "cam_left_wrist", "cam_right_wrist"):
                _check_picture(seen["images"][name], (3, 224, 224))
            heard.append(seen["prompt"])
            reply = {
                "actions": towards(seen["state"], goal),
                "state": seen["state"],
                "policy_timing": {"infer_ms": 1.0},
            }
            connection.send(openpi_pack(reply))

    return websocket_peer(talk)


def vllm_omni(goal, heard):
    def talk(connection):
        assert connection.request.path == "/v1/realtime/robot/openpi"
        config = {"image_resolution": [224, 224], "action_horizon": HORIZON, "action_dim": 14, "needs_session_id": True}
        connection.send(openpi_pack(config))
        for message in connection:
            seen = openpi_unpack(message)
            if not seen.get("session_id"):
                connection.send(openpi_pack({"type": "error", "message": "session_id is missing"}))
            elif seen["endpoint"] == "reset":
                connection.send(openpi_pack({"status": "reset successful"}))
            else:
                heard.append(seen["prompt"])
                connection.send(openpi_pack(towards(seen["state"], goal)[None]))

    return websocket_peer(talk, max_size=2**26)


def lingbot_va(goal, heard):
    """Four frames of four steps, [14, 4, 4]. It refuses to go on before it is told what was executed and seen."""

    def talk(connection):
        connection.send(openpi_pack({}))
        ready, told, frames = False, True, 0
        for message in connection:
            seen = openpi_unpack(message)
            if seen.get("reset"):
                ready, told, frames, reply = seen["prompt"] == "fold the towel", True, 0, {}
            elif seen.get("compute_kv_cache"):
                assert seen["imagine"] is False
                for frame in seen["obs"]:
                    _check_picture(frame["observation.images.cam_high"], (240, 320, 3))
                columns, more, steps = seen["state"].shape
                assert (columns, steps, len(seen["obs"]) % 4) == (14, 4, 0)
                assert more == len(seen["obs"]) // 4 + (frames == 0), "the first frame is known, and its steps are told"
                heard.append(more)
                told, frames, reply = True, frames + more, {}
            else:
                assert ready
                assert told, "what was executed?"
                assert seen["obs"]["task"] == seen["prompt"] == "fold the towel"
                assert seen["video_guidance_scale"] > 0
                rows = towards(seen["obs"]["observation.state"], goal, 16 if frames else 12)
                if not frames:
                    rows = np.concatenate([np.full((4, 14), 9.0), rows])  # of the frame that is seen: never executed
                told, reply = False, {"action": rows.reshape(4, 4, 14).transpose(2, 0, 1)}
            connection.send(openpi_pack(reply))

    return websocket_peer(talk)


def galaxea(goal, heard):
    """One step a reply; grippers from 0 to 100; a part may be missing."""
    goals = dict(zip(PARTS, np.split(np.asarray(goal), [6, 7, 13]), strict=True))
    goals |= {name: 100 * goals[name] for name in PARTS if "gripper" in name}

    def talk(connection):
        connection.send(openpi_pack({"action_steps": HORIZON}))
        held = []
        for message in connection:
            seen = openpi_unpack(message)
            if "__reset__" in seen:
                held = []
                connection.send(openpi_pack(seen))
                continue
            if not held:
                if not seen:
                    connection.send(openpi_pack({"error": {"code": 3, "message": "an observation is needed"}}))
                    continue
                _check_picture(seen["images"]["head_rgb"], (3, 224, 224))
                assert {name: len(seen["state"][name]) for name in PARTS} == PARTS
                assert seen["embodiment_type"] == "r1lite"
                heard.append(seen["task"])
                rows = {name: towards(seen["state"][name], goals[name]) for name in PARTS}
                if len(heard) % 2 == 0:
                    del rows["right_gripper"]  # as it does where it is not sure
                held = [{name: row[k] for name, row in rows.items()} for k in range(HORIZON)]
            step = held.pop(0)
            connection.send(openpi_pack({"action": step, "need_obs": not held}))

    return websocket_peer(talk)


ENVELOPE = {
    "message_type", "message_id", "evaluation_id", "action_case_id", "trial_id", "repeat_index", "step", "sent_at",
    "payload",
}  # fmt: skip


def xpolicylab(goal, heard):
    names = dict(
        zip(("left_arm_joint_state", "left_ee_joint_state", "right_arm_joint_state", "right_ee_joint_state"),
            np.split(np.asarray(goal), [6, 7, 13]), strict=True)
    )  # fmt: skip

    def mark(array):
        return {b"nd": True, b"type": array.dtype.str, b"kind": b"", b"shape": array.shape, b"data": array.tobytes()}

    def unmark(found):
        if b"nd" in found:
            return np.ndarray(found[b"shape"], np.dtype(found[b"type"]), found[b"data"])
        return found

    def talk(connection):
        greeted = False
        for message in connection:
            envelope = msgpack.unpackb(message, object_hook=unmark, raw=False)
            kind, payload = envelope["message_type"], envelope["payload"]
            assert set(envelope) == ENVELOPE
            assert datetime.fromisoformat(envelope["sent_at"])
            answer = {"message_type": "error", "payload": {"code": 400, "message": f"{kind}?", "details": {}}}
            if kind == "hello":
                greeted, answer = True, {"message_type": "hello_ack", "payload": {"policy": "stand-in"}}
            elif greeted and kind == "reset":
                answer = {"message_type": "reset_result", "payload": {"ok": True}}
            elif greeted and kind == "infer":
                seen = payload["observation"]
                _check_picture(seen["vision"]["cam_left_wrist"]["color"], (240, 320, 3))
                assert (seen["data_format_version"], seen["additional_info"]) == ("v1.0", {"frequency": 15})
                heard.append(seen["instruction"])
                rows = {name: towards(seen["state"][name], names[name]) for name in names}
                steps = [{name: rows[name][k] for name in names} for k in range(HORIZON)]
                answer = {"message_type": "infer_result", "payload": {"actions": steps, "latency_ms": 1.0}}
            connection.send(msgpack.packb({**envelope, **answer}, default=mark, use_bin_type=True))

    return websocket_peer(talk)


@contextmanager
def zmq_peer(answer, port=0):
    """The address of a REP socket that answers each request with `answer(request)`, bytes each, or a list of parts."""
    context, ending = zmq.Context(), threading.Event()
    rep = context.socket(zmq.REP)
    rep.setsockopt(zmq.LINGER, 0)
    rep.bind(f"tcp://127.0.0.1:{port or '*'}")
    port = rep.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2]

    def work():
        while not ending.is_set():
            if rep.poll(50):
                found = answer(rep.recv())
                rep.send_multipart(found if isinstance(found, list) else [found])
        rep.close(0)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield f"zmq://127.0.0.1:{port}"
    finally:
        ending.set()
        thread.join()
        context.term()


def gr00t_pack(value):
    def mark(array):
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": file.getvalue()}

    return msgpack.packb(value, default=mark)


def gr00t(goal, heard, *, nested=False):
    """N1.5's flat form, or that of N1.6."""
    goals = dict(zip(PARTS, np.split(np.asarray(goal), [6, 7, 13]), strict=True))
    task, axes = "annotation.human.action.task_description", (1, 1) if nested else (1,)

    def unmark(found):
        return np.load(io.BytesIO(found["as_npy"]), allow_pickle=False) if "__ndarray_class__" in found else found

    def act(seen):
        if nested:
            assert set(seen) == {"video", "state", "language"}
            (words,) = seen["language"][task]
            seen = {f"{kind}.{name}": value for kind in ("video", "state") for name, value in seen[kind].items()}
        else:
            words = seen[task]
        _check_picture(seen["video.ego_view"], (*axes, 224, 224, 3))
        assert {name: seen[f"state.{name}"].shape for name in PARTS} == {name: (*axes, n) for name, n in PARTS.items()}
        heard.append(*words)
        rows = {name: towards(seen[f"state.{name}"].reshape(-1), goals[name])[None] for name in PARTS}
        return rows if nested else {f"action.{name}": value for name, value in rows.items()}

    def answer(message):
        request = msgpack.unpackb(message, object_hook=unmark)
        if request["endpoint"] == "ping":
            return gr00t_pack({"status": "ok", "message": "Server is running"})
        if request["endpoint"] == "reset":
            return gr00t_pack({})
        try:
            return gr00t_pack([act(request["data"]["observation"]), {}])
        except Exception as error:  # noqa: BLE001
            return gr00t_pack({"error": repr(error)})

    return zmq_peer(answer)


@contextmanager
def http_peer(answer, tls=None, port=0):
    """The address of a server that answers `POST /act` with `answer(bytes)`, bytes; `tls` is its context."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200 if self.path == "/act" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def json_numpy_dumps(value):
    def mark(array):
        data = base64.b64encode(array.tobytes()).decode()
        return {"__numpy__": data, "dtype": array.dtype.str, "shape": array.shape}

    return json.dumps(value, default=mark).encode()


def json_numpy_loads(data):
    def unmark(found):
        if "__numpy__" not in found:
            return found
        return np.ndarray(found["shape"], np.dtype(found["dtype"]), base64.b64decode(found["__numpy__"]))

    return json.loads(data, object_hook=unmark)


def openvla_oft(goal, heard):
    def answer(body):
        try:
            seen = json_numpy_loads(body)
            for name in ("full_image", "left_wrist_image", "right_wrist_image"):
                _check_picture(seen[name], (224, 224, 3))
            heard.append(seen["instruction"])
            return json_numpy_dumps(list(towards(seen["state"], goal)))
        except Exception:  # noqa: BLE001
            return b'"error"'

    return http_peer(answer)


def openvla(goal, heard):
    """One arm, no state: it sees in the picture where the hand is, and says one step of it."""

    def answer(body):
        seen = json_numpy_loads(body)
        heard.append(seen["instruction"])
        here = seen["image"][0, :7, 0].astype(float)
        return json_numpy_dumps(np.clip(np.asarray(goal) - here, -10, 10))

    return http_peer(answer)
