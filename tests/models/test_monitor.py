import asyncio
from dataclasses import dataclass, field

from batching.fakes import RecordingObserver
from batching.virtual_time import run
from redserve.batching import Answer, BatchReport
from redserve.errors import ModelError, QueueFull
from redserve.models.monitor import MAX_ERROR_CHARACTERS, Monitor

FAILED = BatchReport(rows=1, why="idle", waits_s=(0.0,), compute_s=0.1, has_failed=True)
FINE = BatchReport(rows=1, why="idle", waits_s=(0.0,), compute_s=0.1, has_failed=False)


@dataclass
class Model:
    """Runs its probes as the test says, and notes when; `monitor` hears of each as of any run."""

    is_stalled: bool = False
    is_full: bool = False
    error: str = ""
    probed_s: list[float] = field(default_factory=list)
    told: list[tuple[float, str]] = field(default_factory=list)

    def watched(self, observer=None, *, can_probe=True):
        self.monitor = Monitor(self, can_probe=can_probe, changed=self.changed, observer=observer)
        return self.monitor.watch("model", "1", lambda: 0, 64)

    def changed(self, reason):
        self.told.append((asyncio.get_running_loop().time(), reason))

    def probe(self, answer):
        loop = asyncio.get_running_loop()
        self.probed_s.append(loop.time())
        if self.is_full:
            raise QueueFull(waiting=64, limit=64)
        error = ModelError(self.error) if self.error else None
        self.monitor.record(FAILED if error else FINE)
        loop.call_soon(answer, Answer(None, error, 0.0, 0.1, 1))


def fail(recorder, runs=3):
    for _ in range(runs):
        recorder.record(FAILED)


def test_it_probes_until_a_probe_succeeds_and_tells_both_changes_once():
    async def main():
        model = Model(error="out of\nmemory " + "x" * 10_000)
        recorder = model.watched()
        fail(recorder)
        await asyncio.sleep(7.5)
        model.error = ""
        await asyncio.sleep(100)
        recorder.close()
        return model

    model = run(main())

    assert model.probed_s == [0, 1, 3, 7, 15]
    reasons = [reason for _, reason in model.told]
    assert [reason[:60] for reason in reasons[:2]] == [
        "the last 4 runs failed, a probe among them: out of memory xx",
        "the last 5 runs failed, a probe among them: out of memory xx",
    ]
    assert len(reasons[0]) < MAX_ERROR_CHARACTERS + 100
    assert model.told[-1] == (15, "")
    assert reasons.count("") == 1


def test_requests_that_fail_beside_a_model_that_works_change_nothing():
    async def main():
        model = Model()
        recorder = model.watched()
        for _ in range(100):
            fail(recorder)
            await asyncio.sleep(0.1)
        recorder.close()
        return model

    model = run(main())

    assert model.told == []
    assert 9 <= len(model.probed_s) <= 11


def test_it_tells_at_once_that_every_instance_hangs_and_within_a_second_that_one_came_back():
    async def main():
        model = Model(is_stalled=True)
        recorder = model.watched()
        recorder.record(FAILED)
        await asyncio.sleep(30.5)
        model.is_stalled = False
        await asyncio.sleep(10)
        recorder.close()
        return model

    model = run(main())

    assert model.told == [(0, "every instance hangs in a run that was given up"), (31, "")]
    assert model.probed_s == [31]


def test_a_queue_without_room_puts_the_probe_off():
    async def main():
        model = Model(is_full=True, error="broken")
        recorder = model.watched()
        fail(recorder)
        await asyncio.sleep(2.5)
        assert model.told == []
        model.is_full = False
        await asyncio.sleep(1)
        recorder.close()
        return model

    model = run(main())

    assert model.probed_s == [0, 1, 2, 3]
    assert model.told == [(3, "the last 4 runs failed, a probe among them: broken")]


def test_where_nothing_is_known_to_run_nothing_is_probed():
    async def main():
        model = Model(error="broken")
        recorder = model.watched(can_probe=False)
        fail(recorder)
        await asyncio.sleep(5)
        recorder.close()
        return model

    model = run(main())

    assert model.told == [(0, "the last 3 runs failed"), (1, "")]
    assert model.probed_s == []


def test_when_it_is_closed_it_probes_no_more():
    async def main():
        model = Model(error="broken")
        recorder = model.watched()
        fail(recorder)
        recorder.close()
        fail(recorder)
        await asyncio.sleep(100)
        return model

    assert run(main()).probed_s == []


def test_the_observer_is_told_of_each_run_too():
    async def main():
        observer = RecordingObserver()
        recorder = Model().watched(observer)
        recorder.record(FINE)
        fail(recorder, 1)
        recorder.close()
        return observer

    observer = run(main())

    assert observer.watched == [("model", "1", 64)]
    assert observer.reports == [FINE, FAILED]
    assert observer.is_closed


class BrokenObserver:
    def watch(self, name, version, depth, limit):
        raise RuntimeError("no such registry")


def test_an_observer_that_fails_does_not_blind_it():
    async def main():
        model = Model(error="broken")
        recorder = model.watched(BrokenObserver())
        fail(recorder)
        await asyncio.sleep(0.5)
        recorder.close()
        return model

    assert [reason for _, reason in run(main()).told] == ["the last 4 runs failed, a probe among them: broken"]
