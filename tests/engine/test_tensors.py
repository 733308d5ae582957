import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from redserve.engine.tensors import (
    TensorSpec,
    check_tensors,
    find_not_finite,
    group_of,
    join_rows,
    size_bytes_of,
    split_rows,
)
from redserve.errors import BadRequest, ModelError

F4, I8, TEXT = np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.object_)
PIXELS = (TensorSpec("pixels", F4, ("batch", 64)),)
TOKENS = (TensorSpec("ids", I8, ("batch", "sequence")), TensorSpec("mask", I8, ("batch", "sequence")))


def refusal(specs, tensors, *, row_wise=True, finite=True):
    with pytest.raises(BadRequest) as caught:
        check_tensors(specs, tensors, row_wise=row_wise, finite=finite)
    return str(caught.value), caught.value.where


def zeros(*shape, dtype=F4):
    return np.zeros(shape, dtype)


def test_a_fitting_request_has_as_many_rows_as_axis_0():
    assert check_tensors(PIXELS, {"pixels": zeros(3, 64)}, row_wise=True, finite=True) == 3


def test_a_request_without_rows_counts_as_one():
    specs = (TensorSpec("state", F4, (2, "batch")),)
    assert check_tensors(specs, {"state": zeros(2, 5)}, row_wise=False, finite=True) == 1


def test_missing_and_unexpected_names_are_both_listed():
    message, where = refusal(TOKENS, {"ids": zeros(1, 8, dtype=I8), "maks": zeros(1, 8, dtype=I8)})
    assert message == "missing 'mask' and unexpected 'maks': the inputs are 'ids', 'mask'"
    assert where is None


def test_a_name_too_many_is_refused():
    message, _ = refusal(PIXELS, {"pixels": zeros(1, 64), "extra": zeros(1)})
    assert message == "unexpected 'extra': the inputs are 'pixels'"


@pytest.mark.parametrize(
    ("dtype", "named"),
    [(">f4", "float32 in foreign byte order"), ("f8", "float64"), ("i8", "int64"), ("U3", "str96"), ("O", "string")],
)
def test_another_dtype_is_refused_and_never_converted(dtype, named):
    message, where = refusal(PIXELS, {"pixels": np.zeros((1, 64)).astype(dtype)})
    assert message == f"input 'pixels' must be float32, got {named}"
    assert where == "pixels"


def test_another_rank_is_refused():
    message, where = refusal(PIXELS, {"pixels": zeros(64)})
    assert message == "input pixels float32 [batch, 64] must have 2 dimensions, got 1 in shape [64]"
    assert where == "pixels"


def test_another_fixed_size_is_refused():
    message, _ = refusal(PIXELS, {"pixels": zeros(1, 63)})
    assert message == "input pixels float32 [batch, 64] must have 64 along axis 1, got 63 in shape [1, 63]"


def test_a_symbol_is_the_same_size_wherever_it_stands():
    message, where = refusal(TOKENS, {"ids": zeros(2, 8, dtype=I8), "mask": zeros(2, 1, dtype=I8)})
    assert "must have 8 along axis 1, as 'sequence' is on axis 1 of 'ids', got 1 in shape [2, 1]" in message
    assert where == "mask"


def test_a_symbol_holds_within_one_input_too():
    square = (TensorSpec("adjacency", F4, ("batch", "nodes", "nodes")),)
    assert check_tensors(square, {"adjacency": zeros(1, 3, 3)}, row_wise=True, finite=True) == 1
    assert "as 'nodes' is on axis 1" in refusal(square, {"adjacency": zeros(1, 3, 4)})[0]


def test_all_inputs_have_equally_many_rows_whatever_their_first_axis_is_called():
    specs = (TensorSpec("a", F4, ("batch", 2)), TensorSpec("b", F4, (None, 2)))
    message, where = refusal(specs, {"a": zeros(2, 2), "b": zeros(1, 2)})
    assert message == "input 'b' has 1 rows, but 'a' has 2"
    assert where == "b"


def test_the_batch_symbol_counts_on_other_axes():
    specs = (TensorSpec("a", F4, ("batch", 2)), TensorSpec("b", F4, (2, "batch")))
    assert "as 'batch' is on axis 0 of 'a'" in refusal(specs, {"a": zeros(3, 2), "b": zeros(2, 1)}, row_wise=False)[0]


def test_no_rows_are_refused():
    assert refusal(PIXELS, {"pixels": zeros(0, 64)}) == ("input 'pixels' has no rows, at least one is needed", "pixels")


def test_rows_may_differ_from_the_batch_that_the_model_fixes():
    fixed = (TensorSpec("x", F4, (4, 2)),)
    assert check_tensors(fixed, {"x": zeros(3, 2)}, row_wise=True, finite=True) == 3
    assert "must have 4 along axis 0" in refusal(fixed, {"x": zeros(3, 2)}, row_wise=False)[0]


def test_a_scalar_has_no_rows():
    assert "got 0 in shape []" in refusal((TensorSpec("rate", F4, ()),), {"rate": zeros()})[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_found_where_it_is(bad):
    pixels = zeros(3, 64)
    pixels[2, 17] = bad
    assert refusal(PIXELS, {"pixels": pixels}) == (f"input 'pixels' holds {bad} at index [2, 17]", "pixels[2][17]")
    assert check_tensors(PIXELS, {"pixels": pixels}, row_wise=True, finite=False) == 3


def test_large_finite_numbers_are_finite():
    assert find_not_finite(np.full((4, 4), np.finfo(np.float32).max, np.float32)) is None


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (None, "not a string but a NoneType"),
        (3, "not a string but a int"),
        (b"a", "not a string but a bytes"),
        ("\ud800", "text with a lone surrogate"),
    ],
)
def test_what_onnx_runtime_would_misread_as_text_is_refused(item, problem):
    specs = (TensorSpec("text", TEXT, ("batch", 2)),)
    message, where = refusal(specs, {"text": np.array([["a", "b"], ["c", item]], dtype=object)})
    assert message == f"input 'text' holds {problem} at index [1, 1]"
    assert where == "text[1][1]"


def test_text_in_any_script_passes():
    specs = (TensorSpec("text", TEXT, ("batch",)),)
    assert check_tensors(specs, {"text": np.array(["é", "数", "\0", ""], object)}, row_wise=True, finite=True) == 4


shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
dtypes = st.sampled_from(["f2", "f4", "f8", ">f4", "i8", "u1", "?", "O", "U2", "c8", "M8[s]"])
arrays = st.builds(lambda shape, dtype: np.zeros(shape, dtype), shapes, dtypes) | hnp.arrays("f4", shapes)
spec_sizes = st.one_of(st.none(), st.integers(0, 4), st.sampled_from(["batch", "n"]))
specs = st.builds(
    TensorSpec,
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from([F4, I8, TEXT]),
    st.lists(spec_sizes, max_size=4).map(tuple),
)


@settings(deadline=None)
@given(
    st.lists(specs, max_size=3, unique_by=lambda spec: spec.name),
    st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), arrays, max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_whatever_is_sent_is_either_fit_or_a_bad_request(specs, tensors, row_wise, finite):
    try:
        rows = check_tensors(specs, tensors, row_wise=row_wise, finite=finite)
    except BadRequest:
        return
    assert rows >= 1
    assert set(tensors) == {spec.name for spec in specs}
    assert all(tensors[spec.name].dtype == spec.dtype for spec in specs)


def test_requests_share_a_batch_when_all_sizes_behind_the_rows_agree():
    assert group_of({"x": zeros(1, 8)}) == group_of({"x": zeros(3, 8)})
    assert group_of({"x": zeros(1, 8)}) != group_of({"x": zeros(1, 9)})


def test_the_order_of_names_makes_no_group_of_its_own():
    a, b = zeros(1, 2), zeros(1, 3)
    assert group_of({"a": a, "b": b}) == group_of({"b": b, "a": a})
    assert group_of({"a": a, "b": b}) != group_of({"a": b, "b": a})


def test_a_request_weighs_all_its_arrays():
    assert size_bytes_of({"a": zeros(2, 8), "b": zeros(2, dtype=I8)}) == 80


def test_text_counts_with_its_characters():
    assert size_bytes_of({"a": np.array(["x" * 1000, ""], object)}) > 1000


def test_a_split_request_joins_to_itself():
    x = np.arange(14, dtype=F4).reshape(7, 2)
    parts = split_rows({"x": x}, 3)
    assert [rows for _, rows in parts] == [3, 3, 1]
    np.testing.assert_array_equal(join_rows([[part["x"]] for part, _ in parts])[0], x)


def test_parts_are_views():
    x = zeros(4, 2)
    assert all(np.shares_memory(part["x"], x) for part, _ in split_rows({"x": x}, 2))


def test_parts_of_different_shapes_cannot_be_joined():
    with pytest.raises(ModelError, match="do not fit together"):
        join_rows([[zeros(1, 2)], [zeros(1, 3)]])


@pytest.mark.parametrize(
    ("onnx_type", "dtype"),
    [("tensor(float16)", "f2"), ("tensor(double)", "f8"), ("tensor(uint8)", "u1"), ("tensor(bool)", "?")],
)
def test_onnx_types_have_their_numpy_dtype(onnx_type, dtype):
    assert TensorSpec.from_onnx("x", onnx_type, [1]).dtype == np.dtype(dtype)


@pytest.mark.parametrize("onnx_type", ["tensor(complex64)", "seq(map(int64,tensor(float)))", "tensor(float8e4m3fn)"])
def test_types_without_a_numpy_dtype_are_refused_by_name(onnx_type):
    with pytest.raises(ValueError, match="only these can be served") as caught:
        TensorSpec.from_onnx("x", onnx_type, [])
    assert onnx_type in str(caught.value)
    assert ("zipmap" in str(caught.value)) is ("map" in onnx_type)


def test_sizes_without_a_name_of_their_own_are_anonymous():
    assert TensorSpec.from_onnx("x", "tensor(float)", ["?", "", None, -1, "n", 3]).shape == (*[None] * 4, "n", 3)


def test_a_spec_reads_like_a_declaration():
    assert str(TensorSpec("x", TEXT, ("batch", None, 3))) == "x string [batch, ?, 3]"
