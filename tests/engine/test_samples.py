"""Inputs that are made up."""

import numpy as np
import pytest

from redserve.engine.samples import Sampler
from redserve.engine.tensors import TensorSpec


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, object])
@pytest.mark.parametrize("shape", [(), ("batch",), ("batch", 2), (0, 2)])
@pytest.mark.parametrize("scale", [1.0, 100.0, -100.0])
def test_they_are_arrays_of_the_declared_type_and_rank(dtype, shape, scale):
    drawn = Sampler([TensorSpec("x", np.dtype(dtype), shape)], 3, 1).draw(3, scale=scale)["x"]

    assert isinstance(drawn, np.ndarray)
    assert drawn.dtype == dtype
    assert drawn.ndim == len(shape)


def test_floats_are_scaled_and_texts_are_others_where_they_are_to_be_very_different():
    specs = [TensorSpec("x", np.dtype(np.float32), ("batch", 2)), TensorSpec("t", np.dtype(object), ("batch", 2))]
    usual, extreme = (Sampler(specs, 3, 1).draw(3, scale=scale) for scale in (1.0, -100.0))

    assert extreme["x"] == pytest.approx(-100 * usual["x"])
    assert set(usual["t"].ravel()) == {"text"}
    assert len({*extreme["t"].ravel(), "text"}) == 7
