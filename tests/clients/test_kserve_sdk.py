"""The KServe SDK's REST client on `redserve serve`."""

import asyncio

import numpy as np
import pytest

from redserve import demo

kserve = pytest.importorskip("kserve", reason="needs redserve[clients]")

SAMPLES = demo.samples()[:3]


def ask(address, method, *arguments, **options):
    """What a method of a client of its own returns."""

    async def once():
        client = kserve.InferenceRESTClient(kserve.inference_client.RESTConfig(protocol="v2"))
        try:
            return await getattr(client, method)(f"http://{address}", *arguments, **options)
        finally:
            await client.close()

    return asyncio.run(once())


def request_of(pixels, *, binary, outputs=()):
    pixels = np.array(pixels, np.float32)
    given = kserve.InferInput("pixels", list(pixels.shape), "FP32")
    given.set_data_from_numpy(pixels, binary_data=binary)
    asked = [kserve.protocol.infer_type.RequestedOutput(name, {"binary_data": binary}) for name in outputs]
    return kserve.InferRequest("digits", [given], request_id="7", request_outputs=asked or None)


def test_it_finds_all_well(digits):
    assert ask(digits, "is_server_live") is True
    assert ask(digits, "is_server_ready") is True
    assert ask(digits, "is_model_ready", "digits") is True
    assert ask(digits, "is_model_ready", "nobody") is False


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("outputs", [(), ("label",), ("label", "probabilities")], ids=["all", "one", "both"])
def test_rows_come_back_as_labels(digits, binary, outputs):
    request = request_of([sample["pixels"] for sample in SAMPLES], binary=binary, outputs=outputs)

    answer = ask(digits, "infer", request, model_name="digits")

    assert (answer.id, answer.model_name) == ("7", "digits")
    assert [output.name for output in answer.outputs] == list(outputs or ("probabilities", "label"))
    (label,) = (output for output in answer.outputs if output.name == "label")
    assert label.as_numpy().tolist() == [sample["label"] for sample in SAMPLES]


def test_a_mistake_is_told_in_words(digits):
    with pytest.raises(Exception, match="64 along axis 1"):
        ask(digits, "infer", request_of([[0.0] * 63], binary=False), model_name="digits")
    with pytest.raises(Exception, match="no model named 'nobody'"):
        ask(digits, "infer", request_of([[0.0] * 64], binary=True), model_name="nobody")
