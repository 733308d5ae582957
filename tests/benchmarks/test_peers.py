"""What must hold for a comparison with peers to be fair: answers, settings, all processes counted, and ended."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "peers"))

import drivers
import rounds
from contestants import CONTESTANTS, Contestant
from kept import choice_kept, keep
from rounds import Extent
from running import Running
from workload import Workload, WrongAnswer

FAMILY = """
import http.server, json, os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "while True: sum(range(1000))"], start_new_session=True)

class Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        rows = json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"]
        body = json.dumps({"predictions": [[FACTOR * sum(row)] for row in rows], "child": child.pid}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *what): pass

http.server.ThreadingHTTPServer.request_queue_size = 128
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PEER_PORT"])), Answer).serve_forever()
"""


@pytest.fixture
def sums() -> Workload:
    """Rows of two numbers; the answer is their sum."""
    bodies = [json.dumps({"instances": [[number, 1.0]]}).encode() for number in range(64)]
    return Workload("sums", "sums", Path("sums.onnx"), bodies, np.arange(64.0)[:, None] + 1)


def family(factor: int) -> Contestant:
    """A server whose child has a session of its own and burns CPU."""
    program = FAMILY.replace("FACTOR", str(factor))
    return Contestant(name="family", doc="", command=lambda start: [sys.executable, "-c", program])


def test_a_child_in_another_session_is_counted_and_ended(sums: Workload) -> None:
    with Running(family(1), sums, {}) as server:
        assert len(server.pids()) == 2
        before_s = server.cpu_s()
        while server.cpu_s() - before_s < 0.05:  # the server is idle: this is the child's
            sums.check_one(server.port, 0)

    assert server.pids() == []


def test_a_server_and_its_children_run_on_the_cores_that_are_given(sums: Workload) -> None:
    core = frozenset([max(os.sched_getaffinity(0))])

    with Running(family(1), sums, {}, core) as server:
        assert [os.sched_getaffinity(pid) for pid in server.pids()] == [core, core]


def test_a_server_with_a_wrong_answer_is_not_measured(sums: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("running.START_LIMIT_S", 2.0)

    with pytest.raises(RuntimeError, match="it did not come up"), Running(family(2), sums, {}):
        pass


def test_every_row_is_compared(sums: Workload) -> None:
    other = Workload("sums", "", sums.model, sums.bodies, np.where(sums.right == 64, 0, sums.right))

    with Running(family(1), sums, {}) as server, pytest.raises(WrongAnswer, match="row 63"):
        other.check(server.port)


@pytest.mark.parametrize("name", [name for name, one in CONTESTANTS.items() if not one.packages])
def test_each_server_of_this_environment_starts_with_its_first_setting_and_answers_rightly(name: str) -> None:
    contestant, workload = CONTESTANTS[name], Workload.of("small")

    with Running(contestant, workload, contestant.settings("small", 64)[0]) as server:
        workload.check(server.port)


@pytest.mark.parametrize("workload", ["small", "wide"])
@pytest.mark.parametrize("connections", [1, 2, 8, 64, 128, 256])
def test_mosec_has_four_settings_and_none_waits_for_all_connections(workload: str, connections: int) -> None:
    settings = CONTESTANTS["mosec"].settings(workload, connections)

    assert len(settings) >= 4
    assert all(setting["max_batch_size"] != connections or connections == 1 for setting in settings)


def test_a_run_takes_the_place_of_the_one_before_and_of_no_other(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"

    def run(connections: int, *names: str, rate: int = 0) -> dict[str, object]:
        chosen = {"setting": {"rate": rate}, "tried": [rate]}
        return {"connections": connections, "contestants": dict.fromkeys(names, chosen), "rate": rate}

    for one in (run(64, "a", "b", rate=1), run(1, "a", "b", rate=2), run(64, "a", rate=3), run(64, "b", "a", rate=4)):
        keep(path, one, question="?")
    keep(path, run(64, "a", "b", rate=5) | {"server_cores": 1}, question="?")

    document = json.loads(path.read_text())
    assert document["question"] == "?"
    assert [(one["connections"], one["rate"]) for one in document["runs"]] == [(1, 2), (64, 3), (64, 4), (64, 5)]
    assert choice_kept(path, "b", 64, 0) == {"setting": {"rate": 4}, "tried": [4]}
    assert choice_kept(path, "b", 64, 1) == {"setting": {"rate": 5}, "tried": [5]}
    assert choice_kept(path, "b", 128, 0) is None


def test_the_best_of_the_settings_is_taken_and_nobody_is_asked_for_more_than_it_can_do(
    sums: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = iter([100.0, 300.0, 200.0, 250.0, 110.0, 210.0])
    asked: list[float] = []

    def open_loop(*_: object, rate_per_s: float, **__: object) -> dict[str, float]:
        asked.append(rate_per_s)
        return {"requests": 1}

    monkeypatch.setattr(drivers, "open_loop", open_loop)
    monkeypatch.setattr(rounds, "ask", lambda *_, **__: {"per_s": next(reached)})
    extent = Extent(
        driver="redserve",
        connections=4,
        rounds=1,
        seconds=1,
        warm_up_s=1,
        tuning_s=1,
        rates=(50, 5000),
        open_s=1,
        tries=1,
    )
    contestant = Contestant(
        name="family",
        doc="",
        command=family(1).command,
        settings=lambda workload, connections: [{"workers": workers} for workers in (1, 2)],
    )

    tuned = rounds.tune(contestant, sums, extent)
    measured = rounds.one_round(contestant, sums, tuned["setting"], extent)

    assert tuned["setting"] == {"workers": 2}  # 300 and 250 against 100 and 200
    assert asked == [50]
    assert measured["open"][1] == {"rate_per_s": 5000, "is_beyond": True}


def test_a_load_that_others_disturbed_is_repeated_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = iter([1.0, 0.3, 0.1, 0.9, 0.8, 0.7])
    monkeypatch.setattr(rounds, "watched", lambda server, load: {"neighbours_cores": next(cores)})

    assert rounds.undisturbed(None, 5, dict) == {"neighbours_cores": 0.1, "tries": 3}
    assert rounds.undisturbed(None, 3, dict) == {"neighbours_cores": 0.7, "tries": 3}


def test_without_wrk_the_own_sender_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert drivers.pick(None) == "redserve"
    with pytest.raises(SystemExit, match="no wrk on PATH"):
        drivers.pick("wrk")
