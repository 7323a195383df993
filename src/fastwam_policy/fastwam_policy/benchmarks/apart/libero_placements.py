"""Placements of our own for LIBERO: an official initial state whose things lie up to 5 cm from where they were.

Things that overlap, seen from above, move together: one stands on the other, or in it. What overlaps furniture stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FARTHEST = 0.05  # m
_LEAST = 0.01  # m: less would be the official state again
_ROOM = 0.005  # m between two things
_REACH = 0.75  # m from the arm's base to the middle of a thing: farther out the arm stalls
_TRIES, _ROUNDS = 50, 100

Numbers = NDArray[np.float64]


def moved(env: Any, official: Numbers, seed: int) -> Numbers:
    """A state for `env.set_init_state`, made of one of the official ones [K, N]; task and seed say which and how.

    The benchmark's trials are the seeds below K; whoever makes data takes seeds from 1000 on.

    Args:
        env: LIBERO's, after a reset; it is left in another state. Its fixtures stay.
        official: the task's initial states.
        seed: the official state is the one of this number, modulo K. Nothing else is random.

    Raises:
        ValueError: there is no room.
    """
    from .libero_scene import Scene  # MuJoCo, which the rest of this file does without

    state = np.array(official[seed % len(official)], np.float64)
    env.set_state(state)
    env.sim.forward()
    scene, things, furniture = Scene(env), env.env.objects_dict, env.env.fixtures_dict

    def boxes(names: Any) -> Numbers:
        spans = [scene.points(name)[:, :2] for name in names]
        return np.array([[points.min(axis=0), points.max(axis=0)] for points in spans]).reshape(-1, 2, 2)

    task = Path(env.env.bddl_file_name).stem
    random = np.random.default_rng([seed, *task.encode()])
    moves = shifts(boxes(things), boxes(furniture), scene.base[:2], random)
    for thing, move in zip(things.values(), moves, strict=True):
        place = 1 + env.sim.model.get_joint_qpos_addr(thing.joints[-1])[0]  # behind the time
        state[place : place + 2] += move
    return state


def shifts(things: Numbers, furniture: Numbers, base: Numbers, random: np.random.Generator) -> Numbers:
    """How far to move each thing, [N, 2], so that none comes to touch another.

    Args:
        things: boxes [N, 2, 2] seen from above: lowest and highest corner of each, m.
        furniture: boxes [M, 2, 2] of what does not move.
        base: where the arm stands, [2].
        random: is drawn from.

    Raises:
        ValueError: there is no room.
    """
    boxes = np.concatenate([things, furniture])
    groups = [group for group in _groups(boxes) if max(group) < len(things)]
    for _ in range(_ROUNDS):
        now = boxes.copy()
        if all(_move(now, groups[k], base, random) for k in random.permutation(len(groups))):
            return np.asarray(now - boxes)[: len(things), 0]
    raise ValueError("the things of this scene cannot be moved: they have no room")


def _move(boxes: Numbers, group: list[int], base: Numbers, random: np.random.Generator) -> bool:
    """Move the boxes of a group, in place; False where no place was found."""
    others = np.delete(boxes, group, axis=0)
    reach = np.maximum(_REACH, _far(boxes[group], base))
    for _ in range(_TRIES):
        shift = random.uniform(-FARTHEST, FARTHEST, 2)
        if not _LEAST <= np.linalg.norm(shift) <= FARTHEST:
            continue
        there = boxes[group] + shift
        if (_far(there, base) <= reach).all() and not _overlap(there, others, _ROOM).any():
            boxes[group] = there
            return True
    return False


def _far(boxes: Numbers, base: Numbers) -> Numbers:
    """Distance of the boxes' middles, [N]."""
    return np.asarray(np.linalg.norm(boxes.mean(axis=1) - base, axis=1))


def _overlap(some: Numbers, others: Numbers, room: float = 0.0) -> NDArray[np.bool_]:
    """Which of some boxes and of the others are nearer than `room`, [N, M]."""
    below = some[:, None, 0] < others[None, :, 1] + room
    above = others[None, :, 0] < some[:, None, 1] + room
    return np.asarray((below & above).all(axis=2))


def _groups(boxes: Numbers) -> list[list[int]]:
    """Numbers of the boxes that overlap, or that others join."""
    joined, left, groups = _overlap(boxes, boxes), set(range(len(boxes))), []
    while left:
        group, new = [], [min(left)]
        while new:
            left -= set(new)
            group += new
            new = [k for k in sorted(left) if joined[group, k].any()]
        groups.append(sorted(group))
    return groups
