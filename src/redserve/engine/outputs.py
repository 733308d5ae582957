"""What an engine answered: is it what it promised? Else nobody gets any of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from redserve.engine.tensors import Array, TensorSpec, dtype_name
from redserve.errors import ModelError, WrongResultCount


def check_outputs(specs: Sequence[TensorSpec], outputs: Any, *, rows: int | None) -> list[Array]:
    """Check one run's answer.

    Args:
        specs: The model's outputs.
        outputs: What `Engine.run` returned.
        rows: Of the run, which axis 0 of every output has to count; `None` where the model has no rows.

    Returns:
        The arrays; a single numpy number is one without axes.

    Raises:
        WrongResultCount: Axis 0 of an output is not the rows.
        ModelError: These are not the arrays that `specs` promise: their number, a dtype, a shape.
    """
    if not isinstance(outputs, (list, tuple)) or len(outputs) != len(specs):
        got = len(outputs) if isinstance(outputs, (list, tuple)) else f"a {type(outputs).__name__}"
        raise ModelError(f"the model has {len(specs)} outputs, and a run answered with {got}")
    arrays = [np.asarray(output) if isinstance(output, np.generic) else output for output in outputs]
    for spec, output in zip(specs, arrays, strict=True):
        if not isinstance(output, np.ndarray):
            raise ModelError(f"output {spec.name!r} is no array but a {type(output).__name__}")
        if output.dtype != spec.dtype:
            wanted, got = dtype_name(spec.dtype), dtype_name(output.dtype)
            raise ModelError(f"output {spec.name!r} must be {wanted}, and a run answered with {got}")
        if rows is not None:
            got_rows = output.shape[0] if output.ndim else 1
            if not output.ndim or got_rows != rows:
                raise WrongResultCount(expected=rows, got=got_rows)
        if spec.is_exact and not _fits(spec.shape, output.shape, skip=rows is not None):
            raise ModelError(f"output {spec} cannot have the shape {list(output.shape)}")
    return arrays


def _fits(promised: Sequence[int | str | None], shape: Sequence[int], *, skip: bool) -> bool:
    """Whether all fixed sizes are kept; but for axis 0 where it counts rows."""
    if len(promised) != len(shape):
        return False
    pairs = list(zip(promised, shape, strict=True))[1 if skip else 0 :]
    return all(size == wanted for wanted, size in pairs if isinstance(wanted, int))
