"""The bridge's model of the robot's body against exact contacts of the URDF, which MuJoCo reads by itself.

`make ci` tries 200,000 poses and 200 plans. More, a million and 1000 unless it is told how many:
. scripts/env.sh && python -m src.galaxea_r1lite_sim.test.test_body_exact [POSES PLANS]
"""

import sys

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")

import mujoco

from galaxea_r1lite_bridge.execution.offline import LaggingJoints, OfflineBridge
from galaxea_r1lite_bridge.execution.plan import Chunk, minimum_jerk
from galaxea_r1lite_bridge.execution.reasons import Reason
from galaxea_r1lite_bridge.execution.settings import BridgeSettings
from galaxea_r1lite_bridge.execution.workspace import Workspace
from galaxea_r1lite_bridge.robot.config import RobotConfig, limit_arrays
from galaxea_r1lite_sim.randomization import draw
from galaxea_r1lite_sim.simulation import Simulation

pytestmark = pytest.mark.integration
ROBOT = RobotConfig.load()
WORKSPACE = Workspace(ROBOT)
LIMITS = limit_arrays(ROBOT.actuated)
TORSO = np.array([value for group in ROBOT.standing.values() for value in group.home])
MARGINS = ROBOT.workspace.margins
STEP_NS = 1_000_000_000 // 15
BUILT_TO_TOUCH = {  # two joints apart at most, in every pose; MuJoCo leaves out those next to each other
    ("base_link", "torso_link1"),
    ("left_arm_link4", "left_arm_link6"),
    ("right_arm_link4", "right_arm_link6"),
}


class Exact:
    """The links' boxes and cylinders, and the table plane for all that an arm moves."""

    def __init__(self):
        text = ROBOT.urdf_path.read_text()
        compiler = (
            '<mujoco><compiler fusestatic="false" discardvisual="true" boundmass="0.1" boundinertia="0.01"/></mujoco>'
        )
        end = text.index(">", text.index("<robot")) + 1
        spec = mujoco.MjSpec.from_string(text[:end] + compiler + text[end:])
        table = spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1], contype=2, conaffinity=2)
        table.pos = [0, 0, ROBOT.workspace.table_height]
        kinematics = ROBOT.kinematics()
        arms = {joint for name in ROBOT.workspace.arms for joint in ROBOT.groups[name].joints}
        for body in spec.bodies:
            if body.name in ROBOT.body:
                for geom in body.geoms:
                    on_arm = bool(arms & set(kinematics.joints_above(body.name)))
                    geom.contype = geom.conaffinity = 3 if on_arm else 1
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self._links = [self.model.body(body).name for body in self.model.geom_bodyid]
        columns = ROBOT.urdf_columns().items()
        self._places = np.array([self.model.joint(joint).qposadr[0] for joint, _ in columns])
        self._columns = np.array([column for _, (column, _) in columns])
        self._scales = np.array([scale for _, (_, scale) in columns])

    def touching(self, position, deeper=0.0):
        """Pairs of links that touch at a position [D], with their depth in m."""
        self.data.qpos[self._places] = position[self._columns] * self._scales
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_collision(self.model, self.data)
        found = {}
        for contact in self.data.contact[: self.data.ncon]:
            pair = tuple(sorted((self._links[contact.geom1], self._links[contact.geom2])))
            allowed = deeper - (MARGINS.fingertips if pair[1] == "world" and "finger" in pair[0] else 0.0)
            if contact.dist < -allowed and pair not in BUILT_TO_TOUCH:
                found[pair] = max(found.get(pair, 0.0), -contact.dist)
        return found


EXACT = Exact()


def with_torso(arms):
    return np.concatenate([arms, np.broadcast_to(TORSO, (len(arms), len(TORSO)))], axis=1)


def check_poses(count, seed):
    """No pose that passes touches anything; returns the share that passes."""
    random, passed = np.random.default_rng(seed), 0
    lower, upper = LIMITS.lower[:14], LIMITS.upper[:14]
    for begin in range(0, count, 100):
        poses = with_torso(random.uniform(lower, upper, (min(100, count - begin), 14)))
        clear = WORKSPACE.clearance(poses).min(axis=1) >= 0
        for pose in poses[clear]:
            assert not EXACT.touching(pose), pose.tolist()
        passed += clear.sum()
    return passed / count


def check_plans(count, seed):
    """No command of a bridge that follows random plans touches anything."""
    random, moved = np.random.default_rng(seed), 0.0
    lower, upper = LIMITS.lower[:14], LIMITS.upper[:14]
    bridge = OfflineBridge(ROBOT, BridgeSettings.load(), LaggingJoints(with_torso(ROBOT.home[None])[0], 0.05))
    bridge.arm()
    for plan in range(count):
        goal = random.uniform(lower, upper) if plan % 4 else ROBOT.home
        rows = minimum_jerk(bridge.plant.positions[:14], goal, 31)
        chunk = Chunk(plan + 1, 1, bridge.clock.now_ns, STEP_NS, ROBOT.joint_names, rows)
        assert bridge.controller.accept(chunk, bridge.clock.now_ns) == Reason.NONE
        for tick in range(100):
            before = bridge.plant.positions
            command = bridge.tick()
            moved += np.abs(bridge.plant.positions - before)[:6].sum()
            if tick % 4 == 0:
                assert not EXACT.touching(command.motion.position, 1e-3), command.motion.position.tolist()
    assert moved > 0.5 * count


def test_the_model_is_seen_by_mujoco_as_well():
    """What the two compare is the same robot: a hand on the other one, and a hand in the table."""
    poses = with_torso(ROBOT.home[None].repeat(3, axis=0))
    poses[1, [0, 7]] += [-1.0, 1.0]
    poses[2, 1] += 1.2
    assert not EXACT.touching(poses[0])
    assert any(a.startswith("left_") and b.startswith("right_") for a, b in EXACT.touching(poses[1]))
    assert any(b == "world" for _, b in EXACT.touching(poses[2]))


def test_no_pose_that_passes_touches_anything():
    assert 0.2 < check_poses(20_000, seed=0) < 0.5


def test_no_plan_touches_anything():
    check_plans(40, seed=0)


@pytest.fixture(scope="module")
def used():
    """Positions [K, 14] that the arms take in folds."""
    return folds(3)


def folds(count):
    found = [ROBOT.home[None]]
    for seed in range(count):
        simulation = Simulation(ROBOT, draw(seed, "objects"))
        found.append(simulation.plan())
    return np.concatenate(found)


def refused(poses, margins):
    """Share of the poses that are refused although they touch nothing; a place outside the box is no refusal."""
    free = np.array([not EXACT.touching(pose) for pose in poses])
    assert free.sum() > len(poses) / 4
    bodies = np.array([limit.reason != Reason.LIMIT_BOX for limit in WORKSPACE.limits])
    parts = np.array_split(poses[free], max(1, free.sum() // 100))
    distances = np.concatenate([WORKSPACE.clearance(part) for part in parts]) + WORKSPACE.margins
    return (distances < margins)[:, bodies].any(axis=1).mean()


def test_few_poses_around_a_fold_are_refused_that_touch_nothing(used):
    """The left arm as at one moment, the right one as at another, both off by up to 0.1 rad; with all margins."""
    random = np.random.default_rng(0)
    poses = used[random.integers(0, len(used), 2000)]
    poses[:, 7:] = used[random.integers(0, len(used), 2000), 7:]
    poses = np.clip(poses + random.uniform(-0.1, 0.1, poses.shape), LIMITS.lower[:14], LIMITS.upper[:14])
    assert refused(with_torso(poses), WORKSPACE.margins) <= 0.05


def test_few_poses_are_refused_that_touch_nothing(used):
    """Any joints within the ranges of folds: what the capsules stand out by, and with all margins."""
    poses = with_torso(np.random.default_rng(0).uniform(used.min(axis=0), used.max(axis=0), (2000, 14)))
    assert refused(poses, np.minimum(WORKSPACE.margins, 0.0)) <= 0.02
    assert refused(poses, WORKSPACE.margins) <= 0.05


@pytest.mark.slow
def test_few_poses_of_the_work_space_are_refused_that_touch_nothing(sample_bag):
    """Any joints within the ranges of the sample recording and 30 folds, with all margins."""
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    used, names = folds(30), {f"/{group.target}": name for name, group in ROBOT.commanded.items()}
    lower, upper = used.min(axis=0), used.max(axis=0)
    with AnyReader([sample_bag], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        for connection, _, data in reader.messages([c for c in reader.connections if c.topic in names]):
            place = ROBOT.actuated_slices[names[connection.topic]]
            target = reader.deserialize(data, connection.msgtype).position[: place.stop - place.start]
            lower[place], upper[place] = np.minimum(lower[place], target), np.maximum(upper[place], target)
    poses = with_torso(np.random.default_rng(0).uniform(lower, upper, (20_000, 14)))
    share, bare = refused(poses, WORKSPACE.margins), refused(poses, np.minimum(WORKSPACE.margins, 0.0))
    print(f"refused though nothing touches: {share:.2%}, without margins {bare:.2%}")
    assert share <= 0.05


@pytest.mark.slow
def test_no_pose_of_many_touches_anything():
    check_poses(200_000, seed=1)


@pytest.mark.slow
def test_no_plan_of_many_touches_anything():
    check_plans(200, seed=1)


if __name__ == "__main__":
    poses, plans = map(int, sys.argv[1:] or (1_000_000, 1000))
    print(f"{check_poses(poses, seed=1):.1%} of {poses} poses pass, and touch nothing")
    check_plans(plans, seed=1)
    print(f"{plans} plans touch nothing")
