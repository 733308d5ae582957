"""Engines that raise, lie, hang, run out of memory under the real server: who is told, who is spared, who is ready."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx2
import numpy as np
import pytest
from served import REDSERVE, Served

from engine.onnx_models import hungry, row_encoding, slow
from puppet_engine import PuppetEngine
from redserve.engine.tensors import TensorSpec
from redserve.server import Settings, create_app
from redserve.server.http_limits import HttpLimits
from redserve.server.http_protocol import HttpProtocol

LIMIT_S = 30.0
DEMO = Path(__file__).parents[2] / "src/redserve/demo/digits.onnx"


class FaultyEngine(PuppetEngine):
    """A puppet whose answers the test replaces; `None` leaves them as they are."""

    fault: Callable | None = None

    def run(self, tensors):
        answer = super().run(tensors)
        return answer if self.fault is None else self.fault(tensors["x"], *answer)


class StubbornEngine(FaultyEngine):
    """Hangs at its gate whoever interrupts it."""

    def interrupt(self, thread_id=None):
        pass


def until(condition):
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.02)


class Server:
    """One engine, served as the model `faulty`."""

    def __init__(self, serve, registry, engine, **settings):
        app = create_app(
            Settings.load({"max_batch_size": 8, **settings}), engines={"faulty": lambda: engine}, registry=registry
        )
        self.url = serve(app, http=partial(HttpProtocol, limits=HttpLimits(), door=app.state.redserve.fast_door)).url
        self.registry = registry
        until(lambda: self.is_ready)

    @property
    def is_ready(self):
        return httpx2.get(f"{self.url}/readyz").status_code == 200

    @property
    def reason(self):
        return httpx2.get(f"{self.url}/readyz").json()["reasons"]["faulty"]

    def value(self, name, **labels):
        return self.registry.get_sample_value(f"inference_{name}", labels) or 0

    @property
    def ready_gauge(self):
        return self.value("model_ready", model="faulty", version="1")

    def ask(self, *firsts):
        return httpx2.post(f"{self.url}/predict", json={"instances": [[first, 0] for first in firsts]}, timeout=LIMIT_S)

    def ask_together(self, engine, *bodies):
        """Answers to requests that shared one batch: they all wait behind one that holds the gate."""

        async def main():
            async with httpx2.AsyncClient(timeout=LIMIT_S) as client:
                engine.shut()
                plug = asyncio.create_task(client.post(f"{self.url}/predict", json={"instances": [[0, 0]]}))
                assert await asyncio.to_thread(engine.began.wait, LIMIT_S)
                asked = [
                    asyncio.create_task(client.post(f"{self.url}/predict", json={"instances": [[body, 0]]}))
                    for body in bodies
                ]
                depth = partial(self.value, "batch_queue_depth", model="faulty", version="1")
                await asyncio.to_thread(until, lambda: depth() == len(bodies))
                engine.ran_rows.clear()
                engine.open()
                await plug
                return await asyncio.gather(*asked)

        answers = asyncio.run(main())
        assert len(bodies) in engine.ran_rows, "they did not share a batch"
        return answers


def failed_with(answer):
    return answer.status_code, answer.json()["error"]["reason"], answer.json()["error"]["message"]


def break_down(*_):
    raise RuntimeError("the accelerator is gone")


def test_a_model_on_which_everything_fails_is_taken_out_of_readiness_and_comes_back_by_itself(serve, registry):
    engine = FaultyEngine()
    server = Server(serve, registry, engine)
    assert server.ready_gauge == 1
    engine.fault = break_down

    for _ in range(3):
        assert failed_with(server.ask(1)) == (500, "model_error", "RuntimeError: the accelerator is gone")
    until(lambda: not server.is_ready)

    assert "runs failed, a probe among them: RuntimeError: the accelerator is gone" in server.reason
    assert server.ready_gauge == 0
    assert failed_with(server.ask(1))[:2] == (500, "model_error")  # and not refused

    engine.fault = None
    until(lambda: server.is_ready)
    assert server.ready_gauge == 1
    assert server.ask(1).json() == {"predictions": [[2.0, 0.0]]}


def test_one_request_that_succeeds_brings_readiness_back_at_once(serve, registry):
    engine = FaultyEngine()
    server = Server(serve, registry, engine)
    engine.fault = break_down
    for _ in range(3):
        server.ask(1)
    until(lambda: not server.is_ready)

    engine.fault = None
    assert server.ask(3).json() == {"predictions": [[6.0, 0.0]]}

    assert server.is_ready
    assert server.ready_gauge == 1


def test_probes_are_runs_and_no_requests(serve, registry):
    engine = FaultyEngine()
    server = Server(serve, registry, engine)
    engine.fault = break_down
    for _ in range(3):
        server.ask(1)
    until(lambda: not server.is_ready)
    engine.fault = None
    until(lambda: server.is_ready)

    labels = {"route": "/predict", "method": "POST", "model": "faulty"}
    assert server.value("requests_total", code="500", outcome="error", **labels) == 3
    assert server.value("requests_received_total", method="POST") == 3
    assert server.value("requests_in_flight") == 0
    assert server.value("batch_size_count", model="faulty", version="1") >= 5


def test_clients_cannot_take_a_model_that_works_out_of_readiness(serve, registry):
    server = Server(serve, registry, PuppetEngine())

    for _ in range(30):
        assert failed_with(server.ask(-1)) == (500, "model_error", "a row begins with -1")
        assert server.is_ready
    assert server.ready_gauge == 1
    assert server.ask(1).json() == {"predictions": [[2.0, 0.0]]}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda x, y: [y, y], "has 1 outputs, and a run answered with 2"),
        (lambda x, y: [], "has 1 outputs, and a run answered with 0"),
        (lambda x, y: None, "has 1 outputs, and a run answered with a NoneType"),
        (lambda x, y: [y.tolist()], "no array but a list"),
        (lambda x, y: [y.astype(np.float64)], "must be float32, and a run answered with float64"),
        (lambda x, y: [y.astype(complex)], "must be float32, and a run answered with complex128"),
        (lambda x, y: [y[:, :1]], "cannot have the shape"),
        (lambda x, y: [y[:-1]], "came back with"),
        (lambda x, y: [np.concatenate([y, y])], "came back with"),
        (lambda x, y: [y[:0]], "came back with 0 results"),
        (lambda x, y: [y.sum()], "came back with 1 results"),
        (lambda x, y: [y.T], "a batch of 3 came back with 2 results"),
    ],
    ids=["two", "none", "None", "lists", "float64", "complex", "narrow", "few", "many", "empty", "scalar", "turned"],
)
def test_an_answer_that_is_not_as_promised_is_given_to_nobody(serve, registry, fault, message):
    engine = FaultyEngine()
    server = Server(serve, registry, engine)
    engine.fault = lambda x, y: fault(x, y) if len(x) == 3 else [y]

    answers = server.ask_together(engine, 1, 2, 3)

    for first, answer in enumerate(answers, start=1):
        if answer.status_code == 200:  # who was run again by itself
            assert answer.json() == {"predictions": [[2.0 * first, 0.0]]}
        else:
            assert failed_with(answer)[:2] == (500, "model_error")
            assert message in failed_with(answer)[2]
    whole = server.ask(1, 2, 4)
    assert failed_with(whole)[:2] == (500, "model_error")
    assert message in failed_with(whole)[2]
    engine.fault = None
    assert server.ask(5).json() == {"predictions": [[10.0, 0.0]]}
    assert server.value("requests_in_flight") == 0


def test_an_answer_that_is_the_batch_itself_does_not_change_under_its_clients_eyes(serve, registry):
    engine = FaultyEngine()
    server = Server(serve, registry, engine)
    engine.fault = lambda x, y: [x]

    for turn in range(3):
        firsts = [10 * turn + first for first in (1, 2, 3)]
        answers = server.ask_together(engine, *firsts)
        assert [answer.json()["predictions"] for answer in answers] == [[[first, 0.0]] for first in firsts]


class Poet(FaultyEngine):
    """Answers in words."""

    outputs = (TensorSpec("y", np.dtype(np.object_), ("batch",)),)

    def run(self, tensors):
        super().run(tensors)
        words = np.full(len(tensors["x"]), "word", object)
        words[tensors["x"][:, 0] == 7] = self.odd_word
        return [words]


@pytest.mark.parametrize("odd_word", ["\ud800", b"bytes", 1j], ids=["surrogate", "bytes", "complex"])
def test_an_answer_that_cannot_be_written_is_an_error_and_not_silence(serve, registry, odd_word):
    engine = Poet()
    engine.odd_word = odd_word
    server = Server(serve, registry, engine)

    assert server.ask(7).status_code == 500
    assert server.ask(1).json() == {"predictions": ["word"]}
    assert server.value("requests_in_flight") == 0


def test_a_run_that_hangs_is_given_up_and_the_next_one_is_served(serve, registry):
    engine = StubbornEngine()
    server = Server(serve, registry, engine, max_run_s=0.2)
    engine.shut()

    assert failed_with(server.ask(1)) == (500, "run_timeout", "the batch ran longer than 0.2 s")
    assert server.is_ready

    engine.open()
    assert server.ask(2).json() == {"predictions": [[4.0, 0.0]]}


def test_onnx_runtime_is_cut_off_in_a_run_that_takes_too_long_and_the_next_one_is_served(tmp_path):
    with Served(str(slow(tmp_path, steps=10_000_000)), "--max-batch-size", "1", "--max-run-s", "1") as served:
        ask = partial(httpx2.post, f"{served.url}/predict", timeout=LIMIT_S)
        endless = ask(json={"instances": [[1.0] * 64]})
        quick = ask(json={"instances": [[0.0] * 64]})

    assert (endless.status_code, endless.json()["error"]["reason"]) == (500, "run_timeout")
    assert (quick.status_code, quick.json()) == (200, {"predictions": [[0.0] * 64]})


def test_when_every_thread_hangs_it_is_not_ready_until_one_comes_back(serve, registry):
    engine = StubbornEngine()
    server = Server(serve, registry, engine, max_run_s=0.1)
    engine.shut()

    def hang():
        assert failed_with(server.ask(1))[:2] == (500, "run_timeout")
        return "hangs" in server.reason if not server.is_ready else False

    until(hang)

    assert server.ready_gauge == 0
    assert failed_with(server.ask(1))[:2] == (500, "run_timeout")  # at once, since nothing can run
    engine.open()
    until(lambda: server.is_ready)
    assert server.ready_gauge == 1
    assert server.ask(4).json() == {"predictions": [[8.0, 0.0]]}
    assert server.value("requests_in_flight") == 0


def test_a_request_that_takes_all_memory_fails_alone(serve, registry):
    def allocate(x, y):
        if (x[:, 0] == 9).any():
            raise MemoryError("Unable to allocate 4.00 PiB for an array")
        return [y]

    engine = FaultyEngine()
    server = Server(serve, registry, engine)
    engine.fault = allocate

    before, hungry_one, after = server.ask_together(engine, 1, 9, 2)

    assert failed_with(hungry_one) == (500, "model_error", "MemoryError: Unable to allocate 4.00 PiB for an array")
    assert before.json() == {"predictions": [[2.0, 0.0]]}
    assert after.json() == {"predictions": [[4.0, 0.0]]}
    assert server.is_ready


def resident_bytes(process):
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_onnx_runtime_refuses_petabytes_to_one_request_and_serves_its_neighbours(tmp_path):
    async def mixed(url):
        limits = httpx2.Limits(max_connections=32)
        async with httpx2.AsyncClient(timeout=LIMIT_S, limits=limits) as client:
            firsts = [1e15 if number % 8 == 7 else float(number) for number in range(32)]
            bodies = [{"instances": [[first, 0.0]]} for first in firsts]
            return firsts, await asyncio.gather(*(client.post(f"{url}/predict", json=body) for body in bodies))

    with Served(str(hungry(tmp_path)), "--max-batch-size", "8", "--max-queue-delay-ms", "20") as served:
        before_bytes = resident_bytes(served.process)
        for _ in range(5):
            firsts, answers = asyncio.run(mixed(served.url))
            for first, answer in zip(firsts, answers, strict=True):
                if first == 1e15:
                    assert failed_with(answer)[:2] == (500, "model_error")
                    assert "Failed to allocate memory" in failed_with(answer)[2]
                else:
                    assert answer.json() == {"predictions": [[2 * first, 0.0]]}
        grown_bytes = resident_bytes(served.process) - before_bytes
        metrics = httpx2.get(f"{served.url}/metrics").text
        assert httpx2.get(f"{served.url}/readyz").status_code == 200

    assert grown_bytes < 100 * 2**20
    assert 'why="split"' in metrics  # neighbours were in the same batch


def test_a_model_file_that_vanishes_while_it_is_served_is_not_missed(tmp_path):
    path = row_encoding(tmp_path)
    with Served(str(path)) as served:
        path.unlink()
        answer = httpx2.post(f"{served.url}/predict", json={"instances": [[1, 2, 3, 4]]})
        ready = httpx2.get(f"{served.url}/readyz").status_code

    assert answer.json() == {"predictions": [[3, 5, 7, 9]]}
    assert ready == 200


def half_of_the_demo(folder):
    path = folder / "half.onnx"
    path.write_bytes(DEMO.read_bytes()[: DEMO.stat().st_size // 2])
    return path


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (half_of_the_demo, "cannot be loaded: "),
        (lambda folder: folder, "is a directory, not an .onnx file"),
        (lambda folder: folder / f"{'long' * 100}.onnx", "cannot be read: File name too long"),
    ],
    ids=["half a file", "directory", "unreadable"],
)
def test_a_file_that_is_no_model_ends_it_with_1_and_one_clear_line(tmp_path, build, message):
    done = subprocess.run(
        [*REDSERVE, "serve", str(build(tmp_path)), "--port", "0", "--log-level", "error"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    logged, said = done.stderr.splitlines()
    assert logged.startswith("ERROR   model failed to load")
    assert said.startswith("redserve: model ")
    assert message in said
