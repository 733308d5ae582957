"""pydantic-open-inference, which makes typed classes of a model's inputs and outputs, on `redserve serve`."""

from typing import NamedTuple

import pytest

from redserve import demo

poi = pytest.importorskip("pydantic_open_inference", reason="needs redserve[clients]")

Row = NamedTuple("Row", [(f"pixel_{index}", float) for index in range(64)])
SAMPLES = demo.samples()[:3]


class Pixels(poi.InputsBaseModel):
    """What the demo takes."""

    pixels: list[Row]


class Label(poi.OutputsBaseModel):
    """One of its outputs."""

    label: list[int]


class Image(poi.InputsBaseModel):
    """What it does not take."""

    image: list[float]


def remote(address, inputs=Pixels, **options):
    return poi.RemoteModel(
        model_name="digits", inputs_model=inputs, outputs_model=Label, server_url=f"http://{address}", **options
    )


@pytest.mark.parametrize("version", [None, "1"])
def test_rows_come_back_as_labels(digits, version):
    model = remote(digits, model_version=version)

    model.validate()
    assert model.is_ready()
    answer = model.infer(Pixels(pixels=[sample["pixels"] for sample in SAMPLES]))

    assert answer.label == [sample["label"] for sample in SAMPLES]


def test_a_mistake_has_its_status(digits):
    assert not remote(digits, model_version="2").is_ready()
    with pytest.raises(poi.IncompatibleTensorError):
        remote(digits, Image).validate()
    with pytest.raises(poi.BadStatusCodeFromServerError) as told:
        remote(digits, Image).infer(Image(image=[1.0]))
    assert told.value.status_code == 400
