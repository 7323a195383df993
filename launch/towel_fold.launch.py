"""Start everything for towel folding: ros2 launch fastwam_policy towel_fold.launch.py mode:=real|sim|replay."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from fastwam_policy.common.lifetime import launch_prefix
from fastwam_policy.common.processes import ARGUMENTS, Argument, parse_argument
from fastwam_policy.launching.checks import checked_processes
from galaxea_r1lite_bridge.robot.config import RobotConfig
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity


def end(event: ProcessExited, context: LaunchContext) -> EmitEvent | None:
    """A replay or simulation is over with its first process; ros2 launch then ends with 1 where that one failed."""
    if context.is_shutdown:
        return None
    if event.returncode:
        raise RuntimeError(f"{event.process_name} ended with status {event.returncode}")
    return EmitEvent(event=Shutdown(reason=f"{event.process_name} has ended"))


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Turn the description in config/processes.yaml into launch actions."""
    given = context.launch_configurations
    arguments = {name: parse_argument(name, given[name]) for name in ARGUMENTS}
    if "bundle" in given:
        arguments["bundle"] = given["bundle"]  # the former name of policy, which is refused by name
    actions: list[LaunchDescriptionEntity] = []
    for process in checked_processes(given["mode"], arguments):
        node = Node(
            package=process.package,
            executable=process.executable,
            name=process.name,
            namespace=given["namespace"],
            parameters=[str(process.params_file), {key: _as_it_is(value) for key, value in process.parameters.items()}],
            exec_name=process.name,
            prefix=launch_prefix(),
            output="screen",
        )
        actions.append(node)
        if given["mode"] != "real":
            actions.append(RegisterEventHandler(OnProcessExit(target_action=node, on_exit=end)))
    if arguments["rviz"]:
        description = RobotConfig.load(Path(file) if (file := given["robot_config"]) else None).urdf_path.read_text()
        simulated = {"use_sim_time": given["mode"] != "real"}
        rviz = Path(get_package_share_directory("fastwam_policy")) / "config" / "rviz" / "towel_fold.rviz"
        actions += [
            Node(
                package="robot_state_publisher",
                executable="robot_state_publisher",
                namespace=given["namespace"],
                parameters=[{"robot_description": description, **simulated}],
            ),
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=given["namespace"],  # the topics in its file are relative
                arguments=["-d", str(rviz)],
                parameters=[simulated],
            ),
        ]
    return actions


def _as_it_is(value: Argument) -> Argument | ParameterValue:
    """A parameter's value; launch would read a text as YAML, which ends it at ` #`."""
    return ParameterValue(value, value_type=str) if isinstance(value, str) else value


def generate_launch_description() -> LaunchDescription:
    """Arguments, then nodes."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "mode", choices=["real", "sim", "replay"], description="what the policy is connected to"
            ),
            *(
                DeclareLaunchArgument(name, default_value=str(default).lower(), description=about)
                for name, (default, about) in ARGUMENTS.items()
            ),
            DeclareLaunchArgument("namespace", default_value="", description="namespace of all nodes and topics"),
            OpaqueFunction(function=start),
        ]
    )
