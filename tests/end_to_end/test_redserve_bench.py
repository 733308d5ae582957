"""`redserve bench` as a user meets it: the real command against the real server."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fetch import fetch
from live_app import LiveApp
from served import REDSERVE, Served

from engine.onnx_models import identity, only_64_columns, text, token_sum, two_outputs_renamed
from redserve.bench import Load, Result, run_load

WAIT_S = 60.0
BENCH = [*REDSERVE, "bench"]
SHORT = ("--duration-s", "0.5", "--warm-up-s", "0.2", "--connections", "8")


def bench(*arguments: object, **more: Any) -> "subprocess.CompletedProcess[str]":
    command = [*BENCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False, **more)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as server:
        yield server


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Models that take different things."""
    folder = tmp_path_factory.mktemp("zoo")
    for make in (identity, only_64_columns, text, token_sum, two_outputs_renamed):
        make(tmp_path_factory.mktemp("made")).rename(folder / f"{make.__name__}.onnx")
    identity(tmp_path_factory.mktemp("made"), shape=(2, 3)).rename(folder / "whole.onnx")
    with Served("--repository", str(folder)) as server:
        yield server


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps([float(number)] * 64) + "\n" for number in range(5)))
    return path


def test_a_closed_loop_says_what_it_is_and_agrees_with_the_server(served, tmp_path):
    done = bench(served.url, *SHORT, "--json", tmp_path / "a.json")

    assert done.returncode == 0, done.stderr
    assert "closed loop, 8 connections" in done.stdout
    assert "model digits" in done.stdout
    (run,) = Result.read(tmp_path / "a.json").runs
    assert run.client.loop == "closed"
    assert run.client.failed == 0
    assert f"the server counted the same {run.client.ok:,} requests" in done.stdout
    assert run.server is not None
    assert run.server.ended == {"200": run.client.ok}
    assert run.server.latency.count == run.client.ok
    assert run.server.mean_batch_rows >= 1
    assert 0 < run.server.latency.p50_s <= run.client.latency.p99_s


def test_an_open_loop_from_two_processes_sends_the_plan_once(served, tmp_path):
    options = ("--rate", 200, "--arrivals", "constant", "--processes", 2, "--slo-ms", 10_000)
    done = bench(served.url, *SHORT, *options, "--json", tmp_path / "a.json")

    assert done.returncode == 0, done.stderr
    assert "open loop, constant at 200/s (latency counts from the planned time) from 2 processes" in done.stdout
    (run,) = Result.read(tmp_path / "a.json").runs
    assert run.client.planned == run.client.ok == 100
    assert run.client.within_slo_ratio == 1.0
    assert run.client.own_delay.count == 100
    assert sum(moment.ok for moment in run.client.timeline) == 100


@pytest.mark.parametrize("plan", [("--ramp", "50:150"), ("--rate", "100", "--arrivals", "burst:5")])
def test_ramps_and_bursts_send_what_they_plan(served, tmp_path, plan):
    done = bench(served.url, *SHORT, *plan, "--json", tmp_path / "a.json")

    assert done.returncode == 0, done.stderr
    assert Result.read(tmp_path / "a.json").runs[0].client.ok == 50


def test_recorded_times_are_replayed(served, tmp_path):
    (tmp_path / "log").write_text("".join(f"{1000 + number / 50}\n" for number in range(20)))
    done = bench(served.url, *SHORT[2:], "--replay", tmp_path / "log", "--json", tmp_path / "a.json")

    assert done.returncode == 0, done.stderr
    assert Result.read(tmp_path / "a.json").runs[0].client.ok == 20


@pytest.mark.parametrize("form", ["predict", "v2", "v2-binary"])
@pytest.mark.parametrize("model", ["identity", "only_64_columns", "text", "token_sum", "two_outputs_renamed", "whole"])
def test_rows_are_made_up_for_any_model_in_every_format(zoo, model, form):
    options = ("--model", model, "--format", form, *(() if model == "whole" else ("--rows", 3)))
    done = bench(zoo.url, *SHORT, *options, "--duration-s", 0.1, "--warm-up-s", 0)

    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout


def test_rows_come_from_a_file_as_many_a_request_as_asked(served, rows, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((7, 64), np.float32))
    for path in (rows, tmp_path / "x.npy"):
        done = bench(served.url, *SHORT, "--data", path, "--rows", 2, "--json", tmp_path / "a.json")

        assert done.returncode == 0, done.stderr
        result = Result.read(tmp_path / "a.json")
        client = result.runs[0].client
        assert client.rows_per_s == pytest.approx(2 * client.ok_per_s)
        assert result.setup.distinct_requests == (3 if path == rows else 4)


def test_any_endpoint_is_measured_by_a_template(served, rows):
    body = '{"instances": $rows}'
    done = bench(f"{served.url}/predict", *SHORT, "--body", body, "--data", rows, "--rows", 2)

    assert done.returncode == 0, done.stderr
    assert "/predict · template, 2 rows a request" in done.stdout
    assert "the server counted the same" in done.stdout


def test_an_endpoint_that_the_server_does_not_count_is_measured_without_the_truth_check(served):
    done = bench(f"{served.url}/livez", *SHORT)

    assert done.returncode == 0, done.stderr
    assert "no truth check" in done.stdout


def test_refusals_are_counted_by_reason_and_the_server_counts_the_same(tmp_path):
    with Served("--max-queue-rows", "1") as server:
        options = ("--rate", 5_000, "--arrivals", "burst:50", "--json", tmp_path / "a.json")
        done = bench(server.url, *SHORT, *options, "--max-failed-percent", 100)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "x 503 queue_full:" in done.stdout
    assert "rows already wait" in " ".join(done.stdout.split())
    (run,) = Result.read(tmp_path / "a.json").runs
    assert run.server is not None
    assert run.server.mismatch == ""
    assert run.server.ended["503"] == run.client.statuses["503"]
    assert run.client.latency.count == run.client.ok


def test_requests_of_somebody_else_are_a_mismatch_and_an_error(served):
    is_over = threading.Event()

    def interfere() -> None:
        while not is_over.is_set():
            fetch(f"{served.url}/v2")

    stranger = threading.Thread(target=interfere)
    stranger.start()
    try:
        done = bench(served.url, *SHORT)
    finally:
        is_over.set()
        stranger.join()

    assert done.returncode == 1
    assert "MISMATCH" in done.stdout
    assert "Did somebody else send to it?" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("URL", "--model", "nope"), "serves no model 'nope'; it serves digits"),
        (("http://127.0.0.1:1",), "nobody listens at http://127.0.0.1:1: connection refused"),
        (("ftp://x",), "write http://HOST:PORT"),
        (("URL/nothing",), "does not work, so it is not measured. It answered 404"),
        (("URL/predict", "--body", "{}"), "It answered 400"),
        (("URL", "--body", "{}"), "--body is for the URL of an endpoint"),
        (("URL", "--rows", "0"), "a request has >= 1 rows"),
        (("URL", "--rows", "3000"), "refuses the rows that were made up"),
        (("URL", "--data", "nothing.jsonl"), "No such file"),
        (("--compare", "a.json", "b.json"), "No such file"),
    ],
)
def test_mistakes_are_said_in_a_sentence_before_anything_is_measured(served, tmp_path, arguments, says):
    done = bench(*(word.replace("URL", served.url) for word in arguments), *SHORT, cwd=tmp_path)

    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_one_of_several_models_must_be_named(zoo):
    done = bench(zoo.url, *SHORT)

    assert done.returncode == 1
    assert "serves several models, choose one: --model identity | only_64_columns" in done.stderr


def test_a_server_that_dies_ends_the_run_with_what_was_seen(tmp_path):
    with Served() as server:
        command = [*BENCH, server.url, "--duration-s", "50", "--json", str(tmp_path / "a.json")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            wait_for_load(server)
            server.process.kill()
            said, errors = running.communicate(timeout=WAIT_S)

    assert running.returncode == 1, errors
    assert "requests failed within a second" in " ".join(said.split())
    assert "connection_refused" in said
    assert Result.read(tmp_path / "a.json").runs[0].stopped_because


def wait_for_load(server: Served) -> None:
    """Until the server has answered more than the trial that comes before a load."""
    limit_s = time.monotonic() + WAIT_S
    counted = re.compile(r'requests_total\{route="/predict/\{model\}",.*code="200".*\} (\d{3,})')
    while not counted.search(fetch(f"{server.url}/metrics")):
        assert time.monotonic() < limit_s


def test_ctrl_c_reports_what_was_measured_so_far(served, tmp_path):
    command = [*BENCH, served.url, "--duration-s", "50", "--warm-up-s", "0", "--json", str(tmp_path / "a.json")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stderr is not None
        line = running.stderr.readline()  # the first one comes while it sends
        os.killpg(running.pid, signal.SIGINT)
        said, errors = running.communicate(timeout=WAIT_S)

    assert "closed loop 5 of 50 s" in line
    assert running.returncode == 130, errors
    assert "interrupted" in said
    (run,) = Result.read(tmp_path / "a.json").runs
    assert run.client.ok > 0
    assert run.client.seconds < 50
    assert run.server is not None
    assert run.server.mismatch == ""


def test_a_terminal_shows_a_live_line(served):
    ours, theirs = pty.openpty()
    with subprocess.Popen([*BENCH, served.url, *SHORT], stdout=subprocess.PIPE, stderr=theirs) as running:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
        assert running.wait(WAIT_S) == 0
    os.close(ours)

    assert b"p99" in shown
    assert b"failed" in shown


def test_a_slo_that_no_rate_keeps_has_no_knee(served, tmp_path):
    options = ("--sweep", "--slo-ms", 0.001, "--rate", 0.4, "--duration-s", 0.1, "--warm-up-s", 0)
    done = bench(served.url, *options, "--json", tmp_path / "a.json")

    assert done.returncode == 1, done.stderr
    assert "knee       none" in done.stdout
    sweep = Result.read(tmp_path / "a.json").sweep
    assert sweep is not None
    assert [step.rate_per_s for step in sweep.steps] == [0.4, 0.4, 0.2, 0.2, 0.1, 0.1]


def test_two_servers_are_measured_in_turns_and_compared(served, zoo, tmp_path):
    options = ("--rounds", 3, "--json", tmp_path / "a.json")
    done = bench(f"{served.url}/v2", "--against", f"{zoo.url}/v2", *SHORT, *options)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "B against A, 3 pairs of runs" in done.stdout
    again = bench("--compare", tmp_path / "a.json", tmp_path / "a.against.json")
    assert again.returncode == 0
    assert again.stdout in done.stdout
    assert "not made in turns" not in again.stdout


CERTIFICATE = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_https_is_measured_and_a_certificate_that_nobody_signed_is_refused(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run([*CERTIFICATE, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with LiveApp(hello, lifespan="off", ssl_keyfile=str(key), ssl_certfile=str(certificate)) as live:
        url = f"https://127.0.0.1:{live.port}/"
        refused = bench(f"{url}x", *SHORT)
        done = bench(f"{url}x", *SHORT, "--insecure")

    assert refused.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert " 0 failed" in done.stdout


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def test_a_load_is_also_sent_from_python(served):
    port = int(served.url.rpartition(":")[2])
    request = b"GET /livez HTTP/1.1\r\nHost: redserve\r\n\r\n"
    load = Load(host="127.0.0.1", port=port, requests=[request], connections=4, duration_s=0.3)
    tally = run_load(load, warm_up_s=0.1)

    assert tally.ok > 0
    assert tally.statuses == {200: tally.ok}
    assert tally.planned == tally.ok == sum(len(slot.latency) for slot in tally.slots)


PROGRAM = """
import sys
for name in {blocked}:
    sys.modules[name] = None
from redserve.cli import main
sys.exit(main({words}))
"""


def test_it_needs_nothing_of_the_server(served, tmp_path):
    blocked = ("fastapi", "starlette", "uvicorn", "pydantic", "pydantic_settings", "onnxruntime", "matplotlib")
    words = ["bench", served.url, *SHORT]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(blocked=blocked, words=words)],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "the server counted the same" in done.stdout


def test_without_its_packages_it_says_which_extra_to_install():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(blocked=("hdrh",), words=["bench", "http://h"])],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )

    assert done.returncode == 2
    assert "pip install 'redserve[bench]'" in done.stderr
