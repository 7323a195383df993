"""Who else publishes the robot's targets: only the bridge may."""

from __future__ import annotations

from collections.abc import Sequence

from galaxea_r1lite_bridge.nodes.managed_node import ManagedNode
from galaxea_r1lite_bridge.robot.config import RobotConfig

PERIOD = 0.2
"""s between two looks at the ROS graph, which is cheap as long as nobody else is there."""
_LONGEST = 1000  # characters of who is: a status must stay within the bound of a message


class TargetWatch:
    """Looks at the publishers of all target topics of a robot, which `node` publishes itself."""

    def __init__(self, node: ManagedNode, robot: RobotConfig) -> None:
        self._node = node
        self._topics: Sequence[str] = [*(group.target for group in robot.groups.values()), robot.base.target]

    def others(self) -> str:
        """Nodes besides this one, each with the topics that it publishes; empty: none."""
        found: dict[str, list[str]] = {}
        for topic in self._topics:
            if self._node.count_publishers(topic) <= 1:
                continue
            names = self._node.publishing_nodes(topic)
            if (own := self._node.get_fully_qualified_name()) in names:
                names.remove(own)  # once: another bridge has the same name
            for name in names:
                found.setdefault(name, []).append(topic)
        return "; ".join(f"{name} on {', '.join(topics)}" for name, topics in found.items())[:_LONGEST]
