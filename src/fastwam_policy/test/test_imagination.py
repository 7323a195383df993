"""What the model imagines: the video itself, what it is compared with, and the node over real ROS 2."""

import shutil
import signal
import time

import cv2
import numpy as np
import pytest
import torch
import yaml
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage

from fastwam_msgs.msg import PolicyStatus
from fastwam_policy.model.checkpoint import load_into, load_weights
from fastwam_policy.model.config import PRESETS
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import make_schedule
from fastwam_policy.model.vae import VideoAutoencoder, load_vae
from fastwam_policy.model.variants import imagine
from fastwam_policy.policies.fastwam.bundle import Bundle
from fastwam_policy.policies.fastwam.canvas import Layout, Tile, to_model_input
from fastwam_policy.policies.fastwam.imagination import Imagination
from fastwam_policy.policies.fastwam.random_bundle import write_random_bundle
from fastwam_policy.reports.report import write_report
from fastwam_policy.reports.session import read_session
from fastwam_policy.reports.summary import summarise
from fastwam_policy.runtime.observation_buffer import Snapshot
from fastwam_policy.runtime.outcome import ObservedFuture
from fastwam_policy.runtime.reasons import PolicyState
from fastwam_policy.visualization.strip import LABEL_HEIGHT, comparison_strip
from galaxea_r1lite_bridge.nodes.conversions import nanoseconds, time_message
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .golden_files import GOLDEN, batch, golden
from .test_policy_node import JPEG, Sensors

ROBOT = RobotConfig.load()
MS = 1_000_000
HEIGHT, WIDTH, FRAMES = 96, 64, 9
PATIENT = {"interval": 0.1, "max_skew": 0.5, "max_observation_age": 5.0, "use_sim_time": True}  # of a busy machine


@pytest.fixture(scope="module")
def small_bundle(random_bundle, tmp_path_factory):
    """The random bundle with small pictures."""
    folder = tmp_path_factory.mktemp("bundles") / "small"
    shutil.copytree(random_bundle, folder)
    policy = yaml.safe_load((folder / "policy.yaml").read_text())
    places = {"head": (0, 0, 64), "wrist_left": (0, 64, 32), "wrist_right": (32, 64, 32)}
    tiles = [Tile(camera=name, x=x, y=y, width=size, height=size) for name, (x, y, size) in places.items()]
    policy["layout"] = Layout(width=WIDTH, height=HEIGHT, tiles=tiles).model_dump(mode="json")
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    return folder


@pytest.mark.parametrize("name", ["joint_infer_action_case0", "infer_joint_case0"])
def test_the_video_alone_is_that_of_every_variant(name):
    """The authors' numbers of the variants that denoise video and actions together."""
    with torch.device("meta"):
        model = FastWam(PRESETS["tiny"])
    load_into(model, load_weights(GOLDEN / "checkpoint.pt"), "checkpoint.pt")
    model.eval().requires_grad_(False)
    case = golden(name)
    context = model.context(batch(case["context"]), batch(case["context_mask"], torch.bool), batch(case["proprio"]))
    observed, noise = (torch.from_numpy(case[key]) for key in ("first_frame_latents", "initial_noise_video"))
    schedule = make_schedule(int(case["num_inference_steps"]), float(case["sigma_shift"]))
    video = imagine(model, observed, noise, schedule, context)
    np.testing.assert_allclose(video, case["video_latents"], rtol=0, atol=2e-5)


def test_the_first_frame_is_the_observation_and_the_rest_is_the_seeds(small_bundle):
    bundle = Bundle.load(small_bundle)
    canvas = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    joints = dict.fromkeys(bundle.config.state.names, 0.5)
    imagination = Imagination(bundle)
    video = imagination.imagine([canvas], joints, "fold the towel")
    assert (video.shape, video.dtype) == ((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    autoencoder = VideoAutoencoder(load_vae(bundle.vae_folder)).eval()
    with torch.inference_mode():
        image = to_model_input(canvas, torch.float32, torch.device("cpu"))[:, :, None]
        expected = autoencoder.decode(autoencoder.encode(image))[0, :, 0].permute(1, 2, 0)
    np.testing.assert_allclose(video[0], (expected.numpy() + 1) * 127.5, atol=0.51)
    np.testing.assert_array_equal(video, imagination.imagine([canvas], joints, "fold the towel"))
    other = imagination.imagine([canvas], dict.fromkeys(joints, 1.0), "fold the towel")
    np.testing.assert_array_equal(other[0], video[0])
    assert (other[1:] != video[1:]).any(), "the joints take part"
    with pytest.raises(ConfigError, match="no text embedding for the prompt"):
        imagination.imagine([canvas], joints, "dance")


def test_a_bundle_that_has_not_learned_to_imagine_is_refused(tmp_path):
    write_random_bundle(tmp_path / "bundle", ROBOT, "fold the towel", variant="fastwam_no_video")
    with pytest.raises(ConfigError, match="fastwam_no_video was trained without a video loss"):
        Imagination(Bundle.load(tmp_path / "bundle"))


def test_the_outcome_is_what_was_nearest_in_time():
    def snapshot(ms):
        return Snapshot(ms * MS, {}, {})

    outcome = ObservedFuture(snapshot(1000), [0, 100 * MS, 200 * MS])
    ended = [outcome.add(snapshot(ms)) for ms in (1060, 1090, 1130, 1190, 1260)]
    assert ended == [False, False, False, False, True]
    assert [s.stamp_ns // MS for s in outcome.snapshots] == [1000, 1090, 1190]
    assert outcome.seconds == pytest.approx([0, 0.09, 0.19])


def test_the_strip_has_the_imagined_above_what_happened():
    happened = np.stack([np.full((64, 192, 3), value, np.uint8) for value in (10, 30)])
    imagined = happened + np.array([1, 5], np.uint8)[:, None, None, None]
    strip = comparison_strip(imagined, happened, [0.0, 1.0], [0.0, 1.0])
    assert strip.shape == (2 * (64 + LABEL_HEIGHT), 2 * 192, 3)
    np.testing.assert_array_equal(strip[LABEL_HEIGHT : LABEL_HEIGHT + 64, 192:], imagined[1])
    np.testing.assert_array_equal(strip[-64:, :192], happened[0])
    assert strip[:LABEL_HEIGHT, 192:].any(), "there is text"


def stamp(message):
    return nanoseconds(message.header.stamp)


class Running:
    """Stands in for the policy node and for the simulator's clock, which a test may set back."""

    def __init__(self, ros):
        self.status = PolicyStatus(state=int(PolicyState.RUNNING), epoch=1, instruction="fold the towel")
        self.offset_ns = 0
        self._ros = ros
        self._status = ros.node.create_publisher(PolicyStatus, ROBOT.interfaces.policy_status, 10)
        self._clock = ros.node.create_publisher(Clock, "/clock", 10)
        ros.node.create_timer(0.05, lambda: self._status.publish(self.status))
        ros.node.create_timer(0.02, lambda: self._clock.publish(Clock(clock=time_message(self.now()))))

    def now(self):
        return time.time_ns() + self.offset_ns


def test_a_strip_is_published_recorded_and_reported(ros, small_bundle, tmp_path):
    session, policy, sensors = tmp_path / "session", Running(ros), Sensors(ros)
    sensors.stamp_ns = policy.now
    strips = ros.collect(CompressedImage, ROBOT.interfaces.imagination)
    head = ros.collect(CompressedImage, ROBOT.cameras["head"].topic)
    recorder = ros.start("fastwam_policy", "recorder_node", output=session, use_sim_time=True)
    ros.until(lambda: "recording" in ros.output(recorder))
    node = ros.start("fastwam_policy", "imagination_node", policy=small_bundle, **PATIENT)
    ros.until(lambda: len(strips) > 1)  # so the first is in the recording
    assert strips[0].format == "jpeg"
    ros.until(lambda: stamp(strips[0]) in map(stamp, head))
    picture = cv2.imdecode(np.frombuffer(strips[0].data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (2 * (HEIGHT + LABEL_HEIGHT), FRAMES * WIDTH, 3)
    assert abs(float(picture[-HEIGHT:].mean()) - 90) < 1, "the cameras' pictures"
    assert "RANDOM weights" in ros.output(node)

    recorder.send_signal(signal.SIGINT)
    ros.finish(recorder)
    data = read_session(session / "recording", ROBOT)
    assert data.imagined
    assert {bytes(strip.data) for strip in data.imagined} <= {bytes(strip.data) for strip in strips}
    page = tmp_path / "report.html"
    write_report(page, data, summarise(data, ROBOT), ROBOT, None, "test")
    assert "What the model imagined" in page.read_text()
    assert page.read_text().count("data:image/jpeg") == len(data.imagined)


@pytest.mark.slow
def test_what_is_pending_is_dropped(ros, small_bundle):
    policy, sensors = Running(ros), Sensors(ros)
    sensors.stamp_ns = policy.now
    strips = ros.collect(CompressedImage, ROBOT.interfaces.imagination)
    node = ros.start("fastwam_policy", "imagination_node", policy=small_bundle, **PATIENT)

    def another():
        count = len(strips)
        ros.until(lambda: len(strips) > count)

    another()
    before = stamp(strips[-1])
    policy.offset_ns -= 1_000_000 * MS
    ros.until(lambda: stamp(strips[-1]) < before)  # time went back

    begun = []
    for _ in range(6):  # a new task every half second, four times in the horizon
        policy.status.epoch += 1
        begun.append(policy.now())
        time.sleep(0.5)
    ros.until(lambda: stamp(strips[-1]) > begun[-1])
    assert not [strip for strip in strips if begun[0] < stamp(strip) < begun[-2]]

    policy.status.instruction = "dance"
    ros.until(lambda: "nothing imagined: ConfigError" in ros.output(node))
    policy.status.instruction = "fold the towel"
    sensors.jpeg["head"] = JPEG[: len(JPEG) // 2]
    ros.until(lambda: "nothing imagined: image does not decode" in ros.output(node))
    sensors.jpeg["head"] = JPEG
    another()
