"""A device that is lost in the middle of a run, which only hardware can bring about: everything else is real."""

from typing import Any

import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as native

WHAT_IT_SAYS = "CUDA failure 719: unspecified launch failure"


class LosableSession(native.InferenceSession):  # type: ignore[misc]
    """What an `onnxruntime.InferenceSession` runs on; once `is_lost`, each run fails as its provider has failed."""

    is_lost = False

    def run(self, *given: Any) -> Any:
        """As ever, or not."""
        self._check()
        return super().run(*given)

    def run_with_iobinding(self, *given: Any) -> Any:
        """As ever, or not."""
        self._check()
        return super().run_with_iobinding(*given)

    def _check(self) -> None:
        if self.is_lost:
            raise native.EPFail(WHAT_IT_SAYS)


def make_losable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that are made from now on can lose their device."""
    monkeypatch.setattr("onnxruntime.capi.onnxruntime_inference_collection.C.InferenceSession", LosableSession)


def lose_device(session: Any) -> LosableSession:
    """Every run of this `onnxruntime.InferenceSession` fails from now on; what it runs on."""
    session._sess.is_lost = True
    lost: LosableSession = session._sess
    return lost
