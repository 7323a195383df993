"""A subscription with a bound on the length of a message, which no message can make hold up other threads.

rclpy copies a message while it holds Python's lock: one of 56 MB stops every thread of the process for 0.1 s. Here rcl
is called through ctypes, which lets go of the lock, and what is too long is freed without becoming a Python object.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from rclpy.waitable import NumberOfEntities, Waitable

_WARN_PERIOD = 2.0  # s between two equal warnings
_KB, _MB = 2**10, 2**20
_USUAL: Final = 64 * _KB  # states of joints, nodes and drivers: up to 4 kB here
_BOUNDS: Final = {
    "ActionChunk": 256 * _KB,  # 1,800 steps of 14 joints
    "CompressedImage": 8 * _MB,
    "Image": 32 * _MB,  # 4K in colour
}
_OK, _NOTHING_TAKEN = 0, 401  # rcl_ret_t


class BoundedSubscription(Waitable):  # type: ignore[misc]
    """Hands on the messages of a topic; what is too long or malformed is not read, but counted and warned of.

    For types that have no bound by themselves: with a text, or an array of any length.

    Args:
        node: whose subscription it is.
        kind: type of the messages.
        topic: their topic.
        callback: gets each message, or its bytes where `raw` is set.
        qos: quality of service.
        on_refused: called for each message that is not handed on.
        raw: whether the callback takes serialised messages.
    """

    def __init__(
        self,
        node: Node,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        qos: QoSProfile | int,
        on_refused: Callable[[], None] = lambda: None,
        *,
        raw: bool = False,
    ) -> None:
        super().__init__(node.default_callback_group)
        self._node, self._kind, self._raw = node, kind, raw
        self._callback, self._on_refused = callback, on_refused
        self.bound = _BOUNDS.get(kind.__name__, _USUAL)
        """Bytes of the longest message that is read, as serialised."""
        self._subscription = node.create_subscription(
            kind, topic, self._read, qos, raw=True, callback_group=_EventsOnly()
        )
        node.add_waitable(self)

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.remove_waitable(self)
        self._node.destroy_subscription(self._subscription)

    def __enter__(self) -> None:
        """Keep the subscription while it is waited for."""
        self._subscription.handle.__enter__()

    def __exit__(self, *error: object) -> None:
        """Let it be destroyed."""
        self._subscription.handle.__exit__(*error)

    def get_num_entities(self) -> NumberOfEntities:
        """What is waited for."""
        return NumberOfEntities(num_subs=1)

    def add_to_wait_set(self, wait_set: Any) -> None:
        """Wait for a message."""
        self._index = wait_set.add_subscription(self._subscription.handle)

    def is_ready(self, wait_set: Any) -> bool:
        """Whether one is there."""
        return bool(wait_set.is_ready("subscription", self._index))

    def take_data(self) -> bytes | None:
        """The next message, serialised; None: there is none, or it was refused."""
        buffer = _Buffer(allocator=_rcutils.rcutils_get_default_allocator())
        place = ctypes.byref(buffer)
        try:
            with self._subscription.handle:
                result = _rcl.rcl_take_serialized_message(self._subscription.handle.pointer, place, None, None)
            if result == _OK and buffer.length <= self.bound:
                return ctypes.string_at(buffer.data, buffer.length)
        finally:
            _rcutils.rcutils_uint8_array_fini(place)
        if result == _OK:
            self._refuse(f"{buffer.length} bytes long, and more than {self.bound} are not read")
        elif result != _NOTHING_TAKEN:
            _rcutils.rcutils_reset_error()
            self._refuse(f"rcl_take_serialized_message failed with {result}")
        return None

    async def execute(self, data: bytes | None) -> None:
        """Hand it on."""
        if data is not None:
            self._read(data)

    def _read(self, data: bytes) -> None:
        try:
            message = data if self._raw else deserialize_message(data, self._kind)
        except Exception as error:  # noqa: BLE001  rclpy has no type of its own for it
            self._refuse(f"malformed: {error}")
        else:
            self._callback(message)

    def _refuse(self, why: str) -> None:
        self._on_refused()
        text = f"{self._subscription.topic_name}: message refused: {why}"
        self._node.get_logger().warning(text, throttle_duration_sec=_WARN_PERIOD)


class _EventsOnly(CallbackGroup):
    """Leaves a subscription's events, such as another quality of service, to the executor, and not its messages."""

    def can_execute(self, entity: Any) -> bool:
        """Whether the executor may call back."""
        return not isinstance(entity, Subscription)

    def beginning_execution(self, entity: Any) -> bool:
        """As :meth:`can_execute`."""
        return self.can_execute(entity)

    def ending_execution(self, entity: Any) -> None:
        """Nothing to do."""


class _Allocator(ctypes.Structure):
    """rcutils_allocator_t."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("allocate", "deallocate", "reallocate", "zero_allocate", "state")]


class _Buffer(ctypes.Structure):
    """rcl_serialized_message_t."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("capacity", ctypes.c_size_t),
        ("allocator", _Allocator),
    ]  # fmt: skip


# rclpy has loaded both. CDLL lets go of Python's lock during a call; PyDLL keeps it, for what is short.
_rcl, _rcutils = ctypes.CDLL("librcl.so"), ctypes.PyDLL("librcutils.so")
_rcl.rcl_take_serialized_message.argtypes = [ctypes.c_void_p] * 4
_rcutils.rcutils_get_default_allocator.restype = _Allocator
_rcutils.rcutils_uint8_array_fini.argtypes = [ctypes.c_void_p]
