"""The classification extension: the largest values of an output as text, `value:index` or `value:index:label`.

Source: `triton-inference-server/server: docs/protocol/extension_classification.md`. Triton writes six decimals; here a
value has as many digits as tell it from its neighbours.
"""

import math
from collections.abc import Sequence

import numpy as np

from redserve.engine.tensors import Array


def largest_classes(output: Array, classes: int, *, labels: Sequence[str], row_wise: bool) -> Array:
    """The `classes` largest values of each row, or of the whole output, largest first; fewer where there are fewer.

    Equal values keep their order, and NaN comes last.

    Args:
        output: Numbers.
        classes: How many; at least 1.
        labels: Of the indices; those behind its end have none.
        row_wise: Axis 0 counts rows; an index counts the values within a row.

    Returns:
        Strings, in shape `(rows, classes)` or `(classes,)`.
    """
    if output.dtype.kind == "b":
        output = output.view(np.uint8)
    by_row = row_wise and output.ndim > 0
    rows = output.reshape(len(output), math.prod(output.shape[1:])) if by_row else output.reshape(1, output.size)
    most = min(classes, rows.shape[1])
    texts = np.empty((len(rows), most), np.object_)
    for row, text in zip(rows, texts, strict=True):
        order = np.where(np.isnan(row), -np.inf, row) if row.dtype.kind not in "iu" else row
        from_last = np.argsort(order[::-1], kind="stable")[::-1]
        for place, index in enumerate((len(row) - 1 - from_last[:most]).tolist()):
            label = f":{labels[index]}" if index < len(labels) else ""
            text[place] = f"{row[index]!s}:{index}{label}"
    return texts if by_row else texts[0]
