"""Arrays in the messages of policy servers: they travel unchanged, and whatever comes is a value or a ValueError."""

import json
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fastwam_policy.policies.remote.arrays import MAX_DEPTH, MAX_ITEMS, pack, unpack

DIALECTS = ("openpi", "msgpack_numpy", "gr00t", "json_numpy")
NUMBERS = arrays.arrays(
    st.sampled_from(["u1", "i8", "<f4", ">f8", "?", "f2"]), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0)
)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=9)


def same(found, sent):
    if isinstance(sent, np.ndarray):
        found = np.asarray(found)
        return found.shape == sent.shape and found.tobytes() == sent.astype(found.dtype).tobytes()
    if isinstance(sent, dict):
        return found.keys() == sent.keys() and all(same(found[key], value) for key, value in sent.items())
    if isinstance(sent, list):
        return len(found) == len(sent) and all(map(same, found, sent))
    return found == sent or not np.isfinite(sent)


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_is_sent_arrives(dialect, data):
    finite = PLAIN.filter(lambda value: not isinstance(value, float) or np.isfinite(value))
    value = data.draw(
        st.dictionaries(st.sampled_from("abcdef"), finite | NUMBERS | st.lists(finite | NUMBERS, max_size=3))
    )
    found = unpack(pack(value, dialect), dialect)
    assert same(found, value)


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_bytes_are_a_value_or_refused_in_a_line(dialect, data):
    good = pack(
        {"actions": np.arange(6.0).reshape(2, 3), "text": "x", "list": [1, {"state": np.ones(2, "f4")}]}, dialect
    )
    at = data.draw(st.integers(0, len(good) - 1))
    damaged = good[:at] + data.draw(st.binary(max_size=4)) + good[at + data.draw(st.integers(0, 4)) :]
    for message in (damaged, data.draw(st.binary(max_size=40))):
        why = ""
        try:
            unpack(message, dialect)
        except ValueError as error:
            why = str(error)
        assert len(why.splitlines()) <= 1


def mark(**changed):
    return msgpack.packb({"a": {"__ndarray__": True, "data": bytes(8), "dtype": "<f8", "shape": [1]} | changed})


def npy(header, data=bytes(8)):
    head = header.encode()
    file = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data
    return msgpack.packb({"a": {"__ndarray_class__": True, "as_npy": file}})


REFUSED = {
    "3 GB announced": ("openpi", b"\xc6\xc0\x00\x00\x00", "5 bytes, its values take 3221225477"),
    "a list of 4 billion": ("openpi", b"\xdd\xff\xff\xff\xff", "more than 65536 values"),
    "lists of lists": ("openpi", b"\xdc\xff\x00" * 40, "nested more than"),
    "deep": ("openpi", b"\x91" * 100, f"nested more than {MAX_DEPTH} deep"),
    "empty dicts": ("openpi", b"\xdc\xff\xff" + b"\x80" * 2 * MAX_ITEMS, "its values take"),
    "an extension": ("openpi", msgpack.packb(msgpack.ExtType(1, b"x")), "byte 0xd4 begins nothing"),
    "more than one value": ("openpi", b"\x01\x01", "2 bytes, its values take 1"),
    "nothing": ("openpi", b"", "0 bytes are not all of it"),
    "objects": ("openpi", mark(dtype="|O"), "a: not an array: numbers of type '|O' are not taken"),
    "records": ("openpi", mark(dtype="i4,i4"), "are not taken"),
    "complex": ("openpi", mark(dtype="<c16"), "are not taken"),
    "texts of no letters": ("openpi", mark(dtype="<U0", shape=[2**30]), "are not taken"),
    "texts that are none": ("openpi", mark(dtype="<U1", data=b"\xff" * 4), "not an array"),
    "10 TB": ("openpi", mark(shape=[10**12]), r"has a length that is none|is 80000"),
    "a bit more than came": ("openpi", mark(shape=[2]), r"<f8 \[2\] is 16 bytes, got 8 bytes"),
    "below 0": ("openpi", mark(shape=[-1, -1]), "has a length that is none"),
    "shape no list": ("openpi", mark(shape=1), "is not a list of up to 8 lengths"),
    "data a text": ("openpi", mark(data="x" * 8), "got a str"),
    "nothing, but long": ("openpi", mark(data=b"", shape=[0] + [2**31 - 1] * 7), "not an array"),
    "pickled": (
        "msgpack_numpy",
        msgpack.packb({"nd": True, "type": "|O", "kind": b"O", "shape": [1], "data": b"cos\n"}),
        "kind",
    ),
    "without data": ("msgpack_numpy", msgpack.packb({"nd": True, "type": "<f8", "shape": [1]}), "lacks 'data'"),
    ".npy of objects": ("gr00t", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"), "are not taken"),
    ".npy that computes": (
        "gr00t",
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (9**99,), }\n"),
        "not a .npy",
    ),
    ".npy cut off": ("gr00t", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }\n"), "is 16 bytes, got 8"),
    ".npy of 3 bytes": ("gr00t", msgpack.packb({"__ndarray_class__": True, "as_npy": b"abc"}), "cut off"),
    "no JSON": ("json_numpy", b"{", "not JSON"),
    "deep JSON": ("json_numpy", b"[" * 50_000, "not JSON|nested"),
    "JSON of many": ("json_numpy", b"[" + b"{}," * 2**17 + b"{}]", "more than 65536 values"),
    "base64": ("json_numpy", json.dumps({"__numpy__": "?", "dtype": "<f8", "shape": [1]}).encode(), "base64"),
}


@pytest.mark.parametrize(("dialect", "data", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_costs_no_memory(dialect, data, message):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as refused:
            unpack(data, dialect)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 300


def test_a_message_may_be_of_a_size_only():
    with pytest.raises(ValueError, match="a message of 101 bytes, at most 100 are taken"):
        unpack(bytes(101), "openpi", max_bytes=100)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("value", [object(), np.array([None]), np.array([1j]), np.zeros(1, "i4,i4")])
def test_what_cannot_be_sent(dialect, value):
    with pytest.raises(ValueError, match="cannot be sent"):
        pack(value, dialect)


def test_the_forms_are_those_of_the_projects():
    """As openpi-client, the package msgpack_numpy, GR00T's server and json_numpy write them."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    data = array.tobytes()
    assert msgpack.unpackb(pack(array, "openpi")) == {
        b"__ndarray__": True, b"data": data, b"dtype": "<f4", b"shape": [2, 3]
    }  # fmt: skip
    assert msgpack.unpackb(pack(array, "msgpack_numpy")) == {
        b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [2, 3], b"data": data
    }  # fmt: skip
    assert msgpack.unpackb(pack(array, "gr00t"))["as_npy"].endswith(data)
    assert json.loads(pack(array, "json_numpy"))["dtype"] == "<f4"
    scalar = {b"__npgeneric__": True, b"data": 0.5, b"dtype": "<f4"}
    assert unpack(msgpack.packb({"x": scalar}), "openpi") == {"x": 0.5}
    by_column = np.asfortranarray(array)
    np.testing.assert_array_equal(unpack(pack(by_column, "gr00t"), "gr00t"), array)
    texts = np.array(["fold", "it"])
    np.testing.assert_array_equal(unpack(pack(texts, "gr00t"), "gr00t"), texts)
