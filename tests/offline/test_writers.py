import io

import numpy as np
import pytest

from redserve.engine.tensors import TensorSpec
from redserve.errors import BadRequest, ModelError
from redserve.offline.block import Answers
from redserve.offline.failures import JobFailed
from redserve.offline.writers import LineWriter, NpyWriter
from redserve.protocol import PredictJson

F32 = np.dtype(np.float32)
X = TensorSpec("x", F32, ("batch", 2))
Y = TensorSpec("y", F32, ("batch", 2), is_exact=False)
LABEL = TensorSpec("label", np.dtype(np.int64), ("batch",), is_exact=False)
TEXT = TensorSpec("text", np.dtype(object), ("batch",), is_exact=False)
OPEN = TensorSpec("open", F32, ("batch", None), is_exact=False)


def answers(*parts: tuple[list[int], list[np.ndarray]], **failures: Exception) -> Answers:
    return Answers(list(parts), {int(place[1:]): error for place, error in failures.items()})


def test_lines_stand_where_their_rows_stood_whatever_order_they_ran_in():
    writer = LineWriter(PredictJson([X], [Y]), on_error="skip")

    written = writer.encode(
        4,
        answers(
            ([1, 3], [np.float32([[1, 1], [3, 3]])]),
            ([0], [np.float32([[0.1, 0]])]),
            _2=BadRequest("no row", where="$[1]"),
        ),
    )

    assert written.decode().splitlines() == [
        "[0.1,0.0]",
        "[1.0,1.0]",
        '{"error":{"reason":"bad_request","message":"no row","where":"$[1]"}}',
        "[3.0,3.0]",
    ]


def test_an_error_may_be_null():
    assert LineWriter(PredictJson([X], [Y]), on_error="null").encode(1, answers(_0=ModelError("no"))) == b"null\n"


def test_an_answer_that_json_cannot_say_costs_no_neighbour():
    found = answers(([0, 1, 2], [np.float32([[0, 1], [np.nan, 1], [2, 1]])]))

    written = LineWriter(PredictJson([X], [Y]), on_error="null").encode(3, found)

    assert written == b"[0.0,1.0]\nnull\n[2.0,1.0]\n"
    assert {place: str(error) for place, error in found.failures.items()} == {
        1: "output 'y' has a value that is not finite"
    }


def test_an_array_is_written_row_after_row():
    writer = NpyWriter([Y], name=None, rows=5, on_error="null")

    written = writer.encode(3, answers(([2, 0], [np.float32([[2, 2], [0, 0]])]), _1=ModelError("no"))) + writer.encode(
        2, answers(([0, 1], [np.float32([[3, 3], [4, np.inf]])]))
    )

    loaded = np.load(io.BytesIO(written))
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, [[0, 0], [np.nan, np.nan], [2, 2], [3, 3], [4, np.inf]])


def test_an_array_goes_on_behind_what_is_there(tmp_path):
    whole = NpyWriter([Y, LABEL], name="label", rows=3, on_error="stop")
    first, rest = (
        answers((places, [np.zeros((len(places), 2), np.float32), np.int64(places)])) for places in ([0], [0, 1])
    )
    begun = whole.encode(1, first)
    (tmp_path / "y.npy.partial").write_bytes(begun)
    again = NpyWriter([Y, LABEL], name="label", rows=3, on_error="stop")

    again.go_on(tmp_path / "y.npy.partial")

    assert np.load(io.BytesIO(begun + again.encode(2, rest))).tolist() == [0, 0, 1]


def test_the_shape_of_an_array_without_answers_is_the_declared_one():
    failed = answers(_0=ModelError("no"))

    assert np.isnan(np.load(io.BytesIO(NpyWriter([Y], name=None, rows=1, on_error="null").encode(1, failed)))).all()
    with pytest.raises(JobFailed, match="the shape of the array is not known"):
        NpyWriter([OPEN], name=None, rows=1, on_error="null").encode(1, failed)


def test_rows_of_several_shapes_are_no_array():
    writer = NpyWriter([OPEN], name=None, rows=2, on_error="stop")

    with pytest.raises(JobFailed, match=r"rows of \[3\] and of \[2\]"):
        writer.encode(2, answers(([0], [np.zeros((1, 3), np.float32)]), ([1], [np.zeros((1, 2), np.float32)])))


@pytest.mark.parametrize(
    ("outputs", "name", "on_error", "reason"),
    [
        ([Y, LABEL], None, "stop", r"several outputs \(y, label\): choose one"),
        ([Y, LABEL], "z", "stop", "no output 'z'; it has y, label"),
        ([TEXT], None, "stop", "is text"),
        ([Y], None, "skip", "no place for errors"),
        ([LABEL], None, "null", "array of int64 has no place for errors"),
    ],
)
def test_what_one_array_cannot_say_is_refused(outputs, name, on_error, reason):
    with pytest.raises(JobFailed, match=reason):
        NpyWriter(outputs, name=name, rows=1, on_error=on_error)
