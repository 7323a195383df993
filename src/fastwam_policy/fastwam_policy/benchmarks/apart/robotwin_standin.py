"""A robot of boxes in the place of RoboTwin's, which is not here: for tests of the adapter, never for scores.

It has the names and the order of the real arms' joints, and about their size. Without ray tracing the light is another.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from xml.sax.saxutils import quoteattr

TASKS = ("blocks_ranking_rgb", "blocks_ranking_size", "handover_block", "stack_blocks_two", "stack_blocks_three")
"""Those whose things are boxes, so that they need no meshes."""
_NAME = "standin"
_ARMS = {"fl": (0.3, "left_camera"), "fr": (-0.3, "right_camera")}  # y of the base, name of the wrist's camera
_BODY = (0.2, 0.3, 0.6)  # m
_STROKE = 0.05  # m of one finger
_Chain = tuple[str, tuple[float, float, float], str, tuple[float, float], tuple[float, float, float], float]
_JOINTS: tuple[_Chain, ...] = (
    # from the link before (m), axis, limits (rad), the link's box (m), and how far along x (or z, of link 2) it lies
    ("1", (0.0, 0.0, 0.0), "0 0 1", (-3.0, 3.0), (0.06, 0.06, 0.06), 0.0),
    ("2", (0.0, 0.0, 0.06), "0 1 0", (-0.5, 3.2), (0.04, 0.04, 0.24), 0.0),
    ("3", (0.0, 0.0, 0.28), "0 1 0", (-2.0, 2.0), (0.22, 0.04, 0.04), 0.13),
    ("4", (0.27, 0.0, 0.0), "0 1 0", (-1.6, 1.6), (0.04, 0.04, 0.04), 0.02),
    ("5", (0.06, 0.0, 0.0), "0 0 1", (-1.6, 1.6), (0.04, 0.04, 0.04), 0.02),
    ("6", (0.05, 0.0, 0.0), "1 0 0", (-3.0, 3.0), (0.06, 0.12, 0.05), 0.03),
)
_HOME = [0.0, 0.6, 0.9, -0.3, 0.0, 0.0]  # rad


def write(folder: Path) -> None:
    """Write the embodiment: URDF, SRDF, its configuration; and the empty folders of what it does not have."""
    folder.mkdir(parents=True, exist_ok=True)
    for other in ("objects", "background_texture"):
        (folder.parents[1] / other).mkdir(exist_ok=True)
    parts = list(_parts())
    links = [name for name, _ in parts]
    (folder / f"{_NAME}.urdf").write_text(f'<robot name="{_NAME}">{"".join(text for _, text in parts)}</robot>')
    pairs = [(one, other) for k, one in enumerate(links) for other in links[k + 1 :]]
    apart = "".join(f'<disable_collisions link1="{one}" link2="{other}" reason="Never"/>' for one, other in pairs)
    (folder / f"{_NAME}.srdf").write_text(f'<robot name="{_NAME}">{apart}</robot>')
    (folder / "config.yml").write_text(json.dumps(_config()))  # JSON is YAML
    for side in ("left", "right"):
        (folder / f"curobo_{side}_tmp.yml").write_text(json.dumps({"robot_cfg": {"kinematics": {}}}))


def without_ray_tracing() -> None:
    """Let SAPIEN use its plain shaders where RoboTwin asks for ray tracing, which no software renderer has."""
    from sapien import render

    choose = render.set_camera_shader_dir
    render.set_camera_shader_dir = lambda name: choose("default" if name == "rt" else name)


def without_torch() -> None:
    """Stand in for packages that RoboTwin imports, and here needs nothing of."""
    if find_spec("torch") is None:
        torch = ModuleType("torch")
        torch.manual_seed = lambda _: None  # type: ignore[attr-defined]
        torch.multiprocessing = multiprocessing  # type: ignore[attr-defined]
        sys.modules |= {"torch": torch, "torch.multiprocessing": multiprocessing}
    if find_spec("open3d") is None:
        sys.modules["open3d"] = ModuleType("open3d")


def _parts() -> Iterator[tuple[str, str]]:
    """Each link's name, and its description with the joint that holds it."""
    yield "footprint", _link("footprint", _BODY, (-0.25, 0.0, 0.35))
    for arm, (y, camera) in _ARMS.items():
        base = f"{arm}_base_link"
        fixed = _joint("base_joint", arm, "footprint", base, (0.2, y, 0.78))
        yield base, _link(base, (0.1, 0.1, 0.06), (0, 0, -0.03)) + fixed
        before = base
        for number, place, axis, limits, size, along in _JOINTS:
            link = f"{arm}_link{number}"
            middle = (along, 0.0, size[2] / 2 + 0.02 if number in "12" else 0.0)
            yield link, _link(link, size, middle) + _joint(f"joint{number}", arm, before, link, place, axis, limits)
            before = link
        for number, axis in (("7", "0 1 0"), ("8", "0 -1 0")):
            link = f"{arm}_link{number}"
            slide = _joint(f"joint{number}", arm, before, link, (0.06, 0, 0), axis, (0.0, _STROKE), "prismatic")
            yield link, _link(link, (0.06, 0.012, 0.02), (0.03, 0, 0)) + slide
        yield camera, f'<link name="{camera}"/>' + _joint("camera", arm, before, camera, (0, 0, 0.07), tilt="0 0.5 0")


def _link(name: str, size: tuple[float, ...], middle: tuple[float, ...]) -> str:
    shape = f"<origin xyz={_numbers(middle)}/><geometry><box size={_numbers(size)}/></geometry>"
    inertia = '<mass value="0.5"/><inertia ixx="0.002" iyy="0.002" izz="0.002" ixy="0" ixz="0" iyz="0"/>'
    parts = f"<visual>{shape}</visual><collision>{shape}</collision><inertial>{inertia}</inertial>"
    return f'<link name="{name}">{parts}</link>'


def _joint(
    name: str, arm: str, parent: str, child: str, place: tuple[float, ...], axis: str = "0 0 1",
    limits: tuple[float, float] | None = None, kind: str = "revolute", tilt: str = "0 0 0",
) -> str:  # fmt: skip
    bound = "" if limits is None else f'<limit lower="{limits[0]}" upper="{limits[1]}" effort="100" velocity="3"/>'
    return (
        f'<joint name="{arm}_{name}" type="{"fixed" if limits is None else kind}"><parent link="{parent}"/>'
        f'<child link="{child}"/><origin xyz={_numbers(place)} rpy="{tilt}"/><axis xyz="{axis}"/>{bound}</joint>'
    )


def _numbers(values: tuple[float, ...]) -> str:
    return quoteattr(" ".join(str(value) for value in values))


def _config() -> dict[str, object]:
    """As RoboTwin's embodiments are configured."""
    cameras = (("head_camera", (-0.032, -0.45, 1.35), (0, 0.6, -0.8)), ("front_camera", (0, -0.4, 0.85), (0, 1, -0.1)))
    identity = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    return {
        "urdf_path": f"{_NAME}.urdf", "srdf_path": f"{_NAME}.srdf", "planner": "mplib_RRT",
        "joint_stiffness": 1000, "joint_damping": 200, "gripper_stiffness": 1000, "gripper_damping": 200,
        "move_group": [f"{arm}_link6" for arm in _ARMS], "ee_joints": [f"{arm}_joint6" for arm in _ARMS],
        "arm_joints_name": [[f"{arm}_joint{k}" for k in range(1, 7)] for arm in _ARMS],
        "gripper_name": [{"base": f"{arm}_joint7", "mimic": [[f"{arm}_joint8", 1.0, 0.0]]} for arm in _ARMS],
        "gripper_bias": 0.12, "gripper_scale": [0.0, 0.9 * _STROKE], "homestate": [_HOME, _HOME],
        "delta_matrix": identity, "global_trans_matrix": identity, "robot_pose": [[0, -0.65, 0, 0.707, 0, 0, 0.707]],
        "rotate_lim": [0, 0], "grasp_perfect_direction": ["front_right", "front_left"],
        "static_camera_list": [
            {"name": name, "type": "D435", "position": place, "forward": forward, "left": [-1, 0, 0]}
            for name, place, forward in cameras
        ],
    }  # fmt: skip
