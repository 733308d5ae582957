import asyncio
import threading

import numpy as np
import pytest

from engine.onnx_models import only_64_columns, picky, token_sum
from puppet_engine import PuppetEngine
from redserve.batching import Answer
from redserve.engine.base import Batchability
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.tensors import Array
from redserve.errors import ModelError, ModelLoadError
from redserve.models import ModelOptions, ModelState, ServedModel
from redserve.models.prepare import prepare

ROW = {"x": np.ones((1, 2), np.float32)}


class Puppets:
    """Makes an engine for each instance."""

    def __init__(self) -> None:
        self.made: list[PuppetEngine] = []

    def __call__(self) -> PuppetEngine:
        self.made.append(PuppetEngine())
        return self.made[-1]


async def ready(puppets: Puppets, instances: int) -> ServedModel:
    model = ServedModel("puppet", puppets, options=ModelOptions(instances=instances, max_batch_size=2))
    await model.load()
    assert model.state is ModelState.READY, model.reason
    return model


def ask(model: ServedModel) -> asyncio.Future[Answer[list[Array]]]:
    answered: asyncio.Future[Answer[list[Array]]] = asyncio.get_running_loop().create_future()
    model.infer(ROW, answered.set_result)
    return answered


async def test_batches_run_side_by_side_from_one_queue():
    puppets = Puppets()
    model = await ready(puppets, 2)
    first, second = puppets.made
    for engine in puppets.made:
        engine.shut()

    answers = [ask(model) for _ in range(4)]  # two batches of two
    has_begun = [await asyncio.to_thread(engine.began.wait, 20) for engine in (first, second)]

    assert has_begun == [True, True]
    for engine in puppets.made:
        engine.open()
    results = [(await answer).result for answer in answers]
    assert all(result is not None and result[0].tolist() == [[2, 2]] for result in results)
    await model.drain()
    assert all(engine.is_closed for engine in puppets.made)


async def test_every_instance_is_warm_at_every_size_before_the_first_request():
    puppets = Puppets()
    model = await ready(puppets, 3)

    assert len(puppets.made) == 3
    assert all({1, 2} <= set(engine.ran_rows) for engine in puppets.made)
    await model.drain()


async def test_a_model_of_which_one_instance_fails_to_load_fails():
    puppets = Puppets()

    def load() -> PuppetEngine:
        if puppets.made:
            raise ModelLoadError("no memory is left")
        return puppets()

    model = ServedModel("puppet", load, options=ModelOptions(instances=2))
    await model.load()

    assert (model.state, model.reason) == (ModelState.FAILED, "no memory is left")


def test_instances_are_counted_from_1():
    with pytest.raises(ValueError, match="instances must be >= 1, got 0"):
        ModelOptions(instances=0)


def test_a_sample_is_what_a_model_is_tried_with(tmp_path):
    engine = OnnxRuntimeEngine.load(token_sum(tmp_path), device="cpu")

    prepared = prepare(lambda: engine, ModelOptions(sample={"ids": [[5, 6, 7]]}, max_batch_size=2))

    assert prepared.example is not None
    row, outputs = prepared.example
    assert row["ids"].dtype == np.int64
    assert outputs[0].tolist() == [18]


def test_a_model_that_no_made_up_input_runs_on_is_warmed_up_with_its_sample(tmp_path):
    engine = OnnxRuntimeEngine.load(picky(tmp_path), device="cpu")
    assert prepare(lambda: engine).example is None

    prepared = prepare(lambda: engine, ModelOptions(sample={"x": [[1] * 11] * 7}))

    assert prepared.example is not None
    assert prepared.example[1][0].shape == (7, 11)


def test_a_sample_warms_up_every_batch_size():
    class Choosy(PuppetEngine):
        """Runs on nothing that is made up."""

        def run(self, tensors):
            if (tensors["x"] != 7).any():
                raise ModelError("that is no seven")
            return super().run(tensors)

    engine = Choosy(Batchability(mode="dynamic", reason="said so"))

    prepare(lambda: engine, ModelOptions(sample={"x": [[7, 7]]}, max_batch_size=3))

    assert engine.ran_rows == [3, 2, 1, 1], "each size, and the example"


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"y": [[1] * 64]}, "sample: "),
        ({"x": [[1] * 64], "y": [[1]]}, "sample: there is no input y"),
        ({"x": [["a"] * 64]}, "sample: could not convert"),
        ({"x": [[1] * 64] * 2}, "sample: one row is wanted, not 2"),
    ],
)
def test_a_sample_that_does_not_fit_the_model_is_refused(tmp_path, sample, message):
    engine = OnnxRuntimeEngine.load(only_64_columns(tmp_path), device="cpu")

    with pytest.raises(ModelLoadError, match=message):
        prepare(lambda: engine, ModelOptions(sample=sample))


def test_labels_of_an_output_that_the_model_lacks_are_refused():
    with pytest.raises(ModelLoadError, match="labels: the model has no output 'z'; it has y"):
        prepare(PuppetEngine, ModelOptions(labels={"z": ["a"]}))


async def test_batches_are_padded_where_asked_and_every_size_is_warm():
    puppets = Puppets()
    options = ModelOptions(max_batch_size=6, batch_buckets="on")
    model = ServedModel("puppet", puppets, options=options)
    await model.load()
    (engine,) = puppets.made
    assert model.policy.batch_sizes == (1, 2, 4, 6)
    assert [point.rows for point in model.curve] == [1, 2, 4, 6][: len(model.curve)]
    assert {1, 2, 4, 6} <= set(engine.ran_rows)
    before = len(engine.ran_rows)

    answered: asyncio.Future[Answer[list[Array]]] = asyncio.get_running_loop().create_future()
    model.infer({"x": np.ones((3, 2), np.float32)}, answered.set_result)
    answer = await answered

    assert answer.result is not None
    assert answer.result[0].tolist() == [[2, 2]] * 3
    assert engine.ran_rows[before:] == [4]
    await model.drain()


async def test_without_being_asked_nothing_is_padded_on_the_cpu():
    puppets = Puppets()
    model = await ready(puppets, 1)
    assert model.policy.batch_sizes == ()
    await model.drain()


async def test_an_engine_with_two_slots_has_two_batches_in_progress():
    puppets = Puppets()
    model = ServedModel("puppet", puppets, options=ModelOptions(slots=2, max_batch_size=1))
    await model.load()
    (engine,) = puppets.made
    assert model.runs_at_once == 2
    gate = threading.Barrier(3)
    real_run = engine.run

    def run_together(tensors):
        gate.wait(20)  # passes only where two are in progress, and the test knows
        return real_run(tensors)

    engine.run = run_together
    answers = [ask(model) for _ in range(2)]
    await asyncio.to_thread(gate.wait, 20)
    assert [(await answer).error for answer in answers] == [None, None]
    await model.drain()


async def test_what_the_engine_says_of_its_slots_counts_where_nothing_is_asked():
    class TwoSlots(PuppetEngine):
        slots = 2

    for asked, runs in ((None, 2), (1, 1), (3, 3)):
        model = ServedModel("puppet", TwoSlots, options=ModelOptions(slots=asked, max_batch_size=1))
        await model.load()
        assert model.runs_at_once == runs
        await model.drain()


def test_both_slots_are_warm_before_the_first_request():
    threads = set()

    class Noted(PuppetEngine):
        def run(self, tensors):
            threads.add((threading.get_ident(), len(tensors["x"])))
            return super().run(tensors)

    prepare(Noted, ModelOptions(slots=2, max_batch_size=4, batch_buckets="on"))
    others = {thread for thread, _ in threads} - {threading.get_ident()}
    assert len(others) == 2
    assert {(thread, rows) for thread in others for rows in (1, 2, 4)} <= threads
