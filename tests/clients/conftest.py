"""What the tests of real clients share: `redserve serve` processes, each with one model, for the whole session."""

from collections.abc import Iterator

import pytest
from onnx import TensorProto
from open_inference_everything import everything

from end_to_end.served import Served
from engine.onnx_models import identity, scalar_input


@pytest.fixture(scope="session")
def digits() -> Iterator[str]:
    """Host and port of the demo: a row of 64 pixels to 10 probabilities and a label."""
    with Served() as served:
        yield served.url.removeprefix("http://")


@pytest.fixture(scope="session")
def all_types(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a model that gives back an input of each datatype."""
    with Served(str(everything(tmp_path_factory.mktemp("everything")))) as served:
        yield served.url.removeprefix("http://")


@pytest.fixture(scope="session")
def bfloat16(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a model that gives back rows of four bfloat16; ONNX Runtime takes none beside strings."""
    with Served(str(identity(tmp_path_factory.mktemp("bfloat16"), dtype=TensorProto.BFLOAT16))) as served:
        yield served.url.removeprefix("http://")


@pytest.fixture(scope="session")
def scalar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a model with an input without axes."""
    with Served(str(scalar_input(tmp_path_factory.mktemp("scalar")))) as served:
        yield served.url.removeprefix("http://")
