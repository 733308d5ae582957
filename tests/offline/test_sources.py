import hashlib
import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from redserve.engine.tensors import TensorSpec, check_tensors
from redserve.offline import sources
from redserve.offline.block import Block
from redserve.offline.failures import JobFailed
from redserve.offline.sources import JsonLines, NpyRows
from redserve.protocol import PredictJson

X = TensorSpec("x", np.dtype(np.float32), ("batch", 2))
TOKENS = TensorSpec("ids", np.dtype(np.int64), ("batch", "length"))


def lines(text: bytes, *, spec: TensorSpec = X, max_batch_size: int = 4) -> JsonLines:
    check = partial(check_tensors, [spec], row_wise=True, finite=True)
    codec = PredictJson([spec], [spec])
    return JsonLines(io.BytesIO(text), codec, check, max_batch_size=max_batch_size, size_bytes=len(text))


def array(path: Path, rows: np.ndarray, *, spec: TensorSpec = X, max_batch_size: int = 4) -> NpyRows:
    np.save(path, rows)
    check = partial(check_tensors, [spec], row_wise=True, finite=True)
    return NpyRows(path, spec, check, max_batch_size=max_batch_size)


def values_of(blocks: list[Block]) -> list[object]:
    """The rows of all blocks, in their order; the text of an error in the place of one."""
    values: list[object] = []
    for block in blocks:
        found: dict[int, object] = {place: str(error) for place, error in block.failures.items()}
        for group in block.groups:
            (tensor,) = group.tensors.values()
            found |= dict(zip(group.places, tensor.tolist(), strict=True))
        assert sorted(found) == list(range(block.rows))
        values += [found[place] for place in range(block.rows)]
    return values


def test_each_line_is_a_row_and_a_mark_says_how_far_they_were_read():
    text = b"".join(b"[%d, 1]\n" % row for row in range(600))

    blocks = list(lines(text))

    assert [block.rows for block in blocks] == [256, 256, 88]
    assert values_of(blocks) == [[row, 1] for row in range(600)]
    assert blocks[-1].end.rows == 600
    assert blocks[-1].end.size_bytes == len(text)
    assert blocks[-1].end.sha256 == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize(
    ("line", "message", "where"),
    [
        (b"[1, true]", "Expected `float`, got `bool`", "$[1]"),
        (b"[1]", "must have 2 along axis 1", "$"),
        (b"[1, 1e39]", "1e+39 does not fit float32", "$[1]"),
        (b'{"x": [1, null]}', "Expected `float`, got `null`", "$.x[1]"),
        (b'{"x": [1, 1e39]}', "1e+39 does not fit float32", "$.x[1]"),
        (b"[1, 2], [3, 4]", "the line is not valid JSON", None),
        (b"[1, 2", "the line is not valid JSON", None),
        (b"", "the line is not valid JSON", None),
        (b"\xff", "the line is not valid JSON", None),
    ],
)
def test_a_line_that_is_no_row_fails_alone_and_says_where(line, message, where):
    (block,) = lines(b"[1, 2]\n" + line + b"\n[3, 4]")

    (place, error), *others = block.failures.items()
    assert place == 1
    assert not others
    assert message in str(error)
    assert error.where == where
    assert values_of([block])[::2] == [[1, 2], [3, 4]]


def test_rows_of_different_lengths_stand_beside_each_other():
    blocks = list(lines(b"[1, 2]\n[3]\n[4, 5]\n[6]\n", spec=TOKENS))

    assert [list(group.places) for group in blocks[0].groups] == [[0, 2], [1, 3]]
    assert values_of(blocks) == [[1, 2], [3], [4, 5], [6]]


def test_large_rows_make_small_blocks_of_full_batches(monkeypatch):
    wide = TensorSpec("x", np.dtype(np.int64), ("batch", "width"))
    row = json.dumps([1] * 400_000).encode() + b"\n"  # 1.2 MB

    blocks = list(lines(row * 10, spec=wide, max_batch_size=3))

    assert [block.rows for block in blocks] == [6, 4]


def test_a_line_without_an_end_is_not_kept_in_memory(monkeypatch):
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(sources, "PIECE_BYTES", 50)
    text = b"[1, 2]\n" + b"[" * 5000 + b"\n[3, 4]\n" + b"[" * 101

    (block,) = lines(text)

    assert values_of([block])[0] == [1, 2]
    assert values_of([block])[2] == [3, 4]
    assert {str(block.failures[place]) for place in (1, 3)} == {"the line is longer than 100 bytes"}
    assert block.end.size_bytes == len(text)


def test_lines_go_on_behind_a_mark_where_what_is_before_it_is_the_same():
    text = b"".join(b"[%d, 1]\n" % row for row in range(600))
    first, *rest = lines(text)
    corrected = text.replace(b"[599, 1]", b"[0, 0]") + b"[7, 7]\n"
    again = lines(corrected)

    again.skip(first.end)

    blocks = list(again)
    assert values_of(blocks) == [*values_of(rest)[:-1], [0, 0], [7, 7]]
    assert blocks[-1].end.sha256 == hashlib.sha256(corrected).hexdigest()


@pytest.mark.parametrize("change", [lambda text: text.replace(b"[3, 1]", b"[3, 2]"), lambda text: text[:100]])
def test_another_input_is_refused(change):
    text = b"".join(b"[%d, 1]\n" % row for row in range(600))
    first, *_ = lines(text)

    with pytest.raises(JobFailed, match="first 256 rows of the input are not those that were done"):
        lines(change(text)).skip(first.end)


@pytest.mark.parametrize("layout", [np.asarray, np.asfortranarray, lambda rows: rows.astype(">f4")])
def test_the_rows_of_an_array_come_in_the_machine_s_order(tmp_path, layout):
    rows = np.arange(1200, dtype=np.float32).reshape(600, 2)

    source = array(tmp_path / "x.npy", layout(rows))
    blocks = list(source)

    assert source.rows == 600
    assert [block.rows for block in blocks] == [256, 256, 88]
    assert values_of(blocks) == rows.tolist()
    tensor = blocks[0].groups[0].tensors["x"]
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    again = array(tmp_path / "x.npy", layout(rows))
    again.skip(blocks[0].end)
    assert values_of(list(again)) == rows[256:].tolist()


def test_a_row_of_an_array_that_is_not_finite_fails_alone(tmp_path):
    rows = np.ones((5, 2), np.float32)
    rows[3, 1] = np.nan

    (block,) = array(tmp_path / "x.npy", rows)

    assert [list(group.places) for group in block.groups] == [[0, 1, 2, 4]]
    assert "holds nan" in str(block.failures[3])


@pytest.mark.parametrize("change", [lambda rows: rows[:-1], lambda rows: rows + (rows == 3)])
def test_another_array_is_refused(tmp_path, change):
    rows = np.arange(1200, dtype=np.float32).reshape(600, 2)
    first, *_ = array(tmp_path / "x.npy", rows)

    with pytest.raises(JobFailed, match="not those that were done"):
        array(tmp_path / "x.npy", change(rows)).skip(first.end)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (np.ones((2, 2)), "must be float32, and .* holds float64: convert it first"),
        (np.ones((0, 2), np.float32), "has no rows"),
        (np.float32(1), "has no rows"),
        (np.array([[None]]), "cannot be mapped|can't be memory-mapped|objects"),
    ],
)
def test_an_array_that_is_none_of_the_model_is_refused(tmp_path, rows, reason):
    with pytest.raises(JobFailed, match=reason):
        array(tmp_path / "x.npy", rows)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no array at all", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_array_is_refused(tmp_path, content):
    path = tmp_path / "x.npy"
    path.write_bytes(content)

    with pytest.raises(JobFailed):
        NpyRows(path, X, lambda tensors: 1, max_batch_size=4)


def test_an_array_that_was_cut_off_is_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((100, 2), np.float32))
    path.write_bytes(path.read_bytes()[:-8])

    with pytest.raises(JobFailed, match="mapped"):
        NpyRows(path, X, lambda tensors: 1, max_batch_size=4)
