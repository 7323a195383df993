"""A second node in a process, with a thread and a DDS participant of its own: no other message delays its callbacks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile

from galaxea_r1lite_bridge.nodes.bounded_subscription import BoundedSubscription

_SPIN = 0.1  # s, longest time until close() is seen


class SideNode:
    """Subscriptions and services beside those of `owner`, under the names that they would have there.

    rclpy gives a node to one executor, and one executor runs one callback at a time: so it takes a second node. Its own
    context gives it its own sockets and buffers: in shared ones, a request that is lost among the fragments of a long
    message is sent again only after seconds.

    Args:
        owner: the node whose names, namespace, remappings and context count.
        name: appended to the owner's, and the thread's.
        on_error: called on the thread when a callback raises; the thread has then ended.
    """

    def __init__(self, owner: Node, name: str, on_error: Callable[[BaseException], None]) -> None:
        self._owner, self._on_error = owner, on_error  # the executor keeps the node, and the node what is on it
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, domain_id=owner.context.get_domain_id())
        self._node = bare_node(owner, name, self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def subscribe(
        self,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        qos: QoSProfile | int,
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        """As :class:`BoundedSubscription`; before :meth:`start`."""
        BoundedSubscription(self._node, kind, self._owner.resolve_topic_name(topic), callback, qos, on_refused)

    def serve(self, kind: Any, name: str, callback: Callable[[Any, Any], Any]) -> None:
        """Before :meth:`start`."""
        self._node.create_service(kind, self._owner.resolve_service_name(name), callback)

    def start(self) -> None:
        """Begin to call back."""
        self._thread.start()

    def close(self) -> None:
        """End after the current callback, and release everything."""
        self._closing.set()
        self._thread.join()
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._executor.spin_once(timeout_sec=_SPIN)
        except Exception as error:  # noqa: BLE001  a dead thread must never go unnoticed
            self._on_error(error)


def bare_node(owner: Node, name: str, context: rclpy.Context) -> Node:
    """A node beside `owner`, with `name` appended to the owner's; names on it are not remapped: resolve them there."""
    return Node(
        f"{owner.get_name()}_{name}",
        context=context,
        namespace=owner.get_namespace(),
        use_global_arguments=False,
        enable_rosout=False,
        start_parameter_services=False,
    )
