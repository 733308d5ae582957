"""tritonclient, which talks to Triton, on `redserve serve`: its synchronous client and its asyncio one."""

import asyncio
import gc

import ml_dtypes
import numpy as np
import pytest
from open_inference_everything import DATATYPES, empty, extremes

from redserve import demo

sync = pytest.importorskip("tritonclient.http", reason="needs redserve[clients]")
aio = pytest.importorskip("tritonclient.http.aio", reason="needs redserve[clients]")

# The aio client does not read the bodies of health, so that aiohttp closes those connections when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")

BINARY_ONLY = {"FP16"}
SAMPLES = demo.samples() * 5


@pytest.fixture(params=[sync, aio], ids=["sync", "aio"])
def client(request):
    """`client(address, method, ...)`: what the method of a client of its own returns."""

    def ask(address, method, *arguments, **options):
        if request.param is sync:
            with sync.InferenceServerClient(address) as opened:
                return getattr(opened, method)(*arguments, **options)

        async def once():
            async with aio.InferenceServerClient(address) as opened:
                return await getattr(opened, method)(*arguments, **options)

        return asyncio.run(once())

    yield ask
    gc.collect()


def input_of(name, array, datatype, *, binary=True):
    given = sync.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def pixels_of(rows, *, binary=True):
    samples = np.array([sample["pixels"] for sample in SAMPLES[:rows]], np.float32)
    return [input_of("pixels", samples, "FP32", binary=binary)]


def text_of(array):
    """Strings come as bytes in binary, as text in JSON."""
    if array.dtype != object:
        return array
    return np.array([[value.decode() if isinstance(value, bytes) else value for value in row] for row in array], object)


def labels_of(rows):
    return [sample["label"] for sample in SAMPLES[:rows]]


def test_it_finds_all_well(client, digits):
    assert client(digits, "is_server_live")
    assert client(digits, "is_server_ready")
    assert client(digits, "is_model_ready", "digits")
    assert client(digits, "is_model_ready", "digits", "1")
    assert not client(digits, "is_model_ready", "digits", "2")
    assert not client(digits, "is_model_ready", "nobody")


def test_it_reads_metadata_configuration_and_index(client, digits):
    server = client(digits, "get_server_metadata")
    model = client(digits, "get_model_metadata", "digits")
    config = client(digits, "get_model_config", "digits", "1")
    index = client(digits, "get_model_repository_index")

    assert server["name"] == "redserve"
    assert model["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}]
    assert [output["name"] for output in model["outputs"]] == ["probabilities", "label"]
    assert config["max_batch_size"] > 1
    assert index == [{"name": "digits", "version": "1", "state": "READY", "reason": ""}]


def test_it_sees_statistics_grow(client, digits):
    def counts():
        (stats,) = client(digits, "get_inference_statistics", "digits")["model_stats"]
        return stats["inference_count"], stats["inference_stats"]["success"]["count"]

    rows, requests = counts()
    client(digits, "infer", "digits", pixels_of(3))

    assert counts() == (rows + 3, requests + 1)


@pytest.mark.parametrize("change", ["load_model", "unload_model"])
def test_it_is_told_that_models_are_fixed(client, digits, change):
    with pytest.raises(Exception, match="loaded or unloaded by") as told:
        client(digits, change, "digits")

    assert told.value.status() == "400"


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("values", [extremes, empty], ids=["extremes", "empty"])
def test_every_datatype_comes_back_as_it_went(client, all_types, binary_in, binary_out, values):
    sent = {name: values(name) for name in DATATYPES}
    inputs = [
        input_of(f"in_{name}", array, name, binary=binary_in or name in BINARY_ONLY) for name, array in sent.items()
    ]
    outputs = [
        sync.InferRequestedOutput(f"out_{name}", binary_data=binary_out or name in BINARY_ONLY) for name in DATATYPES
    ]

    result = client(all_types, "infer", "everything", inputs, outputs=outputs)

    for name, array in sent.items():
        got = text_of(result.as_numpy(f"out_{name}"))
        assert got.dtype == array.dtype, name
        assert got.shape == array.shape, name
        assert got.tolist() == array.tolist(), name


def test_what_is_not_finite_comes_back(client, all_types):
    strange = np.array([[np.nan, np.inf], [-np.inf, -0.0]], np.float32)
    for binary in (True, False):
        inputs = [input_of(f"in_{name}", extremes(name), name) for name in DATATYPES if name != "FP32"] + [
            input_of("in_FP32", strange, "FP32", binary=binary)
        ]
        outputs = [sync.InferRequestedOutput("out_FP32", binary_data=binary)]

        got = client(all_types, "infer", "everything", inputs, outputs=outputs).as_numpy("out_FP32")

        assert np.array_equal(got, strange, equal_nan=True)


def test_bfloat16_comes_back_as_it_went(client, bfloat16):
    sent = np.array([[-3.3895314e38, 3.3895314e38, 0, 1], [0.5, -2, np.inf, 3.09375]], ml_dtypes.bfloat16)
    outputs = [sync.InferRequestedOutput("y", binary_data=True)]

    got = client(bfloat16, "infer", "identity", [input_of("x", sent, "BF16")], outputs=outputs).as_numpy("y")

    assert got.dtype == sent.dtype
    assert np.array_equal(got, sent)


def test_an_input_without_axes_is_served(client, scalar):
    x, factor = np.ones((2, 4), np.float32), np.array(3, np.float32)
    for binary in (True, False):
        inputs = [input_of("x", x, "FP32", binary=binary), input_of("factor", factor, "FP32", binary=binary)]

        assert client(scalar, "infer", "scalar", inputs).as_numpy("y").tolist() == [[3.0] * 4] * 2


def test_the_id_comes_back_and_outputs_as_they_were_asked_for(client, digits):
    outputs = [sync.InferRequestedOutput("label"), sync.InferRequestedOutput("probabilities", binary_data=False)]

    result = client(digits, "infer", "digits", pixels_of(2), request_id="42", outputs=outputs, model_version="1")
    answer = result.get_response()

    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "digits", "1")
    assert [output["name"] for output in answer["outputs"]] == ["label", "probabilities"]
    assert result.as_numpy("label").tolist() == labels_of(2)
    assert result.as_numpy("probabilities").argmax(axis=1).tolist() == labels_of(2)


@pytest.mark.parametrize("binary", [True, False])
def test_the_largest_classes_come_as_text(client, digits, binary):
    outputs = [sync.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)]

    classes = client(digits, "infer", "digits", pixels_of(3), outputs=outputs).as_numpy("probabilities")

    assert classes.shape == (3, 2)
    best = [text_of(np.array([[row[0]]], object))[0, 0].split(":") for row in classes]
    assert [int(index) for _, index in best] == labels_of(3)
    assert all(0.3 < float(value) <= 1 for value, _ in best)


@pytest.mark.parametrize("inward", [None, "gzip", "deflate"])
@pytest.mark.parametrize("outward", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_bodies_are_compressed_both_ways(client, digits, inward, outward, binary):
    outputs = [sync.InferRequestedOutput(name, binary_data=binary) for name in ("probabilities", "label")]
    compression = {"request_compression_algorithm": inward, "response_compression_algorithm": outward}

    result = client(digits, "infer", "digits", pixels_of(50, binary=binary), outputs=outputs, **compression)

    assert result.as_numpy("probabilities").shape == (50, 10)
    assert result.as_numpy("label").tolist() == labels_of(50)


def test_parameters_pass_and_the_timeout_is_kept(client, digits):
    fine = client(digits, "infer", "digits", pixels_of(1), priority=1, timeout=10_000_000, parameters={"mine": "x"})
    with pytest.raises(Exception, match="deadline") as told:
        client(digits, "infer", "digits", pixels_of(1), timeout=1)

    assert fine.as_numpy("label").tolist() == labels_of(1)
    assert told.value.status() == "504"


WRONG = np.zeros((1, 63), np.float32)
MISTAKES = {
    "unknown model": ("nobody", lambda: pixels_of(1), {}, "404", "no model named 'nobody'"),
    "unknown version": ("digits", lambda: pixels_of(1), {"model_version": "9"}, "404", "no version '9'"),
    "wrong shape": ("digits", lambda: [input_of("pixels", WRONG, "FP32")], {}, "400", "64 along axis 1"),
    "wrong datatype": ("digits", lambda: [input_of("pixels", WRONG.astype("f8"), "FP64")], {}, "400", "must be FP32"),
    "wrong name": ("digits", lambda: [input_of("image", WRONG, "FP32")], {}, "400", "missing 'pixels'"),
    "twice": ("digits", lambda: [*pixels_of(1), *pixels_of(1)], {}, "400", "more than once"),
    "wrong output": (
        "digits",
        lambda: pixels_of(1),
        {"outputs": [sync.InferRequestedOutput("nothing")]},
        "400",
        "unexpected output",
    ),
    "shared memory": ("digits", lambda: [shared()], {}, "400", "shared memory"),
}


def shared():
    given = sync.InferInput("pixels", [1, 64], "FP32")
    given.set_shared_memory("region", 256)
    return given


@pytest.mark.parametrize(("model", "inputs", "options", "status", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_in_words_with_its_status(client, digits, model, inputs, options, status, message):
    with pytest.raises(Exception, match=message) as told:
        client(digits, "infer", model, inputs(), **options)

    assert told.value.status() == status


def test_several_requests_at_a_time_of_the_sync_client_keep_their_answers(digits):
    with sync.InferenceServerClient(digits, concurrency=4) as opened:
        pending = [opened.async_infer("digits", pixels_of(rows)) for rows in range(1, 21)]
        answers = [one.get_result().as_numpy("label").tolist() for one in pending]

    assert answers == [labels_of(rows) for rows in range(1, 21)]


def test_many_requests_at_a_time_of_the_aio_client_keep_their_answers(digits):
    async def all_at_once():
        async with aio.InferenceServerClient(digits) as opened:
            return await asyncio.gather(*(opened.infer("digits", pixels_of(rows)) for rows in range(1, 41)))

    answers = asyncio.run(all_at_once())

    assert [answer.as_numpy("label").tolist() for answer in answers] == [labels_of(rows) for rows in range(1, 41)]


def test_a_request_without_json_is_one_row(digits):
    body, _ = sync.InferenceServerClient.generate_request_body(pixels_of(1))
    raw = body[-256:]
    with sync.InferenceServerClient(digits) as opened:
        response = opened._post("v2/models/digits/infer", raw, {"Inference-Header-Content-Length": "0"}, None)
        length = int(response.get("Inference-Header-Content-Length"))
        result = sync.InferResult.from_response_body(response.read(), header_length=length)

    assert result.as_numpy("label").tolist() == labels_of(1)
