import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.joints import Joints
from galaxea_r1lite_bridge.execution.offline import LaggingJoints, OfflineBridge
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.execution.settings import BridgeSettings
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .rig import ROBOT, STEP, S

HOME = Joints.of(ROBOT).home


@pytest.fixture
def bridge():
    return OfflineBridge(ROBOT, BridgeSettings.load(), LaggingJoints(HOME, lag=0.05))


def test_arming_waits_with_the_plant_at_rest(bridge):
    begin = bridge.clock.now_ns
    bridge.arm()
    assert 0.1 <= (bridge.clock.now_ns - begin) / S < 0.3
    command = bridge.tick()
    assert (command.state, command.reason) == (State.HOLDING, Reason.ARMED)
    np.testing.assert_array_equal(bridge.plant.measured(), HOME)


def test_arms_that_must_not_be_armed_end_the_wait(bridge):
    bridge.plant.positions = HOME + np.eye(17)[0] * 5.0
    with pytest.raises(ConfigError, match="111: a joint is outside its limits"):
        bridge.arm()


def test_a_chunk_arrives_after_its_delay_and_the_plant_follows(bridge):
    bridge.arm()
    goal = HOME[:14] + np.eye(14)[0] * 0.3
    bridge.send(Chunk(1, 1, bridge.clock.now_ns, STEP, ROBOT.joint_names, np.tile(goal, (32, 1))), S // 10)
    commands = [bridge.tick() for _ in range(100)]
    assert [command.state for command in commands[:12]] == [State.HOLDING] * 10 + [State.TRACKING] * 2
    np.testing.assert_allclose(bridge.plant.measured()[:14], goal, atol=2e-3)
