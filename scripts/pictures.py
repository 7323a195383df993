"""Take pictures of the documentation again: `make pictures`, or some of them, `make pictures NAMES="fold operate"`.

fold     the simulated towel is folded, beside the chunks that the policy predicts: fold.webp
report   the page of a demo that is run for it: report.png
operate  the operator's screen, with made-up figures: operate.svg
check    what check-dataset says of a dataset that is damaged for it: check-dataset.svg
rerun    a demo's session in the Rerun viewer: rerun.png
rviz     RViz while the simulated towel is folded: rviz.png; only with a full ROS 2 installation, and not without a name

report, rerun and rviz show how well the machine keeps real time: let it do nothing else. Pages are shown by Chromium,
windows by Xvfb (sudo apt install xvfb imagemagick mesa-vulkan-drivers libgl1-mesa-dri).
"""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from rich.console import RenderableType

from fastwam_msgs.msg import BridgeStatus, DropCount, PolicyStatus, StreamStatus
from fastwam_policy import load_policy
from fastwam_policy.common.console import PlainConsole
from fastwam_policy.common.processes import processes, sample_bag, shipped_bundle
from fastwam_policy.data.lerobot_writer import Dataset
from fastwam_policy.data.recorded_episode import ConvertSettings, read_episode
from fastwam_policy.launching.domain import private_domain
from fastwam_policy.launching.process_group import ProcessGroup
from fastwam_policy.operate.operator import Operator
from fastwam_policy.policies.familiarity import Familiarity
from fastwam_policy.runtime.reasons import PolicyState
from fastwam_policy.simulation.episode import CAMERA_FPS, EpisodeSettings, run_episode
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.share import share_directory

IMAGES = Path(__file__).parents[1] / "docs" / "images"
FASTWAM = [sys.executable, "-m", "fastwam_policy.cli"]
BROWSERS = ("chromium", "chromium-headless-shell", "google-chrome")
SEED, HEIGHT, EVERY = 0, 360, 2  # of the fold: its scene, px, and which of the camera's pictures are kept
JOINTS = ("left_arm_joint2", "left_gripper", "right_arm_joint2", "right_gripper")
WIDTH, LINES = 80, 24  # of the terminals
WINDOW, BEGIN = (1400, 875), 8  # px of the viewer; s of the session that it does not show
TRACKING = 80  # statuses of the bridge, 20 a second, that say so before RViz's picture is taken
MAX_BYTES = 3_000_000  # of fold.webp: a README is read over slow lines, too


def fold(target: Path) -> None:
    """An episode on a made-up clock: equal on each machine."""
    robot, policy, chunks, frames = RobotConfig.load(), load_policy(str(shipped_bundle())), [], []
    policy.prepare(policy.info.default_instruction)
    infer, settings = policy.infer, EpisodeSettings(level="objects", height=HEIGHT)
    figure = Figure(figsize=(4.8, HEIGHT / 100), dpi=100, layout="constrained")
    axes = dict(zip(JOINTS, figure.subplots(len(JOINTS), sharex=True), strict=True))
    for name, axis in axes.items():
        axis.set_title(f"{name} [{robot.units[robot.joint_names.index(name)]}]", fontsize=8, loc="left", pad=2)
        axis.tick_params(labelsize=7)
        axis.set_xlim(0, settings.time_limit / 2)
    figure.supxlabel("s", fontsize=8)
    canvas = FigureCanvasAgg(figure)

    def predict(observation):  # noqa: ANN001, ANN202
        chunk = infer(observation)
        begin = (observation.stamp_ns - (chunks[0] if chunks else observation.stamp_ns)) / 1e9
        chunks.append(observation.stamp_ns)
        times = begin + np.arange(len(chunk.actions)) * chunk.step_ns / 1e9
        for name, axis in axes.items():
            for line in axis.lines:
                line.set(color="0.75", linewidth=0.8)
            axis.plot(times, chunk.actions[:, chunk.names.index(name)], color="tab:blue", linewidth=2)
            axis.plot(begin, observation.joints[name], "k.", markersize=4)
        return chunk

    turn = itertools.count()

    def watch(cameras) -> None:  # noqa: ANN001
        if next(turn) % EVERY:
            return
        canvas.draw()
        plot = np.asarray(canvas.buffer_rgba())[..., :3]
        frames.append(Image.fromarray(np.concatenate([cameras.render("head"), plot], axis=1)))

    policy.infer = predict
    result = run_episode(policy, robot, SEED, settings, watch)
    policy.close()
    if not result.success:
        raise SystemExit(f"pictures: the towel of seed {SEED} was not folded: {result.failure}")
    lengths = [round(1000 * EVERY / CAMERA_FPS)] * (len(frames) - 1) + [2000]
    frames[0].save(target, save_all=True, append_images=frames[1:], duration=lengths, loop=0, quality=60, method=4)
    if target.stat().st_size > MAX_BYTES:
        raise SystemExit(f"pictures: {target} has {target.stat().st_size} bytes, more than {MAX_BYTES}")


@contextmanager
def demonstrated() -> Iterator[Path]:
    """The session of a demo."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*FASTWAM, "demo", "--output", folder], check=True)
        (session,) = Path(folder).glob("sessions/*")
        yield session


def report(target: Path) -> None:
    """The top of a demo's report."""
    with demonstrated() as session:
        screenshot(session / "report.html", target, 1400, 900)


def viewer(target: Path) -> None:
    """A window on a screen that is larger: the pointer stands in its middle."""
    width, height = WINDOW
    screen = unseen(3 * width, 3 * height)
    options = [f"--window-size={width}x{height}", f"--screenshot-to={target}", "--bind=127.0.0.1", "--port=0"]
    with demonstrated() as session:
        file = session / "session.rrd"
        subprocess.run([*FASTWAM, "view", session, "--begin", str(BEGIN), "--save", file], check=True)
        subprocess.run([*screen, sys.executable, "-m", "rerun", file, *options], check=True)
    Image.open(target).convert("RGB").resize(WINDOW).save(target, optimize=True)


def rviz(target: Path) -> None:
    """The window that the launch file's `rviz:=true` opens, with its nodes, once the arms have moved for a while."""
    if shutil.which("rviz2") is None or shutil.which("import") is None:
        raise SystemExit(
            "pictures: source a full ROS 2 installation with rviz2 first, and: sudo apt install imagemagick"
        )
    robot = RobotConfig.load()
    publisher = Path(get_package_prefix("robot_state_publisher")) / "lib" / "robot_state_publisher"
    simulated = ["--ros-args", "-p", "use_sim_time:=true"]
    config = share_directory("fastwam_policy") / "config" / "rviz" / "towel_fold.rviz"
    window = shlex.join(["rviz2", "-d", str(config), *simulated])
    shot = shlex.join(["import", "-window", "root", str(target)])
    with private_domain(), ProcessGroup() as group, tempfile.TemporaryDirectory() as folder:
        now = Path(folder) / "now"
        wait = f"while [ ! -e {now} ]; do sleep 0.1; done"
        group.start("rviz2", [*unseen(1400, 900), "sh", "-c", f"{window} & {wait}; {shot}; kill $!; wait; exit 0"])
        description = [str(publisher / "robot_state_publisher"), str(robot.urdf_path), *simulated]
        group.start("robot_state_publisher", description)
        for process in processes("sim", {"arm": True, "rviz": True, "policy": str(shipped_bundle())}):
            group.start(process.name, process.command())
        wait_until_moved(robot, group)
        now.touch()
        if (first := group.wait()) != ("rviz2", 0):
            raise SystemExit(f"pictures: {first[0]} ended with status {first[1]}, as it says above")
    Image.open(target).convert("RGB").save(target, optimize=True)


def wait_until_moved(robot: RobotConfig, group: ProcessGroup) -> None:
    """Until the bridge has followed chunks for a while."""
    rclpy.init()
    node, states = rclpy.create_node("pictures"), Counter[int]()
    node.create_subscription(
        BridgeStatus, robot.interfaces.bridge_status, lambda status: states.update([status.state]), 10
    )
    while states[State.TRACKING] < TRACKING:
        rclpy.spin_once(node, timeout_sec=1.0)
        if (ended := group.ended()) is not None:
            raise SystemExit(f"pictures: {ended[0]} ended with status {ended[1]}, as it says above")
    node.destroy_node()
    rclpy.shutdown()


def unseen(width: int, height: int) -> list[str]:
    """The beginning of a command whose windows are on a screen that nobody sees, px."""
    if shutil.which("xvfb-run") is None:
        raise SystemExit("pictures: no Xvfb. On Debian or Ubuntu: sudo apt install xvfb mesa-vulkan-drivers")
    return ["xvfb-run", "--auto-servernum", f"--server-args=-screen 0 {width}x{height}x24"]


def operate(target: Path) -> None:
    """The console itself draws it, of statuses that it hears; their figures are made up."""
    robot = RobotConfig.load()
    joints = [StreamStatus(name=name, rate=200.0, age=0.004) for name in robot.groups]
    cameras = [StreamStatus(name=name, rate=15.0, age=0.05) for name in robot.cameras]
    bridge = BridgeStatus(
        state=State.TRACKING, plan_age=0.31, plan_remaining=1.82, heartbeat_age=0.02, feedback=joints,
        control_rate=100.0, control_period_p99=10.4, control_period_max=11.2,
        interventions=[DropCount(reason=Reason.LIMIT_ACCELERATION, count=37)],
    )  # fmt: skip
    policy = PolicyStatus(
        state=PolicyState.RUNNING, policy_id="towel_small", instruction="fold the towel", chunks=14, chunk_rate=2.0,
        latency_p50=[58.0], latency_p99=[71.0], streams=cameras,
    )  # fmt: skip
    messages = [f"10:42:07 {Familiarity(14, 14)}", "10:42:07 arm: armed"]
    with private_domain():
        rclpy.init()
        console = Operator(robot, policy.instruction, 60.0, messages.append)
        topics = {robot.interfaces.bridge_status: bridge, robot.interfaces.policy_status: policy}
        publishers = {name: console.create_publisher(type(status), name, 10) for name, status in topics.items()}
        while "no " in console.state():
            for name, status in topics.items():
                publishers[name].publish(status)
            rclpy.spin_once(console, timeout_sec=0.1)
        drawing(console.screen(LINES, messages), target, "./fastwam operate")
        console.destroy_node()
        rclpy.shutdown()


def check(target: Path) -> None:
    """The recording that comes with the package, as three episodes: one as it is, two damaged."""
    robot, settings = RobotConfig.load(), ConvertSettings("fold the towel")
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(Path(folder) / "data" / "mine", robot, settings.fps)
        for number in range(3):
            episode = read_episode(sample_bag(), robot, settings)
            if number == 1:
                still = itertools.repeat(next(iter(episode.images["wrist_left"])), episode.length)
                episode = replace(episode, images={**episode.images, "wrist_left": still})
            if number == 2:
                share = episode.state["left_gripper"] / 100
                episode = replace(episode, state={**episode.state, "left_gripper": share})
            dataset.write(number, episode, "")
        dataset.finish()
        command = ["check-dataset", "data/mine"]
        said = subprocess.run([*FASTWAM, *command], cwd=folder, stdout=subprocess.PIPE, text=True, check=False).stdout
    drawing(said, target, " ".join(["./fastwam", *command]))


def drawing(shown: RenderableType, target: Path, title: str) -> None:
    """What a terminal shows, as an SVG that takes no font from elsewhere."""
    console = PlainConsole(record=True, width=WIDTH, file=StringIO(), highlight=False)
    console.print(shown)
    svg = console.export_svg(title=title, unique_id=target.stem)
    target.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")


def screenshot(page: Path, target: Path, width: int, height: int) -> None:
    """A page as Chromium shows it after some seconds."""
    browser = next((name for name in BROWSERS if shutil.which(name)), None)
    if browser is None:
        raise SystemExit("pictures: no Chromium. On Debian or Ubuntu: sudo apt install chromium")
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={width},{height}"]
    wait = "--virtual-time-budget=5000"  # ms
    subprocess.run([browser, *options, wait, f"--screenshot={target}", page.resolve().as_uri()], check=True)


PICTURES: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "fold": (fold, "fold.webp"),
    "report": (report, "report.png"),
    "operate": (operate, "operate.svg"),
    "check": (check, "check-dataset.svg"),
    "rerun": (viewer, "rerun.png"),
    "rviz": (rviz, "rviz.png"),
}

if __name__ == "__main__":
    names = sys.argv[1:] or [name for name in PICTURES if name != "rviz"]
    if unknown := set(names) - set(PICTURES):
        sys.exit(f"pictures: there is no {', '.join(sorted(unknown))}; known are {', '.join(PICTURES)}")
    for name in names:
        take, file = PICTURES[name]
        take(IMAGES / file)
        print(f"{name}: docs/images/{file}", flush=True)
