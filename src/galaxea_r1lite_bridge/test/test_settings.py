"""The defaults of the node, of offline runs and of tests are those of config/bridge_node.yaml."""

import pytest
import yaml

from galaxea_r1lite_bridge.execution.offline import LaggingJoints, OfflineBridge
from galaxea_r1lite_bridge.execution.settings import BridgeSettings, Reaction, Watch, WatchdogSettings
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .rig import ROBOT, Rig

FILE = yaml.safe_load(BridgeSettings.file().read_text())


def flat(settings, prefix=""):
    for name, value in settings.model_dump().items() if prefix == "" else settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value.name.lower() if isinstance(value, Reaction) else value


def test_the_defaults_are_those_of_the_file():
    assert dict(flat(BridgeSettings.load())) == {name: entry["default"] for name, entry in FILE.items()}


def test_a_control_period_is_not_late_by_itself():
    with pytest.raises(
        ConfigError, match=r"watchdog.overrun.limit: must be at least one and a half control periods, 0.15 s"
    ):
        BridgeSettings.load({"control_rate": 10.0})
    BridgeSettings.load({"control_rate": 10.0, "watchdog.overrun.limit": 0.15})
    BridgeSettings.load({"control_rate": 30.0})


@pytest.mark.parametrize("model", [BridgeSettings, WatchdogSettings, Watch])
def test_no_default_stands_elsewhere(model):
    assert all(field.is_required() for field in model.model_fields.values())


def test_a_parameter_that_only_the_file_or_only_the_code_knows_is_an_error():
    values = {name: entry["default"] for name, entry in FILE.items()}
    with pytest.raises(ConfigError, match="bridge_node.yaml: speed: Extra inputs"):
        BridgeSettings.from_parameters(values | {"speed": 1.0})
    del values["watchdog.overrun.limit"]
    with pytest.raises(ConfigError, match="watchdog.overrun.limit: Field required"):
        BridgeSettings.from_parameters(values)


def test_changes_by_name():
    settings = BridgeSettings.load({"blending": "rtc", "watchdog.overrun.reaction": "fault"})
    assert settings.blending == "rtc"
    assert settings.watchdog.overrun == Watch(limit=FILE["watchdog.overrun.limit"]["default"], reaction=Reaction.FAULT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blend": "rtc"}, "no parameter is named blend; there are robot_config, arm_on_start"),
        ({"blending": "melt"}, "parameter blending must be one of switch, .*; got 'melt'"),
        ({"watchdog.overrun.limit": 2.0}, "parameter watchdog.overrun.limit must be 0.005 to 1 s; got 2.0"),
        ({"home_speed": "fast"}, "parameter home_speed must be 0.01 to 1 rad/s; got 'fast'"),
    ],
)
def test_wrong_changes_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        BridgeSettings.load(changes)


def test_offline_runs_and_tests_use_them():
    for bridge in (OfflineBridge(ROBOT, BridgeSettings.load(), LaggingJoints(ROBOT.home, 0.05)), Rig()):
        assert bridge.controller.settings == BridgeSettings.load()
        assert bridge.period_ns == 1e9 / FILE["control_rate"]["default"]
