"""The scene as MJCF: the R1 Lite from its URDF, a table, and what the task puts on it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.kinematics import axis_rotation, origin
from galaxea_r1lite_sim.randomization import Conditions
from galaxea_r1lite_sim.shapes import Shape, Visual, link_collisions, link_visuals, numbers
from galaxea_r1lite_sim.tasks import Task

TIMESTEP = 1 / 240  # s
TABLE_CENTER, TABLE_HALF = (0.56, 0.0), (0.30, 0.60)  # m
_BOARD = 0.02  # m, half the thickness of the table's top
_GAINS = (400, 500, 400, 200, 120, 80)  # Nm/rad of joints 1 to 6
ARM_JOINTS = len(_GAINS)
_DAMPING = 0.08  # s, of the gains
_FINGER_GAIN = 300  # N/m
_ARMATURE = 0.02  # kg m^2: what a geared motor adds
# Who pushes whom: links push links (2) and the table's top (16), fingers only links, none what lies on it (1, 4, 8).
# Without friction: simulated servos are weak, and would be held fast where the real ones slide.
_PUSHES, _FINGER_PUSHES, _BOARD_PUSHES = (
    f'contype="{bits}" conaffinity="{bits}" condim="1" solref="0.01 1" group="3"' for bits in (18, 2, 16)
)
_MASS, _INERTIA = 0.5, 0.002  # kg, kg m^2 of a link; gravity is compensated, so only inertia matters

_HEAD = """<mujoco model="r1lite">
  <compiler angle="radian" balanceinertia="true"/>
  <option timestep="{timestep}" integrator="discrete" solver="CG" iterations="40" tolerance="1e-6"/>
  <size memory="64M"/>
  <visual><headlight ambient="0.4 0.4 0.4" diffuse="0.6 0.6 0.6"/></visual>
  <worldbody>
    <geom name="table" type="plane" pos="{x} {y} {z}" size="{half_x} {half_y} 0.01" contype="4" conaffinity="4"
          friction="{friction}" condim="3" rgba="{color} 1"/>
    <geom name="board" type="box" pos="{x} {y} {board_z}" size="{half_x} {half_y} {board}" {pushes}/>
"""


def build(robot: RobotConfig, conditions: Conditions) -> str:
    """MJCF of the whole scene; the torso stands still in its start pose."""
    urdf = ElementTree.parse(robot.urdf_path).getroot()
    table = robot.workspace.table_height
    visuals, collisions = link_visuals(urdf), link_collisions(urdf)
    fingers = [finger for pair in _fingers(robot, urdf) for finger in pair]
    geoms = {
        link: "".join([*map(_seen, visuals.get(link, [])), *_touching(link, shapes, pushes_table=link not in fingers)])
        for link, shapes in collisions.items()
    }
    standing = {j: at for group in robot.standing.values() for j, at in zip(group.joints, group.home, strict=True)}
    parts = [
        _HEAD.format(
            timestep=TIMESTEP, x=TABLE_CENTER[0], y=TABLE_CENTER[1], z=table, half_x=TABLE_HALF[0],
            half_y=TABLE_HALF[1], friction=conditions.friction, color=numbers(conditions.table_color[0]),
            board_z=table - _BOARD, board=_BOARD, pushes=_BOARD_PUSHES,
        ),
        _link(urdf, "base_link", standing, geoms),
        conditions.task.mjcf(table, conditions.friction),
        "  </worldbody>\n",
        "  <contact>\n",
        _never_touching(robot, urdf, collisions),
        *(_noticed(f"{finger}_{k}") for finger in fingers for k in range(len(collisions[finger]))),
        "  </contact>\n",
        _grasps(robot, conditions.task),
        _actuators(robot),
        "</mujoco>\n",
    ]  # fmt: skip
    return "".join(parts)


def _link(urdf: ElementTree.Element, name: str, fixed: dict[str, float], geoms: dict[str, str]) -> str:
    """A link as a body with everything below it."""
    joint = next((j for j in urdf.iterfind("joint") if _attributes(j, "child")["link"] == name), None)
    pose, hinge = "", ""
    if joint is not None:
        pose_in_parent = origin(joint.find("origin"))
        position, turn = pose_in_parent[:3, 3], pose_in_parent[:3, :3]
        axis = np.array([float(v) for v in _attributes(joint, "axis").get("xyz", "1 0 0").split()])
        if joint.attrib["name"] in fixed:
            turn = turn @ axis_rotation(axis, fixed[joint.attrib["name"]])
        elif joint.attrib["type"] != "fixed":
            limit = _attributes(joint, "limit")
            kind = "hinge" if joint.attrib["type"] == "revolute" else "slide"
            hinge = (
                f'<joint name="{joint.attrib["name"]}" type="{kind}" axis="{numbers(axis)}" limited="true" '
                f'range="{limit["lower"]} {limit["upper"]}" armature="{_ARMATURE}"/>'
            )
        pose = f' pos="{numbers(position)}" quat="{numbers(_quaternion(turn))}"'
    inertia = f'<inertial pos="0 0 0" mass="{_MASS}" diaginertia="{_INERTIA} {_INERTIA} {_INERTIA}"/>' if hinge else ""
    children = [
        _attributes(j, "child")["link"] for j in urdf.iterfind("joint") if _attributes(j, "parent")["link"] == name
    ]
    below = "".join(_link(urdf, child, fixed, geoms) for child in children)
    return f'<body name="{name}"{pose} gravcomp="1">{hinge}{inertia}{geoms[name]}{below}</body>\n'


def _seen(visual: Visual) -> str:
    """In the window, and touching nothing."""
    return f'<geom {_placed(visual)} rgba="{numbers(visual.color)} 1" contype="0" conaffinity="0"/>'


def _touching(link: str, shapes: list[Shape], *, pushes_table: bool) -> list[str]:
    """Not seen, but for those who switch group 3 on in the window."""
    pushes = _PUSHES if pushes_table else _FINGER_PUSHES
    return [f'<geom name="{link}_{k}" {_placed(shape)} {pushes}/>' for k, shape in enumerate(shapes)]


def _placed(shape: Shape) -> str:
    turn = numbers(_quaternion(shape.place[:3, :3]))
    return (
        f'type="{shape.kind}" size="{numbers(shape.half)}" pos="{numbers(shape.place[:3, 3])}" quat="{turn}" mass="0"'
    )


def _never_touching(robot: RobotConfig, urdf: ElementTree.Element, collisions: dict[str, list[Shape]]) -> str:
    """Links whose shapes overlap where the real parts cannot, or are meant to meet.

    These are neighbours; links two joints apart where the link between them is shorter than both are thick, at the
    wrist, where the hardware's joint limits keep the parts from each other; and the fingers of a gripper, which closes.
    """
    thickness = {link: max((s.thickness for s in shapes), default=0.0) for link, shapes in collisions.items()}
    above = {_attributes(j, "child")["link"]: _attributes(j, "parent")["link"] for j in urdf.iterfind("joint")}
    pairs = list(above.items())
    for joint in urdf.iterfind("joint"):
        link, middle = _attributes(joint, "child")["link"], _attributes(joint, "parent")["link"]
        length = float(np.linalg.norm(origin(joint.find("origin"))[:3, 3]))
        if middle in above and length < thickness[link] + thickness[above[middle]]:
            pairs.append((link, above[middle]))
    for fingers in _fingers(robot, urdf):
        pairs += combinations(fingers, 2)
    return "".join(f'<exclude body1="{one}" body2="{other}"/>\n' for one, other in pairs)


def _noticed(geom: str) -> str:
    """A contact of a finger with the table, which is reported and pushes nothing.

    A fold presses the tips on it. Tips, cloth and tabletop that give way are not simulated, and a rigid table changes
    what a policy measures that learned without one: the shipped one then forgets to let go more often. Found below 0 m
    of distance (margin + gap), it would push below -1 m (margin).
    """
    return f'<pair geom1="{geom}" geom2="board" margin="-1" gap="1"/>\n'


def _fingers(robot: RobotConfig, urdf: ElementTree.Element) -> list[list[str]]:
    """The fingers of each gripper."""
    moved_by = {j.attrib["name"]: _attributes(j, "child")["link"] for j in urdf.iterfind("joint")}
    grippers = (name for name, group in robot.commanded.items() if group.unit == "mm")
    return [[moved_by[joint] for joint in robot.urdf_positions(name, np.zeros(1))] for name in grippers]


def _grasps(robot: RobotConfig, task: Task) -> str:
    """One connection, off at first, from each tool to each body that can be taken hold of."""
    kind = {"connect": 'connect anchor="{}"', "weld": "weld"}[task.hold]
    lines = [
        f'<{kind.format(numbers(shape.tool.point))} name="{arm}_{k}" body1="{shape.tool.link}" body2="{body}" '
        'active="false" solref="0.01 1"/>'
        for arm, shape in robot.workspace.arms.items()
        for k, body in enumerate(task.bodies)
    ]
    return "  <equality>\n" + "\n".join(lines) + "\n  </equality>\n"


def _actuators(robot: RobotConfig) -> str:
    lines = []
    for name, group in robot.commanded.items():
        if group.unit == "rad":
            for joint, gain in zip(group.joints, _GAINS, strict=True):
                lines.append(f'<position name="{joint}" joint="{joint}" kp="{gain}" kv="{_DAMPING * gain}"/>')
        else:
            for finger in robot.urdf_positions(name, np.zeros(1)):
                kv = _DAMPING * _FINGER_GAIN
                lines.append(f'<position name="{finger}" joint="{finger}" kp="{_FINGER_GAIN}" kv="{kv}"/>')
    return "  <actuator>\n" + "\n".join(lines) + "\n  </actuator>\n"


def _attributes(element: ElementTree.Element, path: str) -> dict[str, str]:
    found = element.find(path)
    return {} if found is None else found.attrib


def _quaternion(turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """w, x, y, z of a rotation matrix, for all angles."""
    trace = np.trace(turn)
    candidates = np.array([trace, *np.diag(turn)])
    k = int(candidates.argmax())
    if k == 0:
        q = np.array([1 + trace, turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    else:
        a, b, c = k - 1, k % 3, (k + 1) % 3
        q = np.empty(4)
        q[0] = turn[c, b] - turn[b, c]
        q[1 + a] = 1 + turn[a, a] - turn[b, b] - turn[c, c]
        q[1 + b] = turn[b, a] + turn[a, b]
        q[1 + c] = turn[c, a] + turn[a, c]
    return q / np.linalg.norm(q)
