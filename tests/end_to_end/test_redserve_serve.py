"""`redserve serve` as a user meets it: the real command, real models, real signals, real clients."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
import pytest
from served import REDSERVE, Served

from engine.onnx_models import (
    attention,
    batch_on_axis_1,
    identity,
    picky,
    row_encoding,
    scalar_input,
    slow,
    text,
    two_outputs_renamed,
)

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "models"))

from digits import held_out

LIMITS = httpx2.Limits(max_connections=65, max_keepalive_connections=65)


@pytest.fixture(scope="module")
def demo():
    with Served() as served:
        yield served


def run(*arguments):
    return subprocess.run([*REDSERVE, *arguments], capture_output=True, text=True, timeout=60, check=False)


def shell(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_the_banner_says_what_came_up(demo):
    for words in (
        "redserve is ready at http://127.0.0.1:",
        "input     pixels float32 [batch, 64]",
        "output    label int64 [batch]",
        "provider  CPUExecutionProvider",
        "batching  dynamic",
        "1 rows",
        "rows/s",
        "/metrics",
        "/docs",
    ):
        assert words in demo.banner


def test_its_curl_line_gets_the_right_label(demo):
    assert shell(demo.curl)["predictions"][0]["label"] == 7


def test_the_digits_are_read_as_well_as_the_model_says(demo):
    images, labels = held_out()

    answers = asyncio.run(post_all(f"{demo.url}/predict", [{"instances": [image.tolist()]} for image in images]))

    read = np.array([answer["predictions"][0]["label"] for answer in answers])
    accuracy = float((read == labels).mean())
    assert len(images) >= 400
    assert accuracy >= 0.96
    inspected = run("inspect", str(Path(__file__).parents[2] / "src/redserve/demo/digits.onnx")).stdout
    assert f"test_accuracy = {accuracy:.4f}" in inspected


async def post_all(url, bodies):
    async with httpx2.AsyncClient(limits=LIMITS, timeout=60) as client:
        answers = await asyncio.gather(*(client.post(url, json=body) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    return [answer.json() for answer in answers]


@pytest.mark.parametrize("max_batch_size", ["1", "64", "auto"])
def test_64_clients_at_once_each_get_the_answer_to_their_own_row(tmp_path, max_batch_size):
    with Served(str(row_encoding(tmp_path)), "--max-batch-size", max_batch_size) as served:
        for round_number in range(5):
            rows = [[number, round_number, -number, 0.5] for number in range(64)]

            answers = asyncio.run(post_all(f"{served.url}/predict", [{"instances": [row]} for row in rows]))

            assert [answer["predictions"] for answer in answers] == [[[2 * x + 1 for x in row]] for row in rows]
        metrics = httpx2.get(f"{served.url}/metrics").text
    assert 'inference_batch_size_sum{model="row_encoding",version="1"} 320.0' in metrics


@pytest.mark.parametrize(
    ("build", "mode"),
    [
        (two_outputs_renamed, "dynamic"),
        (text, "dynamic"),
        (scalar_input, "whole"),
        (batch_on_axis_1, "whole"),
        (lambda folder: row_encoding(folder, batch=1), "fixed"),
        (lambda folder: row_encoding(folder, batch=4), "fixed"),
        (lambda folder: identity(folder, shape=("batch", 3, 64, 64)), "dynamic"),
    ],
    ids=["two outputs", "strings", "a scalar input", "batch on axis 1", "batch of 1", "batch of 4", "images"],
)
def test_any_model_is_served_and_its_curl_line_works(tmp_path, build, mode):
    with Served(str(build(tmp_path))) as served:
        assert f"batching  {mode}" in served.banner

        answer = shell(served.curl)

        served.signal()
        assert served.wait() == 0
    assert set(answer) <= {"predictions", "outputs"}
    assert answer


def test_a_model_that_no_made_up_row_runs_on_is_served_without_an_example(tmp_path):
    with Served(str(picky(tmp_path))) as served:
        assert "try it" not in served.banner
        answer = httpx2.post(f"{served.url}/predict", json={"inputs": {"x": [[0.5] * 11] * 7}})

    assert answer.json() == {"outputs": {"y": [[0.5] * 11] * 7}}


def test_sigterm_loses_nothing_and_exits_with_0(tmp_path):
    body = {"instances": [[1] * 64]}
    with Served(str(slow(tmp_path, steps=2_000)), "--max-batch-size", "1") as served:
        statuses, answered = asyncio.run(post_until_it_ends(served, body))
        status = served.wait()

    assert status == 0, served.errors
    assert set(statuses) == {200}
    assert answered == len(statuses)
    assert "Traceback" not in served.errors


async def post_until_it_ends(served, body, *, wait_for_first=True):
    """64 requests in flight when the signal comes: each is answered."""
    async with httpx2.AsyncClient(limits=LIMITS, timeout=60) as client:
        asked = [asyncio.create_task(client.post(f"{served.url}/predict", json=body)) for _ in range(64)]
        if wait_for_first:
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.to_thread(until, lambda: "in_flight 64" in httpx2.get(f"{served.url}/metrics").text)
        served.signal()
        answers = await asyncio.gather(*asked)
    return [answer.status_code for answer in answers], sum(
        "predictions" in a.json() or "outputs" in a.json() for a in answers
    )


def test_a_second_sigterm_ends_it_at_once_with_1(tmp_path):
    body = json.dumps({"instances": [[1] * 64]}).encode()
    with (
        Served(str(slow(tmp_path, steps=10_000_000)), "--max-batch-size", "1") as served,
        socket.create_connection(served.url.removeprefix("http://").split(":")) as client,
    ):
        client.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        until(lambda: "in_flight 1" in httpx2.get(f"{served.url}/metrics").text)
        served.signal()
        until(lambda: is_refused(served.url))
        served.signal()
        assert served.wait() == 1


def test_what_the_grace_time_does_not_suffice_for_is_turned_away_and_it_exits_with_1(tmp_path):
    body = {"instances": [[1] * 64]}
    with Served(str(slow(tmp_path, steps=10_000_000)), "--max-batch-size", "1", "--grace-s", "1") as served:
        statuses, _ = asyncio.run(post_until_it_ends(served, body, wait_for_first=False))
        status = served.wait()

    assert status == 1
    assert set(statuses) == {503}


def until(condition, limit_s=20.0):
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.02)


def is_refused(url):
    try:
        httpx2.get(f"{url}/livez")
    except httpx2.HTTPError:
        return True
    return False


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"", "is empty"), (b"garbage", "cannot be loaded"), (b"\x08\x07", "cannot be loaded")],
    ids=["missing", "empty", "garbage", "truncated"],
)
def test_a_model_that_cannot_be_loaded_ends_it_with_1_and_one_clear_line(tmp_path, content, message):
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)

    done = run("serve", str(path), "--port", "0", "--log-level", "error")

    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("redserve: ")]
    assert str(path) in line
    assert message in line
    assert "Traceback" not in done.stderr


def test_a_device_that_is_not_there_is_refused_and_says_what_is_missing():
    done = run("serve", "--device", "cuda", "--port", "0")

    assert done.returncode == 1
    assert "redserve[gpu]" in done.stderr or "CUDA" in done.stderr


def test_a_port_that_is_taken_ends_it_with_1():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run("serve", "--port", str(taken.getsockname()[1]))

    assert done.returncode == 1
    assert "address already in use" in done.stderr.lower()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "workers: Input should be greater than or equal to 1"),
        (["--port", "http"], "port"),
        (["--max-batch-size", "0"], "max_batch_size"),
        (["--session-option", "x"], "write KEY=VALUE"),
        (["--config", "/nowhere.toml"], "no configuration file"),
        (["--latency-slo-ms", "1e9"], "latency_slo_ms"),
    ],
)
def test_a_wrong_option_ends_it_with_2_and_names_it(arguments, message):
    done = run("serve", *arguments)

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_options_come_from_the_environment_too(tmp_path):
    with Served(environment={"REDSERVE_MODEL": str(row_encoding(tmp_path)), "REDSERVE_NAME": "encoder"}) as served:
        assert httpx2.get(served.url).json()["models"][0]["name"] == "encoder"


def test_help_names_every_option():
    text = run("serve", "--help").stdout

    for option in ("--host", "--port", "--max-batch-size", "--max-queue-delay-ms", "--device", "--config", "REDSERVE_"):
        assert option in text


def test_inspect_shows_what_a_model_takes_and_how_it_batches(tmp_path):
    done = run("inspect", str(scalar_input(tmp_path)))

    assert done.returncode == 0, done.stderr
    for words in ("input", "output", "provider", "batching  whole", "ms"):
        assert words in done.stdout
    assert run("inspect", str(tmp_path / "nothing.onnx")).returncode == 1


def test_inspect_shows_what_it_costs_that_rows_of_different_lengths_share_a_batch(tmp_path):
    path = str(attention(tmp_path / "text.onnx"))

    done = run("inspect", path, "--length-buckets", "4,16", "--max-batch-size", "8")

    assert done.returncode == 0, done.stderr
    assert "  lengths   rows of a bucket share a batch, padded to its longest:" in done.stdout
    assert re.search(
        r"in a batch of 8, at worst\n +2 to 4 .* for the shortest\n +5 to 16 .* for the shortest", done.stdout
    )
    careless = str(attention(tmp_path / "careless.onnx", obeys=False))
    assert run("inspect", careless, "--length-buckets", "4,16").returncode == 1
    insisted = run("inspect", careless, "--length-buckets", "4,16", "--batching", "on")
    assert "padding changes a row's answer by up to " in insisted.stdout
    for arguments, why in (
        (("--length-buckets", "16,4"), "the lengths of buckets ascend from 1 on, got 16, 4"),
        (("--length-buckets", "4", "--mask-input", "mask"), "length_buckets: the model has no input 'mask'"),
    ):
        refused = run("inspect", path, *arguments)
        assert refused.returncode == 1
        assert why in refused.stderr


def test_rows_of_different_lengths_share_batches_and_keep_their_answers(tmp_path):
    path = str(attention(tmp_path / "text.onnx", width=64, layers=4))
    random = np.random.default_rng(0)
    texts = [random.integers(0, 32, length).tolist() for length in random.integers(1, 40, 60)]

    def columns(ids):
        return {"inputs": {"input_ids": [ids], "attention_mask": [[1] * len(ids)]}}

    async def ask_all(url):
        async with httpx2.AsyncClient(limits=LIMITS, timeout=60) as client:
            posts = (client.post(f"{url}/predict", json=columns(ids)) for ids in texts)
            return [answer.json()["outputs"] for answer in await asyncio.gather(*posts)]

    with Served(path, "--max-queue-delay-ms", "50", "--max-batch-size", "16") as served:
        alone = asyncio.run(ask_all(served.url))
        runs_alone = runs_of(served)
    with Served(path, "--max-queue-delay-ms", "50", "--max-batch-size", "16", "--length-buckets", "8,16,40") as served:
        assert "  lengths   rows of a bucket share a batch" in served.banner
        together = asyncio.run(ask_all(served.url))
        runs_together = runs_of(served)

    assert runs_together < runs_alone
    for one, two, ids in zip(alone, together, texts, strict=True):
        assert np.shape(two["tokens"]) == (1, len(ids), 64)
        for name in one:
            np.testing.assert_allclose(one[name], two[name], atol=1e-5)


def runs_of(served):
    lines = httpx2.get(f"{served.url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("inference_batches_total{"))


def test_plain_uvicorn_serves_the_same(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", "redserve.server:create_app", "--port", str(port)],
        env={"REDSERVE_MODEL": str(row_encoding(tmp_path)), "PATH": ""},
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: not is_refused(url) and httpx2.get(f"{url}/readyz").status_code == 200)
        answer = httpx2.post(f"{url}/predict", json={"instances": [[1, 2, 3, 4]]})
    finally:
        server.terminate()
        server.wait(30)
    assert answer.json() == {"predictions": [[3, 5, 7, 9]]}


def test_clients_in_a_closed_loop_lose_no_request_at_sigterm(tmp_path):
    with Served(str(row_encoding(tmp_path))) as served:
        lost, answered, farewells = asyncio.run(loop_until_it_ends(served))
        status = served.wait()

    assert status == 0, served.errors
    assert lost == 0
    assert farewells == 64
    assert answered > 64


async def loop_until_it_ends(served):
    """64 connections, each asking again as soon as it is answered, until the server says that it closes."""
    host, port = served.url.removeprefix("http://").split(":")
    body = b'{"instances": [[1, 2, 3, 4]]}'
    head = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    tally = {"lost": 0, "answered": 0, "farewells": 0}
    first_answers = asyncio.Event()

    async def client():
        reader, writer = await asyncio.open_connection(host, port)
        try:
            while True:
                writer.write(head % len(body) + body)
                answer = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                tally["answered"] += 1
                if tally["answered"] > 256:
                    first_answers.set()
                if b"connection: close" in answer:
                    tally["farewells"] += 1
                    return
        except (asyncio.IncompleteReadError, OSError):
            tally["lost"] += 1
        finally:
            writer.close()

    clients = [asyncio.create_task(client()) for _ in range(64)]
    await first_answers.wait()
    served.signal()
    await asyncio.gather(*clients)
    return tally["lost"], tally["answered"], tally["farewells"]


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.2])
def test_sigterm_while_the_model_loads_ends_it_with_0_and_without_a_trace(tmp_path, after_s):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [*REDSERVE, "serve", str(row_encoding(tmp_path)), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: not is_refused(f"http://127.0.0.1:{port}"))  # it answers before the model is loaded
    time.sleep(after_s)
    server.terminate()
    _, errors = server.communicate(timeout=30)

    assert server.returncode == 0
    assert "Traceback" not in errors


@pytest.mark.parametrize("file_name", ["a b.onnx", "a#b.onnx", "a%41.onnx", "ü.onnx", "-.onnx"])
def test_the_curl_line_works_whatever_the_file_is_called(tmp_path, file_name):
    path = tmp_path / file_name
    row_encoding(tmp_path).rename(path)
    with Served(str(path)) as served:
        assert set(shell(served.curl)) == {"predictions"}


def test_an_ipv6_address_is_printed_so_that_it_can_be_used(tmp_path):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with Served(str(row_encoding(tmp_path)), "--host", "::1") as served:
        assert served.url.startswith("http://[::1]:")
        assert set(shell(served.curl)) == {"predictions"}


def test_a_drain_delay_keeps_serving_while_not_ready(tmp_path):
    with Served(str(row_encoding(tmp_path)), "--drain-delay-s", "1") as served:
        served.signal()
        until(lambda: httpx2.get(f"{served.url}/readyz").status_code == 503)
        answer = httpx2.post(f"{served.url}/predict", json={"instances": [[1, 2, 3, 4]]})

        assert answer.json() == {"predictions": [[3, 5, 7, 9]]}
        assert served.wait() == 0


def test_the_version_is_told():
    assert run("--version").stdout.startswith("redserve 0.")
