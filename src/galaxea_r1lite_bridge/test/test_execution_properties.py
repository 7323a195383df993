"""Whatever a policy, the network, a sensor or an operator does: no command breaks a limit.

`make test` generates more than 100,000 control ticks. For a long run:
make test TESTS="src/galaxea_r1lite_bridge/test/test_execution_properties.py --hypothesis-profile=long"
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galaxea_r1lite_bridge.execution.blending import BLENDINGS
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import State

from .rig import ROBOT, STEP, TICK, Rig, S

EXAMPLES = 210
PERIODS = [TICK] * 5 + [TICK // 2, 3 * TICK, 12 * TICK]
WORKSPACE_ROUNDING = 2e-3  # m: the way of braking is checked at a few points only
SENT = (State.HOLDING, State.TRACKING, State.STOPPING, State.FAULT, State.ESTOP)

chunks = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**16),
        "reach": st.sampled_from([0.05, 0.3, 1.0, 4.0]),
        "noise": st.sampled_from([0.0, 0.02, 0.5]),
        "age": st.sampled_from([0.0, 0.0, 0.1, 0.4, 1.4, 2.5, -0.04, -1.0]),
        "rows": st.sampled_from([1, 2, 10, 32, 32]),
        "step": st.sampled_from([STEP, STEP, STEP // 10, 3 * STEP]),
        "committed": st.sampled_from([0, 4, 32]),
        "id": st.sampled_from(["next", "next", "next", "next", "same", "old"]),
        "epoch": st.sampled_from([0, 0, 0, 0, 1, -1]),
        "bad": st.sampled_from(["", "", "", "", "", "nan", "inf", "names", "huge", "enormous"]),
    }
)
events = st.one_of(
    st.tuples(st.just("chunk"), chunks),
    st.tuples(st.just("chunk"), chunks),
    st.tuples(st.just("tick"), st.tuples(st.integers(1, 60), st.sampled_from(PERIODS))),
    st.tuples(
        st.sampled_from(
            ["stop", "disarm", "home", "home_torso", "estop", "release", "driver", "driver_ok", "stale", "fresh",
             "invalid", "frozen", "moving", "jump", "blocked", "free", "clock_back", "clock_ahead"]
        ),
        st.none(),
    ),
    st.tuples(st.just("arm"), st.none()),
)  # fmt: skip


class Checked(Rig):
    """Checks every command against the limits, and every arming against the measured pose."""

    steps = 0

    def __init__(self, mode, follows):
        self.before = None
        self.chunk_id, self.epoch = 0, 1
        # A jump may be configured to hold only: then the motion goes on from wherever the feedback is.
        super().__init__({"blending": mode, "closed_loop": follows, "watchdog.feedback_jump.reaction": "hold"})

    def tick(self, period=TICK):
        command = super().tick(period)
        Checked.steps += 1
        if command.motion is None:
            assert command.state in (State.DISARMED, State.FAULT, State.ESTOP)
            self.before = None
            return command
        assert command.state in SENT
        limiter, own = self.controller.limiter, slice(0, 14)
        position, dt = command.motion.position[own], min(period / S, 0.02)
        assert np.isfinite(command.motion.position).all()
        assert (position >= limiter.lower[own] - 1e-9).all()
        assert (position <= limiter.upper[own] + 1e-9).all()
        assert self.controller.guard.workspace.clearance(command.motion.position[None]).min() > -WORKSPACE_ROUNDING
        if self.before is not None:
            velocity = (position - self.before.position[own]) / dt
            assert (np.abs(velocity) <= limiter.velocity[own] + 1e-6).all()
            change = np.abs(velocity - self.before.velocity[own])
            assert (change <= limiter.acceleration[own] * dt + 1e-5).all(), (command.state, command.reason, change)
        self.before = command.motion
        return command

    def send(self, given):
        random = np.random.default_rng(given["seed"])
        self.chunk_id += given["id"] == "next"
        self.epoch += given["epoch"] == 1
        rows = given["rows"]
        goal = random.uniform(-1, 1, 14) * np.where(ROBOT.is_arm, given["reach"], 60)
        curve = np.sin(np.linspace(0, random.uniform(0.5, 6), rows))[:, None] * goal
        positions = self.home[:14] + curve + random.normal(0, given["noise"], (rows, 14))
        if given["bad"] in ("nan", "inf"):
            positions[rows // 2, 3] = float(given["bad"])
        if given["bad"] == "huge":
            positions *= 1e6
        if given["bad"] == "enormous":
            positions *= 1e305
        names = ["x"] * 14 if given["bad"] == "names" else ROBOT.joint_names
        chunk_id = max(0, self.chunk_id - 3) if given["id"] == "old" else self.chunk_id
        epoch = max(0, self.epoch + min(0, given["epoch"]))
        stamp = self.clock.now_ns - round(given["age"] * S)
        self.controller.accept(
            Chunk(chunk_id, epoch, stamp, given["step"], names, positions, given["committed"]), self.clock.now_ns
        )

    def arm(self):
        controller = self.controller
        armed = controller._in_charge
        measured = self.shown[:14].copy()
        if controller.arm() == 0 and not armed:
            self.before = None
            np.testing.assert_allclose(self.tick().motion.position[:14], measured, atol=2e-3)

    def do(self, name, given):
        controller = self.controller
        actions = {
            "chunk": lambda: self.send(given),
            "tick": lambda: [self.tick(given[1]) for _ in range(given[0])],
            "arm": self.arm,
            "stop": controller.stop,
            "disarm": controller.disarm,
            "home": lambda: controller.home(self.clock.now_ns),
            "home_torso": lambda: controller.home(self.clock.now_ns, torso=True),
            "estop": lambda: controller.set_estop(True),
            "release": lambda: controller.set_estop(False),
            "driver": lambda: controller.set_driver_error("left", "hot"),
            "driver_ok": lambda: controller.set_driver_error("left", ""),
            "stale": lambda: self.age.update(left_arm=0.5),
            "fresh": lambda: (self.age.clear(), self.invalid.clear()),
            "invalid": lambda: self.invalid.add("right_arm"),
            "frozen": lambda: setattr(self, "frozen", True),
            "moving": lambda: setattr(self, "frozen", False),
            "jump": lambda: self.joints.__setitem__(2, self.joints[2] - 0.1),
            "blocked": lambda: setattr(self.plant, "lag", 1e9),
            "free": lambda: setattr(self.plant, "lag", 0.05),
            "clock_back": lambda: setattr(self.clock, "now_ns", self.clock.now_ns - 3 * S),
            "clock_ahead": lambda: setattr(self.clock, "now_ns", self.clock.now_ns + 2 * S),
        }
        actions[name]()


@pytest.mark.parametrize("mode", BLENDINGS)
def test_no_sequence_of_events_breaks_a_limit(mode):
    Checked.steps = 0

    @settings(
        max_examples=max(EXAMPLES, settings.default.max_examples) // len(BLENDINGS),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.booleans(), st.lists(events, min_size=60, max_size=100))
    def run(follows, sequence):
        rig = Checked(mode, follows)
        rig.arm()
        for name, details in sequence:
            rig.do(name, details)
            rig.tick()
            if name in ("arm", "disarm", "estop", "driver"):  # most of the time something should be moving
                for fix in ("release", "driver_ok", "fresh", "moving", "free"):
                    rig.do(fix, None)
        for name in ("release", "driver_ok", "fresh", "moving", "free"):
            rig.do(name, None)
        rig.run(0.3)

    run()
    assert Checked.steps >= 100_000 / len(BLENDINGS)
