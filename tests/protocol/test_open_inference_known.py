"""A head that was read before says what it said then; each case is read by a codec that knows it, and by a new one."""

import numpy as np
import pytest
from open_inference_models import AGE, DTYPES, F32, TEXT, X, Y, binary_x, body_of, codec_of, decode_with_tail, tensor

from redserve.engine.tensors import TensorSpec
from redserve.errors import BadRequest
from redserve.protocol.messages import Asked, AskedOutput, InferRequest
from redserve.protocol.open_inference_known import KnownHeads

ROW = np.array([1, np.nan], F32).tobytes()
OTHER = np.array([3, 4], F32).tobytes()
AGE_JSON = {"name": "age", "shape": [1], "datatype": "INT8", "data": [7]}
AGE_BINARY = {"name": "age", "shape": [1], "datatype": "INT8", "parameters": {"binary_data_size": 1}}
TEXT_BINARY = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}
FLAG = {"name": "x", "shape": [2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}}
NOTHING = {"name": "age", "shape": [0], "datatype": "INT8", "data": []}

CASES = {
    "one input": ([X], body_of(binary_x(8)), ROW, OTHER),
    "too few bytes": ([X], body_of(binary_x(8)), ROW, OTHER[:-1]),
    "too many bytes": ([X], body_of(binary_x(8)), ROW, OTHER + b"0"),
    "no bytes": ([X], body_of(binary_x(8)), ROW, b""),
    "two inputs, in another order": ([X, AGE], body_of(AGE_BINARY, binary_x(8)), b"\x05" + ROW, b"\x06" + OTHER),
    "one of two in JSON": ([X, AGE], body_of(AGE_JSON, binary_x(8)), ROW, OTHER),
    "one of two is empty, in JSON": ([X, AGE], body_of(NOTHING, binary_x(8)), ROW, OTHER),
    "strings": ([X, TEXT], body_of(TEXT_BINARY, binary_x(8)), b"\1\0\0\0a" + ROW, b"\1\0\0\0b" + OTHER),
    "booleans": ([TensorSpec("x", DTYPES["BOOL"], (None,))], body_of(FLAG), b"\0\1", b"\1\1"),
    "no booleans": ([TensorSpec("x", DTYPES["BOOL"], (None,))], body_of(FLAG), b"\0\1", b"\1\2"),
    "an output that is asked for": ([X], body_of(binary_x(8), outputs=[{"name": "y"}]), ROW, OTHER),
    "binary outputs": ([X], body_of(binary_x(8), parameters={"binary_data_output": True}), ROW, OTHER),
    "a timeout": ([X], body_of(binary_x(8), parameters={"timeout": 2_000_000}), ROW, OTHER),
    "an id": ([X], body_of(binary_x(8), id="mine"), ROW, OTHER),
}


def said(codec, head, tail):
    """What a codec makes of a request, in words that can be compared."""
    try:
        request = decode_with_tail(codec, head, tail)
    except BadRequest as error:
        return str(error), error.where
    tensors = [(name, str(each.dtype), each.shape, each.tolist()) for name, each in request.tensors.items()]
    return repr(tensors), request.form, request.timeout_s


@pytest.mark.parametrize("case", CASES)
def test_it_says_the_same_as_to_one_who_reads_it(case):
    inputs, head, before, tail = CASES[case]
    knowing = codec_of(inputs)

    first = said(knowing, head, before)

    assert said(knowing, head, tail) == said(codec_of(inputs), head, tail)
    assert said(knowing, head, before) == first == said(codec_of(inputs), head, before)


def test_the_numbers_are_a_view_of_their_own_body():
    codec = codec_of()
    head = body_of(binary_x(8))
    bodies = [head + ROW, head + OTHER]

    requests = [codec.decode(body, json_length=str(len(head)).encode()) for body in bodies]

    for body, request in zip(bodies, requests, strict=True):
        assert np.shares_memory(request.tensors["x"], np.frombuffer(body, np.uint8))
    assert [request.tensors["x"].tolist() for request in requests[1:]] == [[[3, 4]]]


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "BYTES"])
def test_every_datatype_is_read_again_as_it_was(dtype):
    codec, size_bytes = tensor(dtype, (None,)), 2 * DTYPES[dtype].itemsize
    head = body_of({"name": "x", "shape": [2], "datatype": dtype, "parameters": {"binary_data_size": size_bytes}},
                   parameters={"binary_data_output": True})  # fmt: skip
    tail = np.array([1, 0], DTYPES[dtype]).tobytes()

    first, second = (decode_with_tail(codec, head, tail).tensors["x"] for _ in range(2))

    assert first.dtype == second.dtype == DTYPES[dtype]
    assert first.tobytes() == second.tobytes() == tail


def remembered(*, request_id="", dtype="FP32", size_bytes=8):
    """Whether a head is kept that goes with a request for two values."""
    heads = KnownHeads([X])
    asked = Asked((AskedOutput(0, True),), request_id)
    values = np.zeros((1, 2), DTYPES[dtype])
    heads.remember(b"head", InferRequest({"x": values}, asked), asked, size_bytes=size_bytes)
    return heads.get(b"head", size_bytes=size_bytes) is not None


def test_only_heads_are_kept_that_may_come_again_and_say_all_but_the_numbers():
    assert remembered()
    assert not remembered(request_id="mine")
    assert not remembered(dtype="BYTES", size_bytes=16)
    assert not remembered(size_bytes=0)  # its values are in the JSON


def test_few_heads_are_kept():
    heads = KnownHeads([X])
    asked = Asked((AskedOutput(0, True),))
    texts = [b"%d" % number for number in range(1_000)]
    for text in texts:
        heads.remember(text, InferRequest({"x": np.zeros((1, 2), F32)}, asked), asked, size_bytes=8)

    kept = [text for text in texts if heads.get(text, size_bytes=8)]

    assert 0 < len(kept) <= 64
    assert kept[-1] == texts[-1]


def test_a_long_head_is_read_each_time():
    long = body_of(binary_x(8), parameters={"note": "x" * 2_000})
    codec = codec_of([X], [Y])

    assert said(codec, long, ROW) == said(codec, long, ROW) == said(codec_of(), long, ROW)
    assert codec._known.get(long, size_bytes=8) is None
    said(codec, body_of(binary_x(8)), ROW)
    assert codec._known.get(body_of(binary_x(8)), size_bytes=8) is not None
