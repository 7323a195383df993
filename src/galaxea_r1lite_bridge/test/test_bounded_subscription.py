"""What is too long or malformed is refused, and no message holds up the threads of a process."""

import threading
import time

import pytest
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from fastwam_msgs.msg import ActionChunk
from galaxea_r1lite_bridge.nodes.bounded_subscription import BoundedReader, BoundedSubscription
from galaxea_r1lite_bridge.nodes.side_node import SideNode

GOOD = serialize_message(JointState(position=[1.0, 2.0]))
LONG = serialize_message(JointState(position=[0.0] * 9000))
HUGE = serialize_message(JointState(position=[0.0] * 4_000_000))


class Topic:
    """A publisher, and what came of its messages."""

    def __init__(self, ros):
        self.ros = ros
        self.publisher = ros.node.create_publisher(JointState, "joints", 10)
        self.taken, self.refused, self.errors = [], 0, []

    def take(self, message):
        self.taken.append(list(message.position))

    def refuse(self):
        self.refused += 1

    def publish(self, *messages):
        self.ros.until(self.publisher.get_subscription_count)
        for message in messages:
            self.publisher.publish(message)


@pytest.fixture
def topic(ros):
    return Topic(ros)


def test_what_is_within_its_bound_is_read(ros, topic, capfd):
    subscription = BoundedSubscription(ros.node, JointState, "joints", topic.take, 10, topic.refuse)
    topic.publish(LONG, GOOD[:30], GOOD)
    ros.until(lambda: topic.taken == [[1.0, 2.0]])
    assert topic.refused == 2
    assert f"{len(LONG)} bytes long" in capfd.readouterr().err
    subscription.destroy()
    ros.until(lambda: ros.node.count_subscribers("joints") == 0)
    topic.publisher.publish(GOOD)


def test_messages_wait_until_they_are_asked_for(ros, topic):
    reader = BoundedReader(ros.node, JointState, "joints", 3, topic.refuse)
    assert list(reader.take_all()) == []
    begin = time.time_ns()
    topic.publish(LONG, GOOD, GOOD[:30])
    taken = []
    ros.until(lambda: taken.extend(reader.take_all()) or len(taken) == 2)
    assert [message.data for message in taken] == [GOOD, GOOD[:30]]
    assert begin < taken[0].received_ns <= taken[1].received_ns < time.time_ns()
    assert topic.refused == 1
    BoundedSubscription(ros.node, JointState, "joints", topic.take, 10)
    topic.publish(*[GOOD] * 5)
    ros.until(lambda: len(topic.taken) == 5)
    assert len(list(reader.take_all())) == 3, "what the quality of service keeps"


def test_a_side_node_has_a_thread_of_its_own_and_the_names_of_its_owner(ros, topic):
    remapped = ["--ros-args", "-r", "positions:=/joints", "-r", "__node:=left"]
    owner = rclpy.create_node("owner", context=ros.context, namespace="robot", cli_args=remapped)
    side = SideNode(owner, "side", topic.errors.append)
    threads = []
    side.subscribe(
        JointState, "positions", lambda m: (threads.append(threading.current_thread().name), topic.take(m)), 10
    )
    side.serve(Trigger, "~/stop", lambda _, response: response)
    side.start()
    topic.publish(LONG, GOOD)
    ros.until(lambda: topic.taken == [[1.0, 2.0]])
    assert threads == ["side"]
    assert ros.call(Trigger, "/robot/left/stop", Trigger.Request()) == Trigger.Response()
    assert ("left_side", "/robot") in ros.node.get_node_names_and_namespaces()
    side.close()
    owner.destroy_node()
    ros.until(lambda: ros.node.count_subscribers("joints") == 0)
    assert not topic.errors


def test_a_side_node_says_when_it_has_ended(ros, topic):
    side = SideNode(ros.node, "side", topic.errors.append)
    side.subscribe(JointState, "joints", lambda _: 1 / 0, 10)
    side.start()
    topic.publish(GOOD)
    ros.until(lambda: topic.errors)
    assert isinstance(topic.errors[0], ZeroDivisionError)
    side.close()


def test_other_threads_go_on_while_a_long_message_is_taken(ros, topic):
    side = SideNode(ros.node, "never_started", topic.errors.append)
    subscription = BoundedSubscription(side._node, JointState, "/joints", topic.take, 10, topic.refuse)
    ticks, ended = [], threading.Event()

    def tick():
        while not ended.wait(0.0005):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()

    def others_went_on():
        before = topic.refused
        topic.publish(HUGE)
        while topic.refused == before:
            begin = time.monotonic()
            assert subscription.take_data() is None
        end = time.monotonic()
        return sum(begin < at < end for at in ticks) > 5

    ros.until(others_went_on)
    ended.set()
    thread.join()


def test_another_quality_of_service_is_still_warned_of(ros, topic, capfd):
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    ros.node.create_publisher(JointState, "others", best_effort)
    subscription = BoundedSubscription(ros.node, JointState, "others", topic.take, 10)
    ros.until(lambda: "incompatible QoS" in capfd.readouterr().err)
    subscription.destroy()


def test_a_chunk_may_be_longer_than_a_joint_state(ros):
    bounds = [BoundedReader(ros.node, kind, kind.__name__, 1).bound for kind in (JointState, ActionChunk)]
    assert bounds == [64 * 1024, 256 * 1024]
