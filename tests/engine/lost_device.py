"""A device that is lost in the middle of a run, which only hardware can bring about: everything else is real."""

from typing import Any

from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

from redserve.engine.onnx_runtime import OnnxRuntimeEngine

WHAT_IT_SAYS = "CUDA failure 719: unspecified launch failure"


class LostDevice:
    """In place of what an `InferenceSession` calls: each run fails as its provider has failed."""

    def __init__(self, native: Any) -> None:
        self._native = native

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    def run(self, *_: object) -> None:
        raise EPFail(WHAT_IT_SAYS)

    def run_with_iobinding(self, *_: object) -> None:
        raise EPFail(WHAT_IT_SAYS)


def lose_device(engine: OnnxRuntimeEngine) -> LostDevice:
    """From now on every run of `engine` fails."""
    session = engine._session
    session._sess = LostDevice(session._sess)
    return session._sess
