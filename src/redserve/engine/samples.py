"""Inputs made up for a model that nobody has sent anything yet: for the probe, the curve and the warm-up.

Sizes that the model leaves open behind axis 0 are guessed: likely ones are tried until a run succeeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from redserve.engine.bfloat16 import is_float
from redserve.engine.tensors import Array, Tensors, TensorSpec
from redserve.errors import ModelError

_SEQUENCE_SIZES = (16, 32, 64, 128, 256, 512, 8, 4, 2, 1)
_IMAGE_SIZES = (224, 64, 32, 48, 128, 256, 512, 16, 1)
_IMAGE_RANK = 4


@dataclass(frozen=True)
class Sampler:
    """Draws inputs that the model runs on.

    Attributes:
        inputs: The model's inputs.
        open_size: Stands for every size the model leaves open, but rows.
        largest_integer: Integers are drawn from 0 up to it; small ones are valid tokens, flags and masks alike.
    """

    inputs: Sequence[TensorSpec]
    open_size: int
    largest_integer: int

    def draw(self, rows: int, *, seed: int = 0, scale: float = 1.0) -> dict[str, Array]:
        """One array per input: floats in [0, 1), small integers, the word "text".

        Args:
            rows: Size of axis 0 where the model leaves it open, and of the same symbol on any other axis.
            seed: Other values for another seed.
            scale: Of the floats; where it is not 1, each text is another.
        """
        random = np.random.default_rng(seed)
        row_symbols = {spec.shape[0] for spec in self.inputs if spec.shape and isinstance(spec.shape[0], str)}
        drawn: dict[str, Array] = {}
        for spec in self.inputs:
            shape = tuple(
                size if isinstance(size, int) else rows if axis == 0 or size in row_symbols else self.open_size
                for axis, size in enumerate(spec.shape)
            )
            drawn[spec.name] = self._values(spec, shape, random, scale)
        return drawn

    def _values(self, spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator, scale: float) -> Array:
        if is_float(spec.dtype):
            return np.asarray(scale * random.random(shape, np.float32)).astype(spec.dtype, copy=False)  # a scalar, too
        if spec.dtype.kind == "O":
            count = int(np.prod(shape))
            texts = ["text"] * count if scale == 1.0 else [f"{number} of {scale:g}" for number in range(count)]
            return np.array(texts, dtype=object).reshape(shape)
        return random.integers(0, self.largest_integer, shape, endpoint=True).astype(spec.dtype)


def find_sampler(run: Callable[[Tensors], object], inputs: Sequence[TensorSpec], *, rows: int = 1) -> Sampler:
    """Try sizes and values until `run` takes them.

    Raises:
        ModelError: It took none; this is its last refusal.
    """
    if not any(isinstance(size, str) or size is None for spec in inputs for size in spec.shape[1:]):
        sizes: Sequence[int] = (1,)
    elif any(len(spec.shape) >= _IMAGE_RANK for spec in inputs):
        sizes = _IMAGE_SIZES
    else:
        sizes = _SEQUENCE_SIZES
    refusal = "the model was not run"
    for open_size in sizes:
        for largest_integer in (1, 0):
            sampler = Sampler(inputs, open_size, largest_integer)
            try:
                run(sampler.draw(rows))
            except ModelError as error:
                refusal = str(error)  # not itself: its traceback would keep the session for long after it is closed
            else:
                return sampler
    raise ModelError(refusal)
