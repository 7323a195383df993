"""What faults are made of: each of these is, or gives, something that is done to a world whose arms move."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectoryPoint

from fastwam_msgs.msg import ActionChunk, Heartbeat
from fastwam_policy.fault_injection.world import World
from galaxea_r1lite_bridge.nodes.conversions import time_message

Injection = Callable[[World], None]

_MANY = 100_000  # steps, names or numbers of a big message
_LEAP = 1.5  # rad
_FAR_EPOCH, _FAR_ID = 2**32 - 1, 2**63
_NS = 1_000_000_000


def then(*steps: Injection, wait: float = 0.5) -> Injection:
    """One after the other, with so many s between them."""

    def inject(world: World) -> None:
        for number, step in enumerate(steps):
            time.sleep(wait if number else 0.0)
            step(world)

    return inject


# The robot and the nodes


def emulated(fault: str) -> Injection:
    """A fault of the emulated robot, of config/emulator_node.yaml."""
    return lambda world: world.emulate(fault)


def second_robot(rate: float, **fields: Any) -> Injection:
    """A second publisher of the left arm's feedback, which stays at the start pose; `fields` replace its own."""

    def inject(world: World) -> None:
        publisher, home = world.feedback("left_arm"), list(map(float, world.robot.groups["left_arm"].home))

        def publish() -> None:
            message: Any = JointState(position=home)
            message.header.stamp = time_message(time.time_ns() - _NS // 20)
            for name, value in fields.items():
                setattr(message, name, value)
            publisher.publish(message)

        world.repeat(rate, publish)

    return inject


def signalled(name: str, number: signal.Signals) -> Injection:
    """A signal to a node."""
    return lambda world: world.signal(name, number)


def paused(name: str) -> Injection:
    """A node stands still for a second."""
    return then(signalled(name, signal.SIGSTOP), signalled(name, signal.SIGCONT), wait=1.0)


def restarted(name: str) -> Injection:
    """A node is killed and started again."""
    return lambda world: world.restart(name)


# Chunks


def spoilt(change: Callable[[ActionChunk], Any]) -> Injection:
    """Every chunk from now on is changed; a list of chunks is sent instead of it."""

    def spoil(chunk: ActionChunk) -> list[ActionChunk]:
        found = change(chunk)
        return found if isinstance(found, list) else [chunk]

    def inject(world: World) -> None:
        world.smooth.spoil = spoil

    return inject


def ended(world: World) -> None:
    """No chunk comes any more."""
    world.smooth.stop()


def delayed(seconds: float) -> Injection:
    """So long from an observation to its chunk."""

    def inject(world: World) -> None:
        world.smooth.latency = seconds

    return inject


def stamped(change: Callable[[int], int]) -> Injection:
    """Other stamps, in ns."""

    def spoil(chunk: ActionChunk) -> None:
        stamp = chunk.header.stamp
        chunk.header.stamp = time_message(change(stamp.sec * _NS + stamp.nanosec))

    return spoilt(spoil)


def steps(change: Callable[[list[JointTrajectoryPoint]], Any]) -> Injection:
    """Other steps: `change` changes the list."""

    def spoil(chunk: ActionChunk) -> None:
        change(chunk.trajectory.points)

    return spoilt(spoil)


def cut_short(points: list[JointTrajectoryPoint]) -> None:
    """One step lacks a number."""
    points[3].positions.pop()


def number(value: float) -> Injection:
    """One number of one step."""
    return steps(lambda points: points[5].positions.__setitem__(3, value))


def renamed(chunk: ActionChunk) -> None:
    """Joints that the robot does not have."""
    chunk.trajectory.joint_names = [f"other_{name}" for name in chunk.trajectory.joint_names]


def leaping(chunk: ActionChunk) -> None:
    """A motion that no arm can make."""
    for place, point in enumerate(chunk.trajectory.points):
        point.positions[0] += _LEAP * (-1) ** place


def towards(goals: dict[int, float]) -> Injection:
    """Every chunk ends at these positions, by column."""

    def change(points: list[JointTrajectoryPoint]) -> None:
        for column, goal in goals.items():
            for share, point in zip(np.linspace(0, 1, len(points)), points, strict=True):
                point.positions[column] += share * (goal - point.positions[column])

    return steps(change)


def placed(goals: dict[int, float]) -> Injection:
    """Every step of every chunk is at these positions, by column."""

    def change(points: list[JointTrajectoryPoint]) -> None:
        for column, goal in goals.items():
            for point in points:
                point.positions[column] = goal

    return steps(change)


AWAY = placed({0: 1.2})
"""The left arm's first joint at 1.2 rad: further from home than the smooth motion goes."""


def reordered(world: World) -> None:
    """Two chunks at a time, the later one first."""
    waiting: list[ActionChunk] = []

    def change(chunk: ActionChunk) -> list[ActionChunk]:
        waiting.insert(0, chunk)
        pair = waiting[:] if len(waiting) > 1 else []
        del waiting[: len(pair)]
        return pair

    spoilt(change)(world)


def flood(rate: float, **fields: Any) -> Injection:
    """The first chunk again, so many times a second; `fields` of its trajectory are repeated _MANY times."""

    def inject(world: World) -> None:
        chunk = world.smooth.make(1, world.smooth.now_ns())
        for name, value in fields.items():
            setattr(chunk.trajectory, name, [value] * _MANY)
        world.repeat(rate, lambda: world.chunks.publish(chunk))

    return inject


FLOOD = flood(1000.0)
LONG, MANY_NAMES = flood(2.0, points=JointTrajectoryPoint(positions=[0.0] * 14)), flood(2.0, joint_names="x" * 50)
BIG_FEEDBACK = second_robot(5.0, position=[0.0] * _MANY)


def far_epoch(world: World) -> None:
    """One chunk of another session, after which no other one would be new."""
    chunk = world.smooth.make(1, world.smooth.now_ns())
    chunk.session, chunk.epoch, chunk.chunk_id = _FAR_ID, _FAR_EPOCH, _FAR_ID
    world.chunks.publish(chunk)


def second_policy(world: World) -> None:
    """Another one, of the opposite motion."""
    world.another_policy()


def same_session(world: World) -> None:
    """Another one, which claims to be the same."""
    world.another_policy(session=world.smooth.session)


# Who else commands the arms


def foreign_publisher(world: World) -> None:
    """Another node publishes the left arm's targets, or could."""
    world.foreign_publisher(world.robot.groups["left_arm"].target)


def led(change: Callable[[NDArray[np.float64]], NDArray[np.float64] | None]) -> Injection:
    """A person's input is changed from now on; None: it ends."""

    def inject(world: World) -> None:
        world.leader.spoil = change

    return inject


def first_joint(value: float) -> Injection:
    """The first number of a person's input is so much larger."""

    def change(positions: NDArray[np.float64]) -> NDArray[np.float64]:
        positions[0] += value
        return positions

    return led(change)


INPUT_ENDS, INPUT_GOES_ON = led(lambda _: None), led(lambda positions: positions)


def give_back(world: World) -> None:
    """~/takeover with false."""
    world.takeover.call_async(SetBool.Request(data=False))


# People


def stop(world: World) -> None:
    """~/stop."""
    world.stopping.call_async(Trigger.Request())


def home(world: World) -> None:
    """~/home."""
    world.homing.call_async(Trigger.Request())


def disarm(world: World) -> None:
    """~/arm with false."""
    world.arming.call_async(SetBool.Request(data=False))


def arm(world: World) -> None:
    """~/arm."""
    world.arming.call_async(SetBool.Request(data=True))


def press(world: World) -> None:
    """The emergency stop."""
    world.estop.publish(Bool(data=True))


def release(world: World) -> None:
    """The emergency stop."""
    world.estop.publish(Bool(data=False))


def beats_end(world: World) -> None:
    """No heartbeat comes any more."""
    world.pressed = None


def beats_released(world: World) -> None:
    """Heartbeats say that the deadman switch is not pressed."""
    world.pressed = False


def beats(session: int, rate: float) -> Injection:
    """Heartbeats of that session besides our own, which is 1."""
    return lambda world: world.repeat(rate, lambda: world.heartbeat.publish(Heartbeat(session=session, pressed=True)))


def other_beats(world: World) -> None:
    """Our heartbeats end, those of another session begin."""
    beats_end(world)
    beats(2, 20.0)(world)


def operator_signalled(number: signal.Signals) -> Injection:
    """A signal to `fastwam operate`."""
    return lambda world: world.operator.signal(number)


def key(letter: str) -> Injection:
    """A key that the operator presses."""
    return lambda world: world.operator.press(letter)


def deadman_released(world: World) -> None:
    """The operator lets go of the deadman switch."""
    world.operator.release()


def deadman_unplugged(world: World) -> None:
    """The deadman switch is gone."""
    world.operator.unplug()


def hung_up(world: World) -> None:
    """The operator's terminal is gone."""
    world.operator.hang_up()


# Time


def clock(**change: float) -> Injection:
    """The simulated clock steps, or goes on at another rate."""
    return lambda world: world.clock.set(**change)


def second_clock(world: World) -> None:
    """A second publisher of /clock."""
    world.repeat(100.0, lambda: world.time.publish(Clock(clock=time_message(world.clock.now_ns() - 3 * _NS))))
