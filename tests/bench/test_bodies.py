from itertools import chain

import httptools
import numpy as np
import orjson
import pytest

from redserve.bench.bodies import Body, of_rows, of_template, of_tensors, path_of, request
from redserve.bench.mistakes import BenchError
from redserve.bench.rows import in_groups, join, read_rows, split
from redserve.engine.samples import Sampler
from redserve.engine.tensors import TensorSpec
from redserve.protocol import OpenInference, PredictJson

PIXELS = TensorSpec("pixels", np.dtype(np.float32), (None, 4))
EVERYTHING = [
    PIXELS,
    TensorSpec("age", np.dtype(np.int64), (None,)),
    TensorSpec("is_new", np.dtype(np.bool_), (None, 2)),
    TensorSpec("name", np.dtype(np.object_), (None, 1)),
    TensorSpec("level", np.dtype(np.uint8), (None, 2, 2)),
]
OUTPUTS = [TensorSpec("y", np.dtype(np.float32), (None,))]


@pytest.mark.parametrize("inputs", [[PIXELS], EVERYTHING], ids=["one input", "every type"])
@pytest.mark.parametrize("form", ["predict", "v2", "v2-binary"])
def test_the_server_reads_the_rows_that_were_made_up(inputs, form):
    tensors = Sampler(inputs, 16, 1).draw(3, seed=5)
    body = of_rows(split(tensors), inputs, form)
    codec = (
        PredictJson(inputs, OUTPUTS)
        if form == "predict"
        else OpenInference(inputs, OUTPUTS, model_name="m", model_version="1")
    )
    length = body.headers.get("Inference-Header-Content-Length", "").encode()

    read = codec.decode(body.content, json_length=length).tensors
    for name, array in tensors.items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("form", ["predict", "v2", "v2-binary"])
def test_the_server_reads_whole_tensors_of_a_model_without_rows(form):
    inputs = [TensorSpec("state", np.dtype(np.float32), (2, 3))]
    tensors = {"state": np.arange(6, dtype=np.float32).reshape(2, 3)}
    body = of_tensors(tensors, form)
    codec = (
        PredictJson(inputs, OUTPUTS, row_wise=False)
        if form == "predict"
        else OpenInference(inputs, OUTPUTS, model_name="m", model_version="1", row_wise=False)
    )
    length = body.headers.get("Inference-Header-Content-Length", "").encode()

    read = codec.decode(body.content, json_length=length).tensors
    np.testing.assert_array_equal(read["state"], tensors["state"])


def test_rows_of_a_file_are_sent_as_they_are(tmp_path):
    lines, array = tmp_path / "rows.jsonl", tmp_path / "x.npy"
    lines.write_text("[1, 2, 3, 4]\n[5, 6, 7, 8]\n")
    np.save(array, np.arange(8, dtype=np.float32).reshape(2, 4))

    assert orjson.loads(of_rows(read_rows(lines), [PIXELS], "predict").content) == {
        "instances": [[1, 2, 3, 4], [5, 6, 7, 8]]
    }
    assert join(read_rows(array), [PIXELS])["pixels"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b"[1]\n{oops\n", "line 2"),
        ("rows.jsonl", b"", "there is no row"),
        ("x.npy", b"not an array", "x.npy"),
    ],
)
def test_a_file_without_rows_says_what_is_wrong_and_where(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BenchError, match=message):
        read_rows(tmp_path / name)
    with pytest.raises(BenchError, match="nothing_here"):
        read_rows(tmp_path / "nothing_here.jsonl")


@pytest.mark.parametrize(
    ("rows", "inputs", "message"),
    [
        ([[1, 2], [3]], [PIXELS], "do not fit input pixels"),
        ([5.0], [PIXELS], "should have 1 dimensions, got 0"),
        ([{"age": 3}], [PIXELS, EVERYTHING[1]], "lacks the input 'pixels'"),
        ([[1, 2, 3, 4]], [PIXELS, EVERYTHING[1]], "an object of pixels, age"),
        ([["a", "b", "c", "d"]], [PIXELS], "do not fit input pixels"),
    ],
)
def test_rows_that_do_not_fit_say_why(rows, inputs, message):
    with pytest.raises(BenchError, match=message):
        of_rows(rows, inputs, "v2")


def test_groups_use_each_row_once_and_fill_the_last_one_from_the_beginning():
    assert list(in_groups([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5, 1]]
    assert list(in_groups([1], 3)) == [[1, 1, 1]]
    assert len(list(chain(*in_groups(range(7), 7)))) == 7


def test_a_template_takes_a_row_or_a_list_of_rows():
    one = of_template('{"text": $row, "price": "$5"}', ['a"b', "c"])
    many = of_template('{"texts": $rows}', [[1], [2]])

    assert orjson.loads(one.content) == {"text": 'a"b', "price": "$5"}
    assert orjson.loads(many.content) == {"texts": [[1], [2]]}
    assert one.headers["Content-Type"] == "application/json"
    assert of_template("plain words", []).headers["Content-Type"].startswith("text/plain")
    with pytest.raises(BenchError, match="--data"):
        of_template("$rows", [])


class Parsed:
    """What an HTTP server sees of a request."""

    def __init__(self, raw: bytes) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.url = b""
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(raw)
        self.method = parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        assert name.lower() not in self.headers
        self.headers[name.lower()] = value

    def on_body(self, part: bytes) -> None:
        self.body += part


def test_a_request_is_whole_and_a_header_of_the_user_takes_the_place_of_ours():
    seen = Parsed(request("POST", "/p?q=1", "host:80", {"content-type": "text/x", "X-Key": "k"}, Body(b"{}")))

    assert (seen.method, seen.url, seen.body) == (b"POST", b"/p?q=1", b"{}")
    assert seen.headers[b"content-type"] == b"text/x"
    assert seen.headers[b"x-key"] == b"k"
    assert seen.headers[b"content-length"] == b"2"
    assert b"content-length" not in Parsed(request("GET", "", "host:80", {}, None)).headers


def test_a_header_cannot_smuggle_another():
    with pytest.raises(BenchError, match="header"):
        request("GET", "/", "h", {"X-A": "1\nX-B: 2"}, None)
    with pytest.raises(BenchError, match="header"):
        request("GET", "/", "h", {"X-A": "1\r\nX-B: 2"}, None)


def test_a_model_is_one_segment_of_the_path():
    assert path_of("a/b c", "predict") == "/predict/a%2Fb%20c"
    assert path_of("m", "v2-binary") == "/v2/models/m/infer"
