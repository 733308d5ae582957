"""What comes from callers, of other types than our own: the same whether redserve is compiled or not."""

import asyncio
import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from batching.fakes import Inbox
from redserve.batching import Batcher, BatchObserver, BatchPolicy, BatchRecorder, BatchReport
from redserve.metrics.cells import Gauge, Histogram


async def test_integers_of_numpy_count_rows_and_bytes():
    inbox = Inbox()
    async with Batcher(list, policy=BatchPolicy(max_batch_size=4)) as batcher:
        for slot, rows in enumerate([np.int64(2), np.int32(2), np.uint8(1)]):
            batcher.submit("x", inbox.slot(slot), rows=rows, size_bytes=np.int64(8))
        await inbox.wait(3)
        assert await batcher("more", rows=np.int64(1)) == "more"
        assert not batcher.is_stalled

    assert [type(answer.batch_rows) for answer in inbox.answers.values()] == [int] * 3


@pytest.mark.parametrize("rows", [1.5, "1", None])
async def test_what_is_no_integer_counts_no_rows(rows: Any):
    async with Batcher(list) as batcher:
        with pytest.raises(TypeError):
            await batcher("x", rows=rows)
        assert await batcher("y") == "y"


@pytest.mark.parametrize(
    "split",
    [
        lambda payload, size: [[payload[:size], size], [payload[size:], 1]],
        lambda payload, size: ((payload[:size], np.int64(size)), (payload[size:], np.int64(1))),
        lambda payload, size: iter([(payload[:size], size), (payload[size:], 1)]),
    ],
    ids=["lists", "integers of numpy", "an iterator"],
)
async def test_a_split_gives_its_parts_in_any_form(split: Any):
    async with Batcher(list, policy=BatchPolicy(max_batch_size=2), split=split, join="".join) as batcher:
        assert await batcher("abc", rows=3) == "abc"


async def test_a_batcher_may_be_the_function_of_another_one():
    async with Batcher(list) as inner, Batcher(inner) as outer:
        assert await asyncio.gather(outer(1), outer(2)) == [1, 2]


async def test_an_observer_may_derive_from_the_shapes_that_it_has_to_have():
    reports: list[BatchReport] = []

    class Recorder(BatchRecorder):
        def record(self, report: BatchReport, /) -> None:
            reports.append(report)

    class Observer(BatchObserver):
        def watch(self, name: str, version: str, depth: Callable[[], int], limit: int, /) -> BatchRecorder:
            return Recorder()

    async with Batcher(list, observer=Observer()) as batcher:
        await batcher(1)

    assert [report.rows for report in reports] == [1]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one)), replace])
@pytest.mark.parametrize("one", [BatchPolicy(max_batch_size=3), BatchReport(3, "idle", [0.1], 0.2, has_failed=False)])
def test_policies_and_reports_can_be_copied_and_sent_to_another_process(again: Callable[[Any], Any], one: Any):
    assert again(one) == one


def test_the_numbers_of_a_policy_may_be_of_numpy_and_its_sizes_any_sequence():
    policy = BatchPolicy(
        max_batch_size=np.int64(8),
        max_queue_rows=np.int32(64),
        max_queue_delay_s=np.float32(0.5),
        slo_s=np.float32(0.25),
        linger=np.bool_(False),
        batch_sizes=np.array([4, 8]),
    )

    assert policy == BatchPolicy(
        max_batch_size=8, max_queue_rows=64, max_queue_delay_s=0.5, slo_s=0.25, linger=False, batch_sizes=(4, 8)
    )
    assert type(policy.max_batch_size) is int
    assert BatchPolicy(max_batch_size=8, batch_sizes=[4, 8]).batch_sizes == (4, 8)
    with pytest.raises(TypeError):
        BatchPolicy(max_batch_size=8.0)


@pytest.mark.parametrize(("read", "value"), [(np.int64(3), 3), (np.float32(2.5), 2.5), (True, 1)])
def test_a_gauge_may_read_numbers_of_numpy(read, value):
    gauge = Gauge("g", "Depth.")
    gauge.watch(lambda: read)
    gauge.watch(lambda: 1)

    assert gauge.metric(gauge.copy()).samples[0].value == value + 1


def test_observations_may_be_an_array_of_numpy():
    histogram = Histogram("h", "Seconds.", bounds=[1.0, 2.0])
    histogram.observe_all(histogram.series(), np.array([0.5, 1.5, 3.0], np.float32))

    assert histogram.copy()[0][1] == [1, 1, 1, 5.0]
