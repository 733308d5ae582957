"""Whether the inputs and outputs of a session are bound, and how.

bfloat16 ─> RawBinding     on a GPU, or asked for ─> DeviceBuffers     text, and on the CPU ─> None: passed to `run`
"""

from collections.abc import Sequence
from typing import Any

from redserve.engine.arena import ArenaWatch
from redserve.engine.bfloat16 import is_bfloat16
from redserve.engine.device_buffers import Copies, DeviceBuffers
from redserve.engine.raw_binding import RawBinding
from redserve.engine.tensors import TensorSpec
from redserve.errors import ModelLoadError


def choose_binding(
    ort: Any,
    session: Any,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    is_wanted: bool,
    device: tuple[str, int],
    copies: Copies,
    arena: ArenaWatch | None,
) -> RawBinding | DeviceBuffers | None:
    """What runs the session in place of `run`.

    Args:
        ort: The module `onnxruntime`.
        session: To run.
        inputs: What it takes.
        outputs: What it answers.
        is_wanted: Whether to bind where it is a matter of choice.
        device: `cuda` or `cpu`, and which.
        copies: How inputs get there.
        arena: See `DeviceBuffers`.

    Raises:
        ModelLoadError: It can neither be bound nor not be bound.
    """
    dtypes = [spec.dtype for spec in (*inputs, *outputs)]
    has_text = any(dtype.kind == "O" for dtype in dtypes)
    if any(map(is_bfloat16, dtypes)):
        if has_text:
            raise ModelLoadError("ONNX Runtime takes no bfloat16 beside strings")
        return RawBinding(ort, session, inputs, outputs)
    if has_text or not is_wanted:
        return None
    return DeviceBuffers(ort, session, inputs, outputs, device=device, copies=copies, arena=arena)
