"""A provider that fails in the middle of a run costs that run, and no other provider answers in its place."""

import numpy as np
import onnx_models as models
import onnxruntime
import pytest
from lost_device import WHAT_IT_SAYS, lose_device, make_losable

from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.errors import ModelError

ROW = {"x": np.ones((1, 4), np.float32)}


@pytest.mark.parametrize("io_binding", [False, True])
def test_a_run_whose_provider_fails_is_an_error_and_the_session_stays_what_it_was(
    io_binding, tmp_path, monkeypatch, capfd
):
    make_losable(monkeypatch)
    engine = OnnxRuntimeEngine.load(models.row_encoding(tmp_path), device="cpu", io_binding=io_binding)
    assert engine.run(ROW)[0].tolist() == [[3] * 4]
    session, lost = engine._session, lose_device(engine._session)

    for _ in range(2):
        with pytest.raises(ModelError, match=WHAT_IT_SAYS):
            engine.run(ROW)

    assert engine._session is session
    assert session._sess is lost, "ONNX Runtime puts another one there when it falls back"
    assert capfd.readouterr() == ("", "")


def test_onnx_runtime_by_itself_would_answer_from_another_session(tmp_path, monkeypatch, capfd):
    make_losable(monkeypatch)
    session = onnxruntime.InferenceSession(models.row_encoding(tmp_path), providers=["CPUExecutionProvider"])
    lost = lose_device(session)

    assert session.run(None, ROW)[0].tolist() == [[3] * 4]
    assert session._sess is not lost
    assert "Falling back" in capfd.readouterr().out
