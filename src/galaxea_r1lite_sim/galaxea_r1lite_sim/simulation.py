"""Physics, servos and the grasp rule of the simulated robot. No ROS."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.robot.config import RobotConfig, limit_arrays
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError
from galaxea_r1lite_sim.contacts import TABLE, Contact, ContactLog, RobotParts
from galaxea_r1lite_sim.randomization import Conditions
from galaxea_r1lite_sim.scene import ARM_JOINTS, TIMESTEP, build
from galaxea_r1lite_sim.tasks import Progress

SETTLED = 0.5  # s for which a success must last before the task is called done
_MM = 1000.0  # in a metre
_SETTLE = 0.3  # s that things fall onto the table before time begins


class Simulation:
    """One scene. Deterministic: equal conditions and targets give equal motion.

    Grasp rule: when a gripper closes near a thing of the task (see its `grip`), the nearest of them sticks to the point
    between its fingers until the gripper opens again. There is one try for each closing. Nothing else of the robot
    touches the things.
    The robot collides with itself and with the table; `contacts` says where it did.
    """

    def __init__(self, robot: RobotConfig, conditions: Conditions) -> None:
        _check(robot)
        self.robot, self.conditions = robot, conditions
        self.model = mujoco.MjModel.from_xml_string(build(robot, conditions))
        if conditions.task.hold == "connect":
            self.model.eq_data[:, 3:6] = 0.0  # a thing is held at itself, wherever it was when this was compiled
        self.data = mujoco.MjData(self.model)
        limits = limit_arrays(robot.commanded)
        self._lower, self._upper, self.speed_limit = limits.lower, limits.upper, limits.velocity.copy()
        start = robot.home.copy()
        if conditions.start_noise is not None:
            start[robot.is_arm] += conditions.start_noise
        self.torso = np.array([value for group in robot.standing.values() for value in group.home], np.float64)
        """Positions of the joints that the policy does not move, which stand still."""
        joints, self._to_robot = self._actuated()
        self._from_robot = np.linalg.pinv(self._to_robot)
        self._positions_at, self._velocities_at = self.model.jnt_qposadr[joints], self.model.jnt_dofadr[joints]
        arms = robot.workspace.arms
        self._tools = {arm: (self._body(shape.tool.link), np.array(shape.tool.point)) for arm, shape in arms.items()}
        grippers = [name for name, group in robot.commanded.items() if group.unit == "mm"]
        self._gripper_of = dict(zip(self._tools, grippers, strict=True))
        self._things = np.array([self._body(name) for name in conditions.task.bodies])
        self._of_robot = ~np.isin(self.model.geom_bodyid, self._things)
        self._names = [self.model.body(k).name for k in range(self.model.nbody)]
        self._names[0] = TABLE  # nothing else of the world touches the robot
        self._grip, self._held = conditions.task.grip, dict[str, int]()
        self._tried = dict.fromkeys(self._tools, True)
        self._grasps = dict.fromkeys(self._tools, 0)
        self.target = start.copy()
        self._servo = start.copy()
        self.data.qpos[self._positions_at] = self.data.ctrl[:] = self._from_robot @ start
        mujoco.mj_forward(self.model, self.data)
        for _ in range(round(_SETTLE / TIMESTEP)):
            mujoco.mj_step(self.model, self.data)
        self.data.time = 0.0
        self._contacts = ContactLog(self._parts())

    @property
    def time(self) -> float:
        """Time since the start, s."""
        return float(self.data.time)

    @property
    def contacts(self) -> tuple[Contact, ...]:
        """What the robot has touched since the start, itself or the table."""
        return self._contacts.contacts

    @property
    def joints(self) -> NDArray[np.float64]:
        """Measured positions [D] of the commanded joints, rad and mm."""
        return self._to_robot @ self.data.qpos[self._positions_at]

    @property
    def joint_velocities(self) -> NDArray[np.float64]:
        """Measured velocities [D], rad/s and mm/s."""
        return self._to_robot @ self.data.qvel[self._velocities_at]

    def step(self, seconds: float = TIMESTEP) -> None:
        """Advance by whole time steps, towards `target`."""
        for _ in range(max(1, round(seconds / TIMESTEP))):
            # The controller follows its target with a lag and no faster than its speed limit.
            goal = self._servo + (np.clip(self.target, self._lower, self._upper) - self._servo) * (
                1 - np.exp(-TIMESTEP / self.conditions.servo_lag)
            )
            most = self.speed_limit * TIMESTEP
            self._servo = self._servo + np.clip(goal - self._servo, -most, most)
            self.data.ctrl[:] = self._from_robot @ self._stopped(self._servo)
            self._grasp()
            self._physics()

    @property
    def things(self) -> NDArray[np.float64]:
        """Where the task's bodies are, [K, 3] m in base_link."""
        return self.data.xpos[self._things].copy()

    @property
    def held(self) -> tuple[str, ...]:
        """Arms that hold something."""
        return tuple(self._held)

    @property
    def grasps(self) -> dict[str, int]:
        """How often each arm has taken hold since the start."""
        return dict(self._grasps)

    def pose(self, link: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Position [3] and rotation matrix [3, 3] of a link."""
        body = self._body(link)
        return self.data.xpos[body].copy(), self.data.xmat[body].reshape(3, 3).copy()

    def tool(self, arm: str) -> NDArray[np.float64]:
        """The point [3] between an arm's fingertips."""
        body, point = self._tools[arm]
        return self.data.xpos[body] + self.data.xmat[body].reshape(3, 3) @ point

    def progress(self) -> Progress:
        """How far the task is."""
        return self.conditions.task.progress(self)

    def plan(self) -> NDArray[np.float64] | None:
        """The scripted expert's targets from here on, as :meth:`Task.plan` gives them."""
        return self.conditions.task.plan(self)

    def _physics(self) -> None:
        begin = self.data.time
        mujoco.mj_step(self.model, self.data)
        self._contacts.add(begin, TIMESTEP, self._touching())

    def _stopped(self, servo: NDArray[np.float64]) -> NDArray[np.float64]:
        """With the fingers that hold something stopped by it."""
        if not self._held or not self._grip.width:
            return servo
        stopped = servo.copy()
        for arm in self._held:
            at = self.robot.slices[self._gripper_of[arm]].start
            stopped[at] = max(stopped[at], self._grip.width)
        return stopped

    def _in_hand(self, arm: str, thing: int) -> NDArray[np.float64]:
        """Position and quaternion [7] of a body in the frame of an arm's tool."""
        hand, _ = self._tools[arm]
        position, quaternion, back = np.empty(3), np.empty(4), np.empty(4)
        mujoco.mju_negQuat(back, self.data.xquat[hand])
        mujoco.mju_rotVecQuat(position, self.data.xpos[thing] - self.data.xpos[hand], back)
        mujoco.mju_mulQuat(quaternion, back, self.data.xquat[thing])
        return np.concatenate([position, quaternion])

    def _touching(self) -> list[tuple[str, str, float]]:
        """What of the robot touches what, and by how many mm they overlap, as the last step began."""
        found, body = self.data.contact, self.model.geom_bodyid
        # A contact of a cloth has one geom, or none; one of a thing with the table is none of the robot.
        robots = np.flatnonzero((found.geom.min(axis=1) >= 0) & self._of_robot[found.geom].all(axis=1))
        return [(*(self._names[body[geom]] for geom in found.geom[k]), -_MM * float(found.dist[k])) for k in robots]

    def _parts(self) -> RobotParts:
        model = self.model
        above = {self._names[k]: self._names[model.body_parentid[k]] for k in range(1, model.nbody)}
        moved = {model.joint(k).name: self._names[model.jnt_bodyid[k]] for k in range(model.njnt)}
        arms = {arm: moved[self.robot.groups[arm].joints[0]] for arm in self._tools}
        grippers = self._gripper_of.values()
        fingers = [moved[joint] for name in grippers for joint in self.robot.urdf_positions(name, np.zeros(1))]
        return RobotParts(above, arms, fingers)

    def _body(self, name: str) -> int:
        return int(self._id(mujoco.mjtObj.mjOBJ_BODY, name))

    def _id(self, kind: Any, name: str) -> int:
        found = mujoco.mj_name2id(self.model, kind, name)
        if found < 0:
            raise KeyError(name)
        return int(found)

    def _actuated(self) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
        """MuJoCo's joints [J] of the commanded ones, and the matrix [D, J] to rad and mm: a gripper is two fingers."""
        ids: list[int] = []
        entries: list[tuple[int, float]] = []
        for name, group in self.robot.commanded.items():
            at = self.robot.slices[name].start
            if group.unit == "rad":
                scales = {joint: (at + k, 1.0) for k, joint in enumerate(group.joints)}
            else:
                apart = self.robot.urdf_positions(name, np.array([_MM]))
                scales = {finger: (at, _MM * np.sign(way)) for finger, way in apart.items()}
            ids += [self._id(mujoco.mjtObj.mjOBJ_JOINT, joint) for joint in scales]
            entries += scales.values()
        matrix = np.zeros((len(self.robot.joint_names), len(ids)))
        for column, (row, scale) in enumerate(entries):
            matrix[row, column] = scale
        return np.array(ids), matrix

    def _grasp(self) -> None:
        """Take hold of the nearest thing, or let go."""
        joints, grip = self.joints, self._grip
        for arm, gripper in self._gripper_of.items():
            at = self.robot.slices[gripper].start
            if arm in self._held:
                if joints[at] > grip.opened:
                    self.data.eq_active[self._held.pop(arm)] = 0
                continue
            if joints[at] > grip.opened:
                self._tried[arm] = False
            elif joints[at] < grip.closed and self._servo[at] < grip.closed and not self._tried[arm]:
                self._tried[arm] = True
                distances = np.linalg.norm(self.data.xpos[self._things] - self.tool(arm), axis=1)
                nearest = int(distances.argmin())
                if distances[nearest] < grip.reach:
                    connection = self._id(mujoco.mjtObj.mjOBJ_EQUALITY, f"{arm}_{nearest}")
                    if self.conditions.task.hold == "weld":
                        self.model.eq_data[connection, 3:10] = self._in_hand(arm, self._things[nearest])
                    self.data.eq_active[connection] = 1
                    self._held[arm] = connection
                    self._grasps[arm] += 1


def _check(robot: RobotConfig) -> None:
    """ConfigError where the robot is not of the R1 Lite's build."""
    sizes = {name: len(group.joints) for name, group in robot.commanded.items()}
    arms = [sizes[name] for name in robot.workspace.arms if name in sizes]
    grippers = [name for name, group in robot.commanded.items() if group.unit == "mm"]
    if arms != [ARM_JOINTS] * 2 or len(grippers) != 2 or len(sizes) != 4:
        found = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise ConfigError(f"groups: the simulator needs two arms of {ARM_JOINTS} joints and two grippers, got {found}")
    known = robot.kinematics().limits
    for name in grippers:
        if missing := [finger for finger in robot.urdf_positions(name, np.zeros(1)) if finger not in known]:
            raise ConfigError(f"groups.{name}.joints: the simulator moves {missing[0]}, which is not in {robot.urdf}")
