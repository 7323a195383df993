"""A task of one's own in the simulator: lift the cube. You see when the scripted expert has done it, and a picture.

source scripts/env.sh
python examples/new_task.py lifted.png

docs/extend/add-a-task.md says how a task gets a name, so that every command knows it.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_sim.camera import Cameras
from galaxea_r1lite_sim.randomization import Conditions
from galaxea_r1lite_sim.simulation import Simulation
from galaxea_r1lite_sim.tasks.base import Progress
from galaxea_r1lite_sim.tasks.cube import Cube

HIGH = 0.08  # m over the table
STEP = 1 / 15  # s, from one target to the next


@dataclass(frozen=True)
class Lift(Cube):
    """The cube of `put the cube on the mat`, with another end. Its expert lifts the cube on the way, and will do."""

    instruction = "lift the cube"
    done = "lifted"

    def progress(self, simulation: Simulation) -> Progress:
        """Held, and high enough."""
        found = super().progress(simulation)
        low = HIGH - (float(simulation.things[0, 2]) - simulation.robot.workspace.table_height)
        return replace(found, success=bool(found.held) and low <= 0, distance=max(0.0, low), failure="not lifted")


def main(picture: Path) -> None:
    """Play the expert's targets, without a bridge, until the task is done."""
    robot = RobotConfig.load()
    simulation = Simulation(robot, Conditions(Lift(center=(0.50, 0.20))))
    for target in simulation.plan():
        simulation.target = target
        simulation.step(STEP)
        if simulation.progress().success:
            break
    found = simulation.progress()
    print(f"{'lifted' if found.success else found.failure} after {simulation.time:.1f} s by {' '.join(found.held)}")
    Image.fromarray(Cameras(simulation, 360, 640).render("head")).save(picture)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/new_task.py PICTURE.png")
    main(Path(sys.argv[1]))
