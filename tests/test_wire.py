"""Messages between driver and workers."""

import tempfile
from typing import IO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ebbtide.training.wire import receive, send
from effort import examples

ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint32, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
NAMES = st.text(max_size=8).filter(lambda name: name != "__array__")
MESSAGES = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS | ARRAYS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def stream_of(*messages, data: bytes = b"") -> IO[bytes]:
    """A file that holds these messages, or these bytes, ready to be read."""
    stream = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    for message in messages:
        send(stream, message)
    stream.write(data)
    stream.seek(0)
    return stream


def same(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(max_examples=examples(quick=60, thorough=600))
@given(st.lists(MESSAGES, min_size=1, max_size=3))
def test_messages_arrive_as_they_were_sent_and_in_order(messages):
    with stream_of(*messages) as stream:
        for message in messages:
            assert same(message, receive(stream))
        assert receive(stream) is None


@settings(max_examples=examples(quick=60, thorough=600))
@given(MESSAGES, st.data())
def test_a_message_cut_short_is_no_message(message, data):
    with stream_of(message) as stream:
        whole = stream.read()
    with stream_of(data=whole[: data.draw(st.integers(0, len(whole) - 1))]) as stream:
        assert receive(stream) is None


def test_nan_and_strided_arrays_arrive_bit_for_bit():
    payload = np.array([[np.nan, -0.0, np.inf], [1e-40, 2, 3]], np.float32)
    sent = {"whole": payload, "turned": payload.T, "every other": payload[:, ::2]}
    with stream_of(sent) as stream:
        assert same(sent, receive(stream))


@pytest.mark.parametrize("thing", [object(), {1}.__iter__(), lambda: 0])
def test_nothing_but_data_can_be_sent(thing):
    with tempfile.TemporaryFile() as stream, pytest.raises(TypeError, match="cannot send"):
        send(stream, {"x": thing})
