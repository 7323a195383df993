"""The cube on the mat: grasp, expert, success, pictures. The fold's tests are in test_simulation.py."""

import numpy as np
import pytest
import yaml

pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")

from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_sim.camera import Cameras
from galaxea_r1lite_sim.expert import STEP, UnreachableError
from galaxea_r1lite_sim.randomization import Conditions, draw
from galaxea_r1lite_sim.simulation import Simulation
from galaxea_r1lite_sim.tasks.cube import Cube

pytestmark = pytest.mark.integration
ROBOT = RobotConfig.load()
STROKES = {arm: ROBOT.slices[arm.replace("arm", "gripper")] for arm in ROBOT.workspace.arms}


def follow(simulation, targets):
    for row in targets:
        simulation.target = row
        simulation.step(STEP)
    return simulation.progress()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_arm_on_its_side_places_the_cube(seed):
    simulation = Simulation(ROBOT, draw(seed, "full", "cube"))
    begin = simulation.progress()
    assert (begin.success, begin.failure) == (False, "not grasped")
    arm = "left_arm" if simulation.things[0, 1] > 0 else "right_arm"
    targets = simulation.plan()
    closed = int((targets[:, STROKES[arm]] < 40).argmax())
    held = follow(simulation, targets[: closed + 20])
    assert (held.held, held.failure) == ((arm,), "not released")
    width = 1000 * simulation.conditions.task.edge
    assert simulation.joints[STROKES[arm]] == pytest.approx(width, abs=1.0), "the fingers stop at the cube"
    assert simulation.things[0, 2] > ROBOT.workspace.table_height + 0.04, "it is lifted"
    progress = follow(simulation, [*targets[closed + 20 :], *targets[-1:].repeat(8, axis=0)])
    assert progress.success
    assert progress.distance < 0.01
    assert progress.grasps[arm] == 1
    assert sum(progress.grasps.values()) == 1
    assert simulation.pose("cube")[1][2, 2] == pytest.approx(1.0, abs=0.02), "it stands on its side"
    assert {contact.kind for contact in simulation.contacts} <= {"finger-table"}, "nothing else touches anything"


def test_the_expert_goes_on_with_the_cube_in_its_gripper():
    simulation = Simulation(ROBOT, draw(1, "objects", "cube"))
    targets = simulation.plan()
    follow(simulation, targets[:60])
    assert simulation.held
    rest = simulation.plan()
    assert len(rest) < len(targets) - 30
    progress = follow(simulation, [*rest, *rest[-1:].repeat(8, axis=0)])
    assert progress.success
    assert sum(progress.grasps.values()) == 1, "it did not let go in between"


@pytest.mark.parametrize("offset", [0.0, 0.05])
def test_a_gripper_takes_only_what_is_near(offset):
    simulation, beside = Simulation(ROBOT, draw(1, "none", "cube")), Simulation(ROBOT, Conditions(Cube((0.45, 0.22))))
    closing = beside.plan() if offset else simulation.plan()
    progress = follow(simulation, closing[:60])
    assert bool(progress.held) == (not offset)
    assert progress.failure == ("not grasped" if offset else "not released")


def test_a_cube_out_of_reach_is_named():
    simulation = Simulation(ROBOT, Conditions(Cube((0.84, 0.3))))
    with pytest.raises(UnreachableError, match="the cube is out of reach: left_arm misses"):
        simulation.plan()


def test_cameras_see_the_cube_and_the_mat():
    one, other = (Cameras(Simulation(ROBOT, Conditions(Cube(center)))) for center in ((0.5, 0.22), (0.5, -0.22)))
    left, right = (cameras.render("head").astype(int) for cameras in (one, other))
    moved = np.abs(left - right).max(axis=2) > 60
    assert moved[:, :160].sum() == pytest.approx(moved[:, 160:].sum(), rel=0.3)
    assert 50 < moved.sum() < 2000
    assert (np.abs(left - 255 * np.array([0.9, 0.9, 0.85])).max(axis=2) < 40).sum() > 200, "the mat"


def test_seeds_vary_what_their_level_says():
    none, placed, full = (draw(4, level, "cube").task for level in ("none", "objects", "full"))
    assert none == Cube()
    assert placed.center == full.center != none.center
    assert placed.color == none.color != full.color
    sides = {np.sign(draw(seed, "full", "cube").task.center[1]) for seed in range(20)}
    assert sides == {-1, 1}


def test_the_names_of_tasks_and_levels_are_the_same_everywhere():
    from ament_index_python.packages import get_package_share_directory

    from galaxea_r1lite_sim.randomization import LEVELS
    from galaxea_r1lite_sim.tasks import TASK_NAMES, TASKS

    config = f"{get_package_share_directory('galaxea_r1lite_sim')}/config/sim_node.yaml"
    with open(config) as file:
        parameters = yaml.safe_load(file)
    assert tuple(parameters["task"]["choices"]) == TASK_NAMES == tuple(TASKS)
    assert tuple(parameters["randomization"]["choices"]) == LEVELS
