"""What is to be done at the table: a module for each task. See docs/extend/add-a-task.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from galaxea_r1lite_sim.tasks.base import Progress, Task
from galaxea_r1lite_sim.tasks.cube import Cube
from galaxea_r1lite_sim.tasks.fold import Fold

TaskName = Literal["fold", "cube"]
TASKS: Mapping[str, type[Task]] = {"fold": Fold, "cube": Cube}
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)

__all__ = ["TASKS", "TASK_NAMES", "Progress", "Task", "TaskName"]
