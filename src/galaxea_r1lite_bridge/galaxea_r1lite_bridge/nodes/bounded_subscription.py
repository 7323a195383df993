"""A subscription with a bound on the length of a message, which no message can make hold up other threads.

rclpy copies a message while it holds Python's lock: one of 56 MB stops every thread of the process for 0.1 s. Here rcl
is called through ctypes, which lets go of the lock, and what is too long is freed without becoming a Python object.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

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


class Taken(NamedTuple):
    """A message as it came."""

    data: bytes
    """As serialised."""
    received_ns: int
    """System time at which it arrived [ns]; 0: this middleware does not say."""


class BoundedReader:
    """Takes the messages of a topic when it is asked to: none of them wakes the process.

    For types that have no bound by themselves: with a text, or an array of any length. What is too long is not read,
    but counted and warned of.

    Args:
        node: whose subscription it is.
        kind: type of the messages.
        topic: their topic.
        qos: quality of service.
        on_refused: called for each message that is not handed on.
    """

    def __init__(
        self, node: Node, kind: Any, topic: str, qos: QoSProfile | int, on_refused: Callable[[], None] = lambda: None
    ) -> None:
        self.bound = _BOUNDS.get(kind.__name__, _USUAL)
        """Bytes of the longest message that is read, as serialised."""
        self._node, self._kind, self._on_refused = node, kind, on_refused
        self.subscription = node.create_subscription(kind, topic, _never, qos, raw=True, callback_group=_EventsOnly())
        """What is waited for."""
        self._handle = self.subscription.handle
        self._depth = self.subscription.qos_profile.depth

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self.subscription)

    def take(self) -> Taken | None:
        """The next message; None: there is none, or it was refused."""
        return self._take()[1]

    def take_all(self) -> Iterator[Taken]:
        """All that have come, at most as many as the quality of service keeps."""
        for _ in range(self._depth):
            result, taken = self._take()
            if result == _NOTHING_TAKEN:
                return
            if taken is not None:
                yield taken

    def parse(self, taken: Taken) -> Any | None:
        """The message; None: it is malformed, and was refused."""
        try:
            return deserialize_message(taken.data, self._kind)
        except Exception as error:  # noqa: BLE001  rclpy has no type of its own for it
            self.refuse(f"malformed: {error}")
            return None

    def refuse(self, why: str) -> None:
        """Count and warn of a message that is not used."""
        self._on_refused()
        text = f"{self.subscription.topic_name}: message refused: {why}"
        self._node.get_logger().warning(text, throttle_duration_sec=_WARN_PERIOD)

    def _take(self) -> tuple[int, Taken | None]:
        buffer, info = _Buffer(allocator=_rcutils.rcutils_get_default_allocator()), _Info()
        place = ctypes.byref(buffer)
        try:
            with self._handle:
                result = _rcl.rcl_take_serialized_message(self._handle.pointer, place, ctypes.byref(info), None)
            length = buffer.length
            if result == _OK and length <= self.bound:
                return result, Taken(ctypes.string_at(buffer.data, length), info.received)
        finally:
            _rcutils.rcutils_uint8_array_fini(place)
        if result == _OK:
            self.refuse(f"{length} bytes long, and more than {self.bound} are not read")
        elif result != _NOTHING_TAKEN:
            _rcutils.rcutils_reset_error()
            self.refuse(f"rcl_take_serialized_message failed with {result}")
        return result, None


class BoundedSubscription(Waitable):  # type: ignore[misc]
    """Hands on the messages of a :class:`BoundedReader` as they come; what is malformed is counted and warned of.

    Args:
        callback: gets each message.
        node, kind, topic, qos, on_refused: as there.
    """

    def __init__(
        self,
        node: Node,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        qos: QoSProfile | int,
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(node.default_callback_group)
        self._node, self._callback = node, callback
        self._reader = BoundedReader(node, kind, topic, qos, on_refused)
        self._handle = self._reader.subscription.handle
        node.add_waitable(self)

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.remove_waitable(self)
        self._reader.destroy()

    def __enter__(self) -> None:
        """Keep the subscription while it is waited for."""
        self._handle.__enter__()

    def __exit__(self, *error: object) -> None:
        """Let it be destroyed."""
        self._handle.__exit__(*error)

    def get_num_entities(self) -> NumberOfEntities:
        """What is waited for."""
        return NumberOfEntities(num_subs=1)

    def add_to_wait_set(self, wait_set: Any) -> None:
        """Wait for a message."""
        self._index = wait_set.add_subscription(self._handle)

    def is_ready(self, wait_set: Any) -> bool:
        """Whether one is there."""
        return bool(wait_set.is_ready("subscription", self._index))

    def take_data(self) -> Taken | None:
        """The next message; None: there is none, or it was refused."""
        return self._reader.take()

    async def execute(self, taken: Taken | None) -> None:
        """Hand it on."""
        if taken is not None and (message := self._reader.parse(taken)) is not None:
            self._callback(message)


def _never(message: object) -> None:
    """No executor calls back for messages."""


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


class _Info(ctypes.Structure):
    """rmw_message_info_t: its beginning, and room for the rest."""

    _fields_ = [("sent", ctypes.c_int64), ("received", ctypes.c_int64), ("rest", ctypes.c_uint8 * 112)]


# rclpy has loaded both. CDLL lets go of Python's lock during a call; PyDLL keeps it, for what is short.
_rcl, _rcutils = ctypes.CDLL("librcl.so"), ctypes.PyDLL("librcutils.so")
_rcl.rcl_take_serialized_message.argtypes = [ctypes.c_void_p] * 4
_rcutils.rcutils_get_default_allocator.restype = _Allocator
_rcutils.rcutils_uint8_array_fini.argtypes = [ctypes.c_void_p]
