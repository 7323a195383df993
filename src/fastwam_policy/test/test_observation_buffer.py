import pytest

from fastwam_msgs.msg import PolicyStatus
from fastwam_policy.runtime.observation_buffer import ObservationBuffer, Snapshot, Waiting
from fastwam_policy.runtime.reasons import PolicyReason, PolicyState

MS = 1_000_000
T = 1_000_000 * MS


@pytest.fixture
def buffer():
    return ObservationBuffer(["head", "wrist"], {"arm": 2}, max_skew=0.05, max_age=0.3)


def fill(buffer, head=T, wrist=T + 10 * MS, arm=T):
    buffer.add_image("head", head, f"head{head}")
    buffer.add_image("wrist", wrist, f"wrist{wrist}")
    for k in range(-20, 20):
        buffer.add_joints("arm", arm + k * 4 * MS, [k, -k])


def test_picks_what_belongs_together(buffer):
    for k in range(4):
        buffer.add_image("head", T + k * 66 * MS, k)
        buffer.add_image("wrist", T + k * 66 * MS + 10 * MS, k)
    fill(buffer, T + 4 * 66 * MS, T + 4 * 66 * MS - 20 * MS, T + 250 * MS)
    found = buffer.sample(T + 300 * MS)
    assert isinstance(found, Snapshot)
    assert found.stamp_ns == T + 4 * 66 * MS - 20 * MS, "the oldest of the newest frames"
    assert found.images["head"][0] == T + 4 * 66 * MS
    assert abs(found.joints["arm"][0] * 4 * MS + T + 250 * MS - found.stamp_ns) <= 2 * MS
    assert buffer.streams["head"].skew_ns == 20 * MS


def test_a_lost_frame_is_replaced_by_its_neighbour_in_time(buffer):
    fill(buffer)
    buffer.add_image("head", T + 66 * MS, "new")
    found = buffer.sample(T + 70 * MS)
    assert (found.stamp_ns, found.images["head"]) == (T + 10 * MS, (T, f"head{T}"))


@pytest.mark.parametrize(
    ("change", "now", "reason", "detail"),
    [
        (lambda b: b.clear(), T, PolicyReason.MISSING_STREAM, "head, wrist, arm"),
        (lambda b: None, T + 400 * MS, PolicyReason.STALE_OBSERVATION, "head is 0.400 s old"),
        (lambda b: b.add_image("head", T + 200 * MS, 1), T + 200 * MS, PolicyReason.SKEWED_STREAMS, "head is"),
    ],
)
def test_waits_with_a_reason(change, now, reason, detail):
    buffer = ObservationBuffer(["head", "wrist"], {"arm": 2}, max_skew=0.05, max_age=0.3)
    if reason == PolicyReason.SKEWED_STREAMS:
        buffer.add_image("wrist", T + 100 * MS, 0)
        buffer.add_joints("arm", T + 100 * MS, [0, 0])
    else:
        fill(buffer)
    change(buffer)
    found = buffer.sample(now)
    assert isinstance(found, Waiting)
    assert found.reason == reason
    assert detail in found.detail


def test_the_same_observation_is_not_used_twice(buffer):
    fill(buffer)
    stamp = buffer.sample(T + 10 * MS).stamp_ns
    assert buffer.sample(T + 12 * MS, newer_than_ns=stamp).reason == PolicyReason.SAME_OBSERVATION


def test_bad_messages_are_refused_and_counted(buffer):
    assert buffer.add_image("head", 0, "x") == PolicyReason.ZERO_STAMP
    assert buffer.add_image("head", T, "x") == PolicyReason.NONE
    assert buffer.add_image("head", T - 1, "x") == PolicyReason.STAMP_WENT_BACK
    for reason in (PolicyReason.TOO_FEW_ENTRIES, PolicyReason.NOT_FINITE, PolicyReason.OTHER_JOINTS):
        buffer.refuse("arm", reason)
    assert buffer.streams["head"].received == 3
    assert buffer.streams["head"].rejected == {PolicyReason.ZERO_STAMP: 1, PolicyReason.STAMP_WENT_BACK: 1}


def test_a_message_from_before_the_clock_went_back_does_not_end_its_stream(buffer):
    """Topics are not ordered among each other: it may come after the jump, and all that follow are older than it."""
    buffer.clear()
    buffer.add_image("wrist", T + 100_000 * MS, "from before")
    fill(buffer)
    assert buffer.streams["wrist"].rejected == {PolicyReason.STAMP_WENT_BACK: 1}
    fill(buffer, T + 66 * MS, T + 76 * MS, T + 66 * MS)
    assert buffer.sample(T + 80 * MS).images["wrist"] == (T + 76 * MS, f"wrist{T + 76 * MS}")


def test_a_discarded_image_is_not_offered_again(buffer):
    fill(buffer)
    buffer.add_image("head", T + 20 * MS, "corrupt")
    buffer.discard("head", T + 20 * MS, PolicyReason.CORRUPT_IMAGE)
    assert buffer.sample(T + 20 * MS).images["head"] == (T, f"head{T}")
    assert buffer.streams["head"].rejected == {PolicyReason.CORRUPT_IMAGE: 1}


def test_numbers_are_those_of_the_message():
    for enum, prefix in ((PolicyState, "STATE_"), (PolicyReason, "REASON_")):
        for member in enum:
            assert getattr(PolicyStatus, prefix + member.name) == member
    assert len({reason.text for reason in PolicyReason}) == len(PolicyReason)
