import contextlib
import functools
import json
import pickle

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xas_agent.adapters.codecs import DecodeError, decode, encode, from_msgpack, to_json, to_msgpack

plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text()
arrays = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.int64, np.uint16, np.bool_]), hnp.array_shapes(max_dims=2)
)
documents = st.dictionaries(
    st.text(),
    st.recursive(plain | arrays, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8),
    max_size=5,
)


def as_lists(value):
    """What JSON makes of a document."""
    if isinstance(value, np.ndarray):
        return as_lists(value.tolist())
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, list) else value


@given(documents)
def test_documents_survive_msgpack(doc):
    np.testing.assert_equal(decode(encode(doc, "msgpack"), "msgpack"), doc)


@given(documents)
def test_documents_survive_json_as_lists(doc):
    np.testing.assert_equal(decode(encode(doc, "json"), "json"), as_lists(doc))


@given(st.floats())
def test_json_keeps_float64_exactly_and_nan(value):
    np.testing.assert_equal(json.loads(to_json(np.array([value]))), [value])


@given(st.binary(max_size=200), st.sampled_from(["msgpack", "json"]))
def test_any_bytes_decode_to_a_document_or_a_decode_error(payload, serializer):
    with contextlib.suppress(DecodeError):
        assert isinstance(decode(payload, serializer), dict)


@given(documents, st.data())
def test_damaged_documents_never_raise_anything_else(doc, data):
    payload = bytearray(encode(doc, "msgpack"))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DecodeError):
        assert isinstance(decode(bytes(payload), "msgpack"), dict)


@pytest.mark.parametrize("payload", [b"[" * 100_000, b"\x91" * 100_000], ids=["json", "msgpack"])
def test_deep_nesting_is_refused(payload):
    with pytest.raises(DecodeError, match="undecodable"):
        decode(payload, "json" if payload[:1] == b"[" else "msgpack")


class Bomb:
    """Sets a mark when it is unpickled."""

    went_off = False

    def __reduce__(self):
        return functools.partial(setattr, Bomb, "went_off", True), ()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_is_refused_unless_allowed(protocol):
    payload = pickle.dumps({"uid": "a"}, protocol=protocol)
    with pytest.raises(DecodeError, match="publisher sends pickle; start it with serializer=msgpack"):
        decode(payload, "msgpack")
    assert decode(payload, "msgpack", allow_pickle=True) == {"uid": "a"}


@pytest.mark.parametrize(
    "descr",
    [
        {b"type": "|O", b"kind": b"O"},
        {b"type": "|O", b"kind": b""},
        {b"type": "|O"},
        {b"type": b"|O"},
        {b"type": "f8,O"},
        {b"type": [["a", "f8"], [["title", "b"], "|O", [2]]]},
        {b"type": [["a", "|O"]], b"kind": b"V"},
        {b"type": [["a", [["b", "|O"]]]], b"kind": b"V"},
    ],
)
@pytest.mark.parametrize("is_array", [True, False])
def test_object_arrays_inside_msgpack_are_refused(descr, is_array):
    array = {b"nd": is_array, b"shape": [1], b"data": pickle.dumps(np.array([Bomb()])), **descr}
    with pytest.raises(DecodeError):
        decode(msgpack.packb({"data": array}), "msgpack")
    assert not Bomb.went_off


@pytest.mark.parametrize("key", [b"\xc4\x02nd", b"\xc5\x00\x02nd", b"\xc6\x00\x00\x00\x02nd"])
def test_object_arrays_are_refused_however_their_key_is_packed(key):
    """A message without this key is unpacked without a look for arrays."""
    array = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": pickle.dumps(np.array([Bomb()]))}
    payload = to_msgpack({"data": array}).replace(b"\xc4\x02nd", key)
    with pytest.raises(DecodeError, match="pickle refused"):
        decode(payload, "msgpack")
    assert not Bomb.went_off


@pytest.mark.parametrize("key", [b"\xc4\x07complex", b"\xc5\x00\x07complex", b"\xc6\x00\x00\x00\x07complex"])
def test_complex_numbers_are_read_however_their_key_is_packed(key):
    payload = to_msgpack({"z": 1 + 2j}).replace(b"\xc4\x07complex", key)
    assert from_msgpack(payload) == {"z": 1 + 2j}


def test_structured_arrays_pass_and_object_arrays_leave_as_lists():
    table = np.array([(1.0, 2)], dtype=[("mu", "f8"), ("n", "i4")])
    assert from_msgpack(to_msgpack(table)) == table
    assert from_msgpack(to_msgpack({"roi": np.array(["Ni1", None], dtype=object)})) == {"roi": ["Ni1", None]}


def test_what_msgpack_numpy_packs_is_understood():
    doc = {"data": {"mu": np.linspace(0, 1, 7), "n": np.int32(3), "flag": np.bool_(True), "z": 1 + 2j}}
    np.testing.assert_equal(from_msgpack(msgpack.packb(doc, default=msgpack_numpy.encode)), doc)


@pytest.mark.parametrize(("payload", "serializer"), [(b"[1]", "json"), (b"\x91\x01", "msgpack"), (b"", "msgpack")])
def test_what_is_not_a_mapping_is_no_document(payload, serializer):
    with pytest.raises(DecodeError, match="undecodable"):
        decode(payload, serializer)
