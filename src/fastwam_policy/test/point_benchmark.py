"""The benchmark of `point_simulator.py`, and policies for it."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastwam_policy.benchmarks.base import EXPERT, NOOP, Published, Task
from fastwam_policy.benchmarks.lockstep import Interface, LockstepTask, Noop
from fastwam_policy.benchmarks.simulator import SimulatorProcess
from fastwam_policy.policies.base import ActionChunk, CameraInput, Channel, PolicyInfo
from fastwam_policy.policies.loading import load_policy

LIMIT, REPLAN, TRIALS = 30, 3, 4
INTERFACE = Interface(
    cameras=("above",), state=(Channel("x", "m"), Channel("y", "m")),
    action=(Channel("dx", "m"), Channel("dy", "m")), kind="delta", fps=10.0, rest=(0.0, 0.0),
    shown=lambda images: images["above"],
)  # fmt: skip
INFO = PolicyInfo("center", (CameraInput("above"),), INTERFACE.state, INTERFACE.action[::-1], 10.0, 5, "delta")


def start(log):
    return SimulatorProcess(Path(sys.executable), "point_simulator:Point", log, folders=[Path(__file__).parent])


@dataclass(frozen=True)
class PointBenchmark:
    folder: Path
    name: str = "point"
    title: str = "Point"
    note: str = "a stand-in"
    suites: tuple[str, ...] = ("near", "far")
    official: tuple[str, ...] = ("near", "far")
    published: tuple[Published, ...] = (Published("Others", "nowhere", 90.0, (("near", 95.0), ("far", 85.0))),)

    def protocol(self):
        return {"limit": LIMIT}

    def tasks(self, suites):
        return [Task(suite, number, f"go home {number}", TRIALS) for suite in suites for number in range(2)]

    def policy(self, source, mode=""):
        if source == EXPERT:
            return None
        return Noop(INTERFACE) if source == NOOP else load_policy(source, {"mode": mode} if mode else {})

    def check(self, info, source):
        INTERFACE.check(info, source)

    def expert_identity(self):
        return "1"

    def open(self, task, policy, log, *, film):
        process = start(log)
        process.ask("open", folder=str(self.folder))
        return LockstepTask(process, task, INTERFACE, policy, REPLAN, LIMIT)

    def remarks(self, episodes):
        return []


class Center:
    """Goes to the origin; its columns come in another order than the simulator's."""

    info = INFO

    def __init__(self):
        self.seen, self.prepared = [], []

    def prepare(self, instruction):
        self.prepared.append(instruction)

    def infer(self, observation):
        self.seen.append(observation)
        step = -np.array([observation.joints["y"], observation.joints["x"]]) / 5
        return ActionChunk(observation.stamp_ns, self.info.step_ns, ["dy", "dx"], np.tile(step, (5, 1)))

    def reset(self):
        self.seen.clear()

    def close(self):
        pass


class NotFinite(Center):
    """As its name says."""

    def infer(self, observation):
        chunk = super().infer(observation)
        return replace(chunk, actions=chunk.actions * np.nan)


class Failing(Center):
    """As its name says."""

    def infer(self, observation):
        raise KeyError("boom")


class Misnamed(Center):
    """Its columns have other names."""

    def infer(self, observation):
        return replace(super().infer(observation), names=["x", "y"])


class Remembering(Center):
    """Looks back 0.2 s, and is told what was executed."""

    info = replace(INFO, history=(0.2,), key_frame_steps=2)

    def __init__(self):
        super().__init__()
        self.told = []

    def executed(self, actions, key_frames):
        self.told.append((actions, key_frames))


class Looker(Remembering):
    """Goes to the origin from where its picture shows it, and knows what it saw on average: nothing."""

    def mean_pictures(self):
        return {"above": np.zeros((8, 8, 3), np.uint8)}

    def infer(self, observation):
        chunk, spots = super().infer(observation), np.argwhere(observation.images["above"][..., 0])
        place = (spots[0] + 0.5) / 4 - 1 if len(spots) else np.zeros(2)
        return replace(chunk, actions=np.tile(-place[::-1] / 5, (5, 1)))


class Knowing(Center):
    """Knows one instruction."""

    info = replace(INFO, instructions=("go home 1",))


class Killer(Center):
    """Ends its whole process."""

    def infer(self, observation):
        os._exit(9)
