import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest

from engine.onnx_models import slow
from puppet_engine import PuppetEngine
from redserve.batching import Answer, BatchPolicy
from redserve.engine.base import Batchability
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.tensors import Array, Tensors
from redserve.errors import (
    BadRequest,
    ModelError,
    ModelLoadError,
    ModelNotReady,
    QueueFull,
    RunTimeout,
    ShuttingDown,
)
from redserve.models import ModelOptions, ModelState, ServedModel


def rows(*values: float) -> Tensors:
    return {"x": np.array([[value, 0] for value in values], np.float32)}


async def ask(model: ServedModel, tensors: Tensors) -> list[Array]:
    answered: asyncio.Future[Answer[list[Array]]] = asyncio.get_running_loop().create_future()
    model.infer(tensors, answered.set_result)
    answer = await answered
    if answer.error is not None:
        raise answer.error
    assert answer.result is not None
    return answer.result


async def ready(engine: PuppetEngine, **options: object) -> ServedModel:
    model = ServedModel("puppet", lambda: engine, options=ModelOptions(**options))  # type: ignore[arg-type]
    await model.load()
    assert model.state is ModelState.READY, model.reason
    return model


async def test_a_model_is_not_ready_before_it_is_loaded():
    model = ServedModel("puppet", PuppetEngine)

    assert model.state is ModelState.LOADING
    with pytest.raises(ModelNotReady, match="loading and warming up"):
        model.infer(rows(1), lambda answer: None)


async def test_a_loaded_model_answers():
    engine = PuppetEngine()
    model = await ready(engine)

    (outputs,) = await ask(model, rows(1, 2))

    assert outputs.tolist() == [[2, 0], [4, 0]]
    await model.drain()
    assert engine.is_closed


async def test_the_loop_goes_on_while_a_model_loads():
    may_load = threading.Event()

    def load() -> PuppetEngine:
        assert may_load.wait(20)
        return PuppetEngine()

    model = ServedModel("puppet", load)
    loading = asyncio.create_task(model.load())
    await asyncio.sleep(0)
    assert model.state is ModelState.LOADING
    may_load.set()
    await loading

    assert model.state is ModelState.READY
    await model.drain()


async def test_a_model_that_is_stopped_while_it_loads_is_closed_when_it_has():
    may_load, engine = threading.Event(), PuppetEngine()

    def load() -> PuppetEngine:
        assert may_load.wait(20)
        return engine

    model = ServedModel("puppet", load)
    loading = asyncio.create_task(model.load())
    await asyncio.sleep(0)
    await model.drain()
    may_load.set()
    await loading

    assert model.state is ModelState.STOPPED
    assert engine.is_closed
    with pytest.raises(ShuttingDown):
        model.infer(rows(1), lambda answer: None)


async def test_every_batch_size_is_warm_before_the_first_request():
    engine = PuppetEngine()
    model = await ready(engine, max_batch_size=5)

    assert set(engine.ran_rows) >= {1, 2, 3, 4, 5}
    assert model.policy.max_batch_size == 5
    assert [point.rows for point in model.curve] == [1, 2, 4]
    await model.drain()


async def test_the_best_measured_batch_size_is_taken_when_none_is_asked_for():
    model = await ready(PuppetEngine())

    assert model.policy.max_batch_size in {point.rows for point in model.curve}
    await model.drain()


async def test_a_model_that_cannot_be_loaded_says_why():
    def load() -> PuppetEngine:
        raise ModelLoadError("no such file: /nowhere")

    model = ServedModel("puppet", load)
    await model.load()

    assert model.state is ModelState.FAILED
    with pytest.raises(ModelNotReady, match="no such file: /nowhere"):
        model.infer(rows(1), lambda answer: None)


async def test_an_unexpected_error_while_loading_is_a_failure_too():
    model = ServedModel("puppet", lambda: PuppetEngine(change=lambda batch: batch / "2"))  # type: ignore[operator]
    await model.load()

    assert model.state is ModelState.FAILED
    assert "UFuncNoLoopError" in model.reason or "TypeError" in model.reason


@pytest.mark.timeout(10)
async def test_a_loader_that_finds_no_file_fails_the_model():
    model = ServedModel("puppet", lambda: next(iter([])))
    await model.load()

    assert model.state is ModelState.FAILED
    assert "StopIteration" in model.reason


async def test_the_example_is_one_row_with_its_answer():
    model = await ready(PuppetEngine())

    assert model.example is not None
    inputs, (output,) = model.example
    assert inputs["x"].shape == (1, 2)
    assert np.array_equal(output, 2 * inputs["x"])
    await model.drain()


async def test_a_request_that_does_not_fit_never_queues():
    engine = PuppetEngine()
    model = await ready(engine)
    before = len(engine.ran_rows)

    with pytest.raises(BadRequest):
        model.infer({"x": np.zeros((1, 3), np.float32)}, lambda answer: None)
    with pytest.raises(BadRequest, match="holds nan"):
        model.infer(rows(np.nan), lambda answer: None)

    assert model.queued_rows == 0
    assert len(engine.ran_rows) == before
    await model.drain()


async def test_rows_that_are_not_finite_pass_where_the_model_allows_them():
    model = await ready(PuppetEngine(), finite=False)

    (outputs,) = await ask(model, rows(np.inf))

    assert np.isinf(outputs[0, 0])
    await model.drain()


async def test_a_bad_row_does_not_cost_its_neighbours_their_answers():
    engine = PuppetEngine()
    model = await ready(engine, max_batch_size=8)
    engine.shut()
    plug = asyncio.create_task(ask(model, rows(0)))
    await asyncio.to_thread(engine.began.wait)
    asked = [asyncio.create_task(ask(model, rows(value))) for value in (1, -1, 3)]
    await asyncio.sleep(0)
    engine.open()

    await plug
    right, wrong, also_right = await asyncio.gather(*asked, return_exceptions=True)

    assert isinstance(wrong, ModelError)
    assert not isinstance(right, BaseException)
    assert not isinstance(also_right, BaseException)
    assert right[0].tolist() == [[2, 0]]
    assert also_right[0].tolist() == [[6, 0]]
    await model.drain()


async def test_a_full_queue_turns_away():
    engine = PuppetEngine()
    model = await ready(engine, max_batch_size=1, policy=BatchPolicy(max_queue_rows=2))
    engine.shut()
    plug = asyncio.create_task(ask(model, rows(0)))
    await asyncio.to_thread(engine.began.wait)
    waiting = [asyncio.create_task(ask(model, rows(value))) for value in (1, 2)]
    await asyncio.sleep(0)

    with pytest.raises(QueueFull):
        model.infer(rows(3), lambda answer: None)
    assert model.queued_rows == 2

    engine.open()
    await asyncio.gather(plug, *waiting)
    await model.drain()


async def test_a_request_larger_than_a_batch_is_split_and_joined():
    engine = PuppetEngine()
    model = await ready(engine, max_batch_size=4)
    engine.ran_rows.clear()

    (outputs,) = await ask(model, rows(*range(10)))

    assert outputs[:, 0].tolist() == [2 * value for value in range(10)]
    assert max(engine.ran_rows) <= 4
    await model.drain()


async def test_a_model_of_one_row_a_run_answers_row_by_row():
    engine = PuppetEngine(Batchability(mode="fixed", rows=1, reason="dimension 0 is 1"))
    model = await ready(engine)

    (outputs,) = await ask(model, rows(1, 2, 3))

    assert outputs[:, 0].tolist() == [2, 4, 6]
    assert set(engine.ran_rows) == {1}
    await model.drain()


async def test_fewer_rows_than_a_fixed_model_runs_can_be_asked_for():
    model = await ready(PuppetEngine(Batchability(mode="fixed", rows=4, reason="dimension 0 is 4")), max_batch_size=2)

    assert model.policy.max_batch_size == 2
    (outputs,) = await ask(model, rows(1, 2, 3))
    assert outputs[:, 0].tolist() == [2, 4, 6]
    await model.drain()


async def test_more_rows_than_a_fixed_model_runs_cannot_be_asked_for():
    engine = PuppetEngine(Batchability(mode="fixed", rows=1, reason="dimension 0 is 1"))
    model = ServedModel("puppet", lambda: engine, options=ModelOptions(max_batch_size=8))
    await model.load()

    assert model.state is ModelState.FAILED
    assert "max_batch_size 8 cannot be kept" in model.reason


async def test_a_run_that_hangs_is_ended_and_its_thread_comes_back(tmp_path: Path):
    def load() -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine.load(slow(tmp_path), device="cpu")

    model = ServedModel("slow", load, options=ModelOptions(max_batch_size=2, max_run_s=0.05))
    await model.load()
    (hung,) = (thread for thread in threading.enumerate() if thread.name == "slow")

    with pytest.raises(RunTimeout):
        await ask(model, {"x": np.full((1, 64), 1e6, np.float32)})
    (output,) = await ask(model, {"x": np.zeros((1, 64), np.float32)})
    hung.join(20)

    assert not hung.is_alive()
    assert output.tolist() == [[0.0] * 64]
    await model.drain()


class Breakable:
    """What a puppet does with its rows, until the test breaks it."""

    is_broken = False

    def __call__(self, batch: Array) -> Array:
        if self.is_broken:
            raise MemoryError("out of memory")
        return 2 * batch


async def fail_until_unhealthy(model: ServedModel, breakable: Breakable) -> None:
    """Three requests fail, then a probe, which begins by itself."""
    became_unhealthy = asyncio.Event()
    model.on_change = lambda changed: became_unhealthy.set()
    breakable.is_broken = True
    for _ in range(3):
        assert model.is_ready
        with pytest.raises(ModelError, match="out of memory"):
            await ask(model, rows(1))
    async with asyncio.timeout(20):
        await became_unhealthy.wait()


async def test_a_model_on_which_everything_fails_is_not_ready_and_still_served():
    breakable = Breakable()
    model = await ready(PuppetEngine(change=breakable))
    await fail_until_unhealthy(model, breakable)

    assert not model.is_ready
    assert model.state is ModelState.READY
    assert model.reason.startswith("the last 4 runs failed, a probe among them: ")
    assert "out of memory" in model.reason
    with pytest.raises(ModelError, match="out of memory"):
        await ask(model, rows(1))
    await model.drain()


async def test_one_request_that_succeeds_makes_it_ready_again():
    breakable = Breakable()
    model = await ready(PuppetEngine(change=breakable))
    await fail_until_unhealthy(model, breakable)

    breakable.is_broken = False
    await ask(model, rows(1))

    assert model.is_ready
    assert model.reason == ""
    await model.drain()


async def test_rows_that_the_model_cannot_bear_do_not_make_it_unhealthy():
    engine = PuppetEngine()
    model = await ready(engine)
    told: list[str] = []
    model.on_change = lambda changed: told.append(changed.reason)
    before = len(engine.ran_rows)

    for _ in range(20):
        with pytest.raises(ModelError, match="begins with -1"):
            await ask(model, rows(-1))

    assert told == []
    assert model.is_ready
    assert len(engine.ran_rows) > before + 20  # a probe, too, has run
    await model.drain()


async def test_a_probe_shares_its_batch_with_nobody():
    engine = PuppetEngine()
    model = await ready(engine, max_batch_size=8)
    engine.shut()
    plug = asyncio.create_task(ask(model, rows(0)))
    await asyncio.to_thread(engine.began.wait)
    before = len(engine.ran_rows)
    asked = [asyncio.create_task(ask(model, rows(-1))) for _ in range(2)]
    await asyncio.sleep(0)
    probed: asyncio.Future[Answer[list[Array]]] = asyncio.get_running_loop().create_future()
    model.probe(probed.set_result)
    engine.open()

    answer = await probed
    await asyncio.gather(plug, *asked, return_exceptions=True)

    assert answer.error is None
    assert answer.batch_rows == 1
    assert 3 not in engine.ran_rows[before:]
    await model.drain()


async def test_a_model_that_is_draining_stays_stopped_whatever_its_last_runs_tell():
    breakable = Breakable()
    engine = PuppetEngine(change=breakable)
    model = await ready(engine, max_batch_size=1)
    breakable.is_broken = True
    engine.shut()
    asked = [asyncio.create_task(ask(model, rows(value))) for value in range(5)]
    await asyncio.to_thread(engine.began.wait)
    draining = asyncio.create_task(model.drain())
    await asyncio.sleep(0)
    engine.open()
    await draining
    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(answer, ModelError) for answer in answers)
    assert (model.state, model.reason) == (ModelState.STOPPED, "stopped")


async def test_a_drained_model_finishes_what_waits_and_takes_no_more():
    engine = PuppetEngine()
    model = await ready(engine, max_batch_size=1)
    engine.shut()
    asked = [asyncio.create_task(ask(model, rows(value))) for value in (1, 2)]
    await asyncio.to_thread(engine.began.wait)

    draining = asyncio.create_task(model.drain())
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDown):
        model.infer(rows(3), lambda answer: None)
    engine.open()
    await draining

    assert [(await answer)[0][0, 0] for answer in asked] == [2, 4]
    assert model.state is ModelState.STOPPED


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="max_batch_size must be >= 1"):
        ModelOptions(max_batch_size=0)
