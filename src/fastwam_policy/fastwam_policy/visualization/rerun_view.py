"""A session in the Rerun viewer: cameras, robot, predicted and executed paths, joints, latency and states.

The same code takes live ROS messages and those of a recording: both have the fields of the message definition.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray
from rerun.urdf import UrdfTree

from fastwam_policy.visualization.scene import ArmGeometry
from galaxea_r1lite_bridge.execution.reasons import State
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_gate import JointsRefusedError, places

_EYE, _LOOK = (1.9, -1.1, 1.9), (0.35, 0.0, 0.8)  # m in base_link: over the table, the robot in front
_TIMELINE = "time"
_EXECUTED = 60  # points of the executed path
_EXECUTED_NS = 50_000_000  # between two of them
_EARLY, _LATE = np.array([33, 191, 242]), np.array([242, 64, 140])  # colours of a chunk's first and last step
_GOLD = (242, 204, 51)
_STAGES = ("decode", "encode", "prefill", "denoise", "total")
_NS = 1_000_000_000

Handler = Callable[[Any], None]


class SessionView:
    """Logs messages to a Rerun recording.

    Args:
        robot: names, kinematics and URDF.
        recording: where to log to; it is saved, served or shown by its owner.
    """

    def __init__(self, robot: RobotConfig, recording: rr.RecordingStream) -> None:
        self._robot, self._to = robot, recording
        self._geometry = ArmGeometry(robot)
        self._measured: dict[str, NDArray[np.float64]] = {}
        self._executed: deque[NDArray[np.float64]] = deque(maxlen=_EXECUTED)
        self._said: dict[str, str] = {}
        self._last_ns = self._chunk_ns = 0
        self._urdf = UrdfTree.from_file_path(robot.urdf_path, entity_path_prefix="scene")
        self._urdf.log_urdf_to_recording(recording)
        frame = rr.CoordinateFrame(robot.workspace.frame)
        for entity in ("executed", *(f"predicted/{arm}" for arm in robot.workspace.arms)):
            recording.log(f"scene/{entity}", frame, static=True)
        recording.send_blueprint(self._blueprint())

    def handlers(self) -> dict[str, tuple[str, Handler]]:
        """By topic: type of its messages, as `package/msg/Name`, and what takes them."""
        robot, names = self._robot, self._robot.interfaces
        found: dict[str, tuple[str, Handler]] = {
            names.action_chunk: ("fastwam_msgs/msg/ActionChunk", self._chunk),
            names.policy_status: ("fastwam_msgs/msg/PolicyStatus", self._policy),
            names.bridge_status: ("fastwam_msgs/msg/BridgeStatus", self._bridge),
            names.command: ("sensor_msgs/msg/JointState", self._command),
            names.imagination: ("sensor_msgs/msg/CompressedImage", self._image("imagination")),
        }
        for name, group in robot.groups.items():
            found[group.feedback] = ("sensor_msgs/msg/JointState", self._feedback(name))
        for name, camera in robot.cameras.items():
            if camera.type.endswith("CompressedImage"):
                found[camera.topic] = ("sensor_msgs/msg/CompressedImage", self._image(f"cameras/{name}"))
        return {topic: (kind, _stamped(handler)) for topic, (kind, handler) in found.items()}

    def _blueprint(self) -> Any:
        cameras = [rrb.Spatial2DView(origin=f"cameras/{name}", name=name) for name in self._robot.cameras]
        joints = [rrb.TimeSeriesView(origin=f"joints/{name}", name=name) for name in self._robot.joint_names]
        frame = rrb.SpatialInformation(target_frame=self._robot.workspace.frame)
        eye = rrb.EyeControls3D(position=_EYE, look_target=_LOOK)
        scene = rrb.Spatial3DView(origin="scene", name="robot", spatial_information=frame, eye_controls=eye)
        imagined = rrb.Spatial2DView(origin="imagination", name="imagined, and what happened")
        return rrb.Blueprint(
            rrb.Horizontal(
                rrb.Vertical(rrb.Tabs(scene, imagined), rrb.Horizontal(*cameras), row_shares=[3, 2]),
                rrb.Vertical(
                    rrb.Tabs(*joints, name="joints"),
                    rrb.TimeSeriesView(origin="latency", name="latency [ms]"),
                    rrb.TimeSeriesView(origin="bridge", name="bridge"),
                    rrb.TextLogView(origin="events", name="events"),
                ),
                column_shares=[3, 2],
            ),
            collapse_panels=True,
        )

    def _at(self, ns: int) -> None:
        self._to.set_time(_TIMELINE, timestamp=np.datetime64(ns, "ns"))

    def _image(self, entity: str) -> Handler:
        def log(message: Any) -> None:
            self._at(_stamp(message))
            image = rr.EncodedImage(contents=bytes(message.data), media_type="image/jpeg")
            self._to.log(entity, image)

        return log

    def _feedback(self, name: str) -> Handler:
        gate = self._robot.gates[name]

        def log(message: Any) -> None:
            with contextlib.suppress(JointsRefusedError):
                self._measured[name] = gate.positions(message.name, message.position)
            stamp_ns = _stamp(message)
            due = not 0 <= stamp_ns - self._last_ns <= _EXECUTED_NS
            if stamp_ns < self._last_ns - _NS:  # another run
                self._executed.clear()
            if not due or any(key not in self._measured for key in self._robot.actuated):
                return
            self._last_ns = stamp_ns
            self._at(stamp_ns)
            self._pose()

        return log

    def _pose(self) -> None:
        """Robot, executed path and joints, at a rate that the eye needs."""
        for name, values in self._measured.items():
            for joint, value in self._robot.urdf_positions(name, values).items():
                found = self._urdf.get_joint_by_name(joint)
                if found is not None:
                    self._to.log("scene/transforms", found.compute_transform(value, clamp=False))
        joints = np.concatenate([self._measured[name] for name in self._robot.commanded])
        self._scalars("measured", joints)
        paths = self._geometry.tool_paths(joints[None], self._torso())
        self._executed.append(np.stack([path[0] for path in paths.values()]))
        points = np.stack(self._executed, axis=1)
        self._to.log("scene/executed", rr.LineStrips3D(list(points), colors=_GOLD, radii=0.003))

    def _torso(self) -> NDArray[np.float64]:
        return np.array([value for name in self._robot.standing for value in self._measured[name]])

    def _command(self, message: Any) -> None:
        if len(message.position) >= len(self._robot.joint_names):
            self._at(_stamp(message))
            self._scalars("commanded", np.asarray(message.position)[: len(self._robot.joint_names)])

    def _scalars(self, kind: str, values: NDArray[np.float64]) -> None:
        for name, value in zip(self._robot.joint_names, values.tolist(), strict=True):
            self._to.log(f"joints/{name}/{kind}", rr.Scalars(value))

    def _chunk(self, message: Any) -> None:
        if any(name not in self._measured for name in self._robot.standing):
            return
        order = places(message.trajectory.joint_names, self._robot.joint_names)
        actions = np.array([point.positions for point in message.trajectory.points])[:, order]
        stamp_ns, step_ns = _stamp(message), message.step.sec * _NS + message.step.nanosec
        self._at(stamp_ns)
        share = np.linspace(0, 1, len(actions))[:, None]
        colors = ((1 - share) * _EARLY + share * _LATE).astype(np.uint8)
        for arm, points in self._geometry.tool_paths(actions, self._torso()).items():
            pieces = np.stack([points[:-1], points[1:]], axis=1)
            self._to.log(f"scene/predicted/{arm}", rr.LineStrips3D(list(pieces), colors=colors[1:], radii=0.004))
        # Chunks overlap in time: two take turns, each as long as two last, so that each is one line.
        between_ns, self._chunk_ns = stamp_ns - self._chunk_ns, stamp_ns
        if between_ns > 0:
            actions = actions[: max(1, 2 * between_ns // step_ns)]
        times = (stamp_ns + step_ns * np.arange(len(actions))).astype("datetime64[ns]")
        for column, name in enumerate(self._robot.joint_names):
            rr.send_columns(
                f"joints/{name}/chunk_{message.chunk_id % 2}",
                [rr.TimeColumn(_TIMELINE, timestamp=times)],
                rr.Scalars.columns(scalars=actions[:, column]),
                recording=self._to,
            )
        for stage in _STAGES:
            self._to.log(f"latency/{stage}", rr.Scalars(float(getattr(message, f"{stage}_ms"))))

    def _policy(self, message: Any) -> None:
        if message.reason:
            self._at(_stamp(message))
            self._event("policy", f"{message.reason} {message.reason_text}")

    def _bridge(self, message: Any) -> None:
        self._at(_stamp(message))
        self._to.log("bridge/state", rr.Scalars(int(message.state)))
        self._to.log("bridge/plan_lag", rr.Scalars(float(message.plan_lag)))
        self._to.log("bridge/seam", rr.Scalars(float(message.seam)))
        self._event("bridge", f"{State(message.state).name} {message.reason or ''} {message.reason_text}".strip())

    def _event(self, source: str, text: str) -> None:
        """Log a line where it differs from the last one."""
        if self._said.get(source) != text:
            self._said[source] = text
            self._to.log(f"events/{source}", rr.TextLog(text))


def _stamped(handler: Handler) -> Handler:
    """Leaves out what was said before the simulator's clock was heard: its stamp, 0, is half a century away."""
    return lambda message: handler(message) if _stamp(message) else None


def _stamp(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * _NS + int(stamp.nanosec)
