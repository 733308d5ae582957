"""A served model whose requests of different lengths share a batch."""

import asyncio

import numpy as np
import pytest

from engine.onnx_models import attention, token_sum
from redserve.engine.lengths import LengthBuckets
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.errors import BadRequest, ModelLoadError
from redserve.models import ModelOptions, ModelState, ServedModel
from redserve.models.prepare import try_out

OPTIONS = ModelOptions(max_batch_size=8, lengths=LengthBuckets(sizes=(4, 8)))


@pytest.fixture
def engine(tmp_path):
    return OnnxRuntimeEngine.load(attention(tmp_path / "model.onnx"), device="cpu")


@pytest.fixture
def sums(tmp_path):
    return OnnxRuntimeEngine.load(token_sum(tmp_path), device="cpu")


def text(*ids, rows=1):
    tokens = np.array([ids] * rows, np.int64)
    return {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}


async def served(engine, options=OPTIONS):
    model = ServedModel("text", lambda: engine, options=options)
    await model.load()
    assert model.state is ModelState.READY, model.reason
    return model


def ask(model, request):
    answered = asyncio.get_running_loop().create_future()
    model.infer(request, answered.set_result)
    return answered


async def test_requests_of_one_bucket_run_together_and_each_has_the_answer_to_its_own(engine):
    model = await served(engine)
    requests = [text(7, 2, 5), text(4, 4, 1, 6), text(9), text(1, 2, 3, 4, 5)]
    alone = [engine.run(request) for request in requests]

    answers = await asyncio.gather(*(ask(model, request) for request in requests))

    assert [answer.batch_rows for answer in answers] == [3, 3, 3, 1]
    for answer, outputs in zip(answers, alone, strict=True):
        assert [one.shape for one in answer.result] == [two.shape for two in outputs]
        for one, two in zip(answer.result, outputs, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)
    await model.drain()


async def test_without_buckets_only_equal_lengths_run_together(engine):
    model = await served(engine, ModelOptions(max_batch_size=8))

    answers = await asyncio.gather(*(ask(model, text(*ids)) for ids in ([7, 2], [4, 4], [9])))

    assert [answer.batch_rows for answer in answers] == [2, 2, 1]
    assert model.padding == ()
    await model.drain()


async def test_a_request_of_more_rows_than_a_batch_is_split_padded_and_joined(engine):
    model = await served(engine, ModelOptions(max_batch_size=2, lengths=OPTIONS.lengths))
    many, one = text(7, 2, 5, rows=3), text(1, 2, 3, 4)

    split, other = await asyncio.gather(ask(model, many), ask(model, one))

    np.testing.assert_allclose(split.result[0], engine.run(many)[0], atol=1e-6)
    np.testing.assert_allclose(other.result[0], engine.run(one)[0], atol=1e-6)
    await model.drain()


async def test_inputs_of_two_lengths_never_queue(engine, tmp_path):
    model = await served(engine)

    with pytest.raises(BadRequest, match="along axis 1"):
        ask(model, text(1, 2, 3) | {"attention_mask": np.ones((1, 2), np.int64)})
    await model.drain()


async def test_what_padding_costs_is_known_once_it_is_loaded(engine):
    model = await served(engine)

    assert [(cost.shortest, cost.longest, cost.batch_rows) for cost in model.padding] == [(2, 4, 8), (5, 8, 8)]
    assert all(cost.batch_s > 0 and cost.shortest_alone_s > 0 and cost.longest_alone_s > 0 for cost in model.padding)
    await model.drain()


async def test_a_model_that_cannot_be_padded_fails_to_load_and_says_why(sums):
    model = ServedModel("sums", lambda: sums, options=OPTIONS)

    await model.load()

    assert model.state is ModelState.FAILED
    assert model.reason.startswith(
        "length_buckets: the model has no input 'attention_mask' that could say what is padding; it has ids"
    )


def test_a_model_that_cannot_be_padded_is_found_out_by_a_check(sums):
    with pytest.raises(ModelLoadError, match="length_buckets: the model has no input"):
        try_out(lambda: sums, OPTIONS)


def test_the_sample_is_what_padding_is_tried_with(engine):
    sample = {"input_ids": [[31, 30, 29]], "attention_mask": [[1, 1, 1]]}
    seen, run = [], engine.run

    def watched(tensors):
        seen.append(set(np.unique(tensors["input_ids"])))
        return run(tensors)

    engine.run = watched
    try_out(lambda: engine, ModelOptions(lengths=OPTIONS.lengths, sample=sample))

    assert {29, 30} <= set.union(*seen)
    assert set.union(*seen) <= {0, 29, 30, 31}
