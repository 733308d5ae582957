"""`redserve serve --workers 2`: one port, exact numbers at any of them, deaths, and the end."""

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from random import Random

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from served import REDSERVE, Served
from test_shutdown import GATED, PATHS, children_of, exchange, in_flight, is_ready, keep_asking, request_of, until

from engine.onnx_models import row_encoding

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the processes of a server")

ROW = json.dumps({"instances": [[1, 2, 3, 4]]})
KINDS = {
    "ok": ("/predict", ROW, 200),
    "too short": ("/predict", '{"instances": [[1]]}', 400),
    "no such model": ("/predict/nobody", ROW, 404),
    "v2": ("/v2/models/row_encoding/infer", "no json", 400),
}
QUICK = request_of([0, 0])
SLOW = request_of([1, 0])


def connection_to(url):
    return HTTPConnection(url.removeprefix("http://"), timeout=60)


def post(connection, path, body):
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def get(connection, path):
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.read().decode()


def numbers_of(text):
    """Sums by name of the sample, over all labels."""
    sums = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] += sample.value
    return sums


def ended_by_code(text):
    counts = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "inference_requests_total":
                counts[int(sample.labels["code"])] += int(sample.value)
    return counts


def assert_adds_up(numbers):
    in_flight_now = numbers["inference_requests_in_flight"]
    assert numbers["inference_requests_received_total"] == numbers["inference_requests_total"] + in_flight_now


def pids_of(served):
    return [int(pid) for pid in children_of(served.process)]


def is_running(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def sockets_of(pid):
    count = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += os.readlink(path).startswith("socket:")
        except OSError:
            continue  # closed meanwhile
    return count


def workers_by_state(url):
    text = httpx2.get(f"{url}/metrics", timeout=60).text
    return {
        sample.labels["state"]: int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "inference_workers"
    }


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    path = row_encoding(tmp_path_factory.mktemp("models"))
    with Served(str(path), "--workers", "2", "--name", "row_encoding") as served:
        yield served


def test_it_says_once_that_it_is_ready_and_with_how_many(served):
    assert "workers   2 processes" in served.banner
    assert served.banner.count("redserve is ready") == 1
    assert len(pids_of(served)) == 2


def test_connections_are_shared_out_evenly(served):
    before = [sockets_of(pid) for pid in pids_of(served)]
    with ExitStack() as open_:
        host, port = served.url.removeprefix("http://").split(":")
        for _ in range(64):
            open_.enter_context(socket.create_connection((host, int(port))))
        until(lambda: sum(map(sockets_of, pids_of(served))) - sum(before) == 64)
        after = [sockets_of(pid) for pid in pids_of(served)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [32, 32]


def test_a_scrape_at_any_worker_has_what_was_answered_before_it(served):
    clients = [connection_to(served.url) for _ in range(2)]  # in turn: one of each worker
    counted = numbers_of(get(clients[0], "/metrics"))["inference_requests_total"]
    for turn in range(60):
        assert post(clients[turn % 2], "/predict", ROW) == 200
        counted += 1
        for client in clients:
            numbers = numbers_of(get(client, "/metrics"))
            assert numbers["inference_requests_total"] == counted
            assert_adds_up(numbers)
    for client in clients:
        client.close()


def test_what_clients_saw_is_what_all_workers_count_together_while_they_are_scraped(served):
    clients, each = 16, 125
    is_over = asyncio.Event()

    async def ask(number):
        random, seen = Random(number), Counter()

        def work():
            connection = connection_to(served.url)
            for _ in range(each):
                path, body, status = KINDS[random.choice(sorted(KINDS))]
                assert post(connection, path, body) == status
                seen[status] += 1
            connection.close()

        await asyncio.to_thread(work)
        return seen

    async def scrape():
        scrapes, last = 0, Counter()
        while not is_over.is_set():
            connection = connection_to(served.url)  # each time another: of the workers in turn
            numbers = numbers_of(await asyncio.to_thread(get, connection, "/metrics"))
            connection.close()
            assert_adds_up(numbers)
            for name in ("inference_requests_total", "inference_request_latency_seconds_count"):
                assert numbers[name] >= last[name]
            scrapes, last = scrapes + 1, numbers
        return scrapes

    async def main():
        scraping = asyncio.create_task(scrape())
        seen = await asyncio.gather(*map(ask, range(clients)))
        is_over.set()
        return sum(seen, Counter()), await scraping

    before = ended_by_code(httpx2.get(f"{served.url}/metrics").text)
    seen, scrapes = asyncio.run(main())
    after = ended_by_code(httpx2.get(f"{served.url}/metrics").text)

    assert seen.total() == clients * each
    assert after - before == seen
    assert scrapes > 1  # of either worker


def test_statistics_of_a_model_are_those_of_all_workers(served):
    clients = [connection_to(served.url) for _ in range(2)]
    before, _ = (json.loads(get(client, "/v2/models/row_encoding/stats"))["model_stats"][0] for client in clients)
    for client in clients * 5:
        assert post(client, "/predict", ROW) == 200

    for client in clients:
        after = json.loads(get(client, "/v2/models/row_encoding/stats"))["model_stats"][0]
        assert after["inference_count"] - before["inference_count"] == 10
        client.close()


def test_a_worker_that_does_not_answer_is_shown_and_holds_up_no_scrape(served):
    with ExitStack() as undone:
        clients = [connection_to(served.url) for _ in range(2)]  # in turn: one of each worker
        for client in clients:
            undone.callback(client.close)
            before = numbers_of(get(client, "/metrics"))["inference_requests_total"]
        stopped = pids_of(served)[0]
        undone.callback(os.kill, stopped, signal.SIGCONT)
        os.kill(stopped, signal.SIGSTOP)
        awake = next(client for client in clients if is_alive(client))
        assert post(awake, "/predict", ROW) == 200
        text = get(awake, "/metrics")
        assert 'inference_workers{state="silent"} 1' in text
        assert numbers_of(text)["inference_requests_total"] == before + 1
        assert_adds_up(numbers_of(text))
        assert json.loads(get(awake, "/readyz"))["reasons"] == {"workers": "1 of 2 are ready"}
        for _ in range(4):  # who comes now gets to the other one
            client = connection_to(served.url)
            undone.callback(client.close)
            client.connect()
            assert is_alive(client)
    with ExitStack() as undone:
        had = sockets_of(stopped)

        def gets_a_connection():
            client = connection_to(served.url)
            undone.callback(client.close)
            client.connect()
            return sockets_of(stopped) > had

        until(gets_a_connection)  # again, without a scrape
    until(lambda: workers_by_state(served.url) == {"ready": 2, "silent": 0, "starting": 0})
    assert is_ready(served.url)


def is_alive(client):
    """Whether its worker answers; one that is stopped never does."""
    client.sock.settimeout(2.0)
    try:
        get(client, "/livez")
    except TimeoutError:
        return False
    client.sock.settimeout(60)
    return True


def test_a_worker_that_dies_is_replaced_and_no_count_falls(tmp_path):
    gate = tmp_path / "gate"

    async def main(served):
        asked = [asyncio.create_task(exchange(served.url, SLOW)) for _ in range(2)]
        await asyncio.to_thread(until, lambda: in_flight(served) == 2)
        before = numbers_of(httpx2.get(f"{served.url}/metrics").text)
        victim, survivor = pids_of(served)
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(until, lambda: workers_by_state(served.url)["ready"] == 1)
        assert not is_ready(served.url)
        died = 'inference_errors_total{route="_other",model="",reason="worker_died"} 1'
        await asyncio.to_thread(until, lambda: died in httpx2.get(f"{served.url}/metrics").text)
        numbers = numbers_of(httpx2.get(f"{served.url}/metrics").text)
        assert numbers["inference_requests_in_flight"] == 1
        assert_adds_up(numbers)
        assert all(numbers[name] >= before[name] for name in before if name.endswith(("_total", "_count")))
        await asyncio.to_thread(until, lambda: is_ready(served.url))
        assert survivor in pids_of(served)
        assert victim not in pids_of(served)
        assert numbers_of(httpx2.get(f"{served.url}/metrics").text)["inference_worker_restarts_total"] == 1
        gate.touch()
        return await asyncio.gather(*asked)

    arguments = ("--workers", "2", "--max-batch-size", "1")
    with Served(*arguments, program=GATED, environment=PATHS | {"GATE": str(gate)}) as served:
        answers = asyncio.run(main(served))
        served.signal()
        status = served.wait()

    assert Counter(answers) == {200: 1, "lost": 1}
    assert status == 0, served.errors
    assert "a worker died" in served.errors
    assert "ended=by SIGKILL" in served.errors
    assert "Traceback" not in served.errors


def test_workers_that_die_over_and_over_end_the_server_with_a_reason(tmp_path):
    with Served(str(row_encoding(tmp_path)), "--workers", "2") as served:
        known = pids_of(served)
        doomed, keeps = known
        while served.process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(doomed, signal.SIGKILL)
            known.append(doomed)
            until(lambda: set(pids_of(served)) - set(known) or served.process.poll() is not None)
            doomed = next(iter(set(pids_of(served)) - set(known)), doomed)
        status = served.wait()

    assert status == 1
    assert "redserve: 6 workers died one after the other, the last by SIGKILL: giving up\n" in served.errors
    assert "Traceback" not in served.errors
    assert not any(map(is_running, {*known, keeps}))


def test_a_worker_that_cannot_be_started_for_now_ends_none_of_the_others(tmp_path):
    with Served(str(row_encoding(tmp_path)), "--workers", "2") as served:
        pid = served.process.pid
        victim, survivor = pids_of(served)
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        taken = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (taken, usual[1]))
        os.kill(victim, signal.SIGKILL)
        until(lambda: "ended=at its start: Too many open files" in served.errors)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
        until(lambda: is_ready(served.url))
        assert survivor in pids_of(served)
        assert numbers_of(httpx2.get(f"{served.url}/metrics").text)["inference_worker_restarts_total"] == 1
        served.signal()
        status = served.wait()

    assert status == 0, served.errors
    assert "Traceback" not in served.errors


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "told to end"])
def test_no_worker_outlives_its_supervisor(tmp_path, number):
    with Served(str(row_encoding(tmp_path)), "--workers", "2") as served:
        workers = pids_of(served)
        served.signal(number)
        served.wait()
        until(lambda: not any(map(is_running, workers)))

    assert len(workers) == 2
    assert "Traceback" not in served.errors


def test_a_signal_to_the_whole_group_is_one_signal(tmp_path):
    program = [*REDSERVE, "serve", str(row_encoding(tmp_path)), "--workers", "2", "--port", "0"]
    process = subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not process.stdout.readline().lstrip().startswith("docs"):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_within_the_drain_delay_all_workers_take_what_comes_and_none_is_ready(tmp_path):
    gate = tmp_path / "gate"

    async def main(served):
        tally = Counter()
        asked = [asyncio.create_task(exchange(served.url, SLOW)) for _ in range(64)]
        await asyncio.to_thread(until, lambda: in_flight(served) == 64)
        served.signal()
        await asyncio.to_thread(until, lambda: not is_ready(served.url))
        reasons = [httpx2.get(f"{served.url}/readyz").json()["reasons"] for _ in range(2)]
        asked += [asyncio.create_task(exchange(served.url, QUICK)) for _ in range(16)]
        await asyncio.to_thread(until, lambda: in_flight(served) == 80)
        gate.touch()
        await asyncio.gather(*(keep_asking(served.url, QUICK, tally) for _ in range(4)))
        return reasons, await asyncio.gather(*asked), tally

    arguments = ("--workers", "2", "--max-batch-size", "1", "--drain-delay-s", "3")
    with Served(*arguments, program=GATED, environment=PATHS | {"GATE": str(gate)}) as served:
        workers = pids_of(served)
        reasons, answers, tally = asyncio.run(main(served))
        status = served.wait()

    assert status == 0, served.errors
    assert reasons == [{"server": "shutting down"}] * 2
    assert Counter(answers) == {200: 80}
    assert set(tally) <= {200, "lost"}
    assert tally[200] > 0
    assert tally["lost"] <= 1  # see test_shutdown.py
    assert not any(map(is_running, workers))
    assert "Traceback" not in served.errors


def test_whoever_has_connected_when_it_stops_listening_is_answered(tmp_path):
    async def main(served):
        tally = Counter()
        clients = [asyncio.create_task(keep_asking(served.url, request_of("[1, 2, 3, 4]"), tally)) for _ in range(32)]
        await asyncio.to_thread(until, lambda: tally[200] >= 64)
        served.signal()
        await asyncio.gather(*clients)
        return tally

    with Served(str(row_encoding(tmp_path)), "--workers", "2") as served:
        tally = asyncio.run(main(served))
        status = served.wait()

    assert status == 0, served.errors
    assert set(tally) <= {200, "lost"}
    assert tally["lost"] <= 1  # see test_shutdown.py


def test_what_the_grace_time_does_not_suffice_for_is_turned_away_with_status_1():
    async def main(served):
        asked = [asyncio.create_task(exchange(served.url, SLOW)) for _ in range(8)]
        await asyncio.to_thread(until, lambda: in_flight(served) == 8)
        served.signal()
        return await asyncio.gather(*asked)

    arguments = ("--workers", "2", "--max-batch-size", "1", "--grace-s", "1")
    with Served(*arguments, program=GATED, environment=PATHS) as served:
        workers = pids_of(served)
        answers = asyncio.run(main(served))
        status = served.wait()

    assert Counter(answers) == {503: 8}
    assert status == 1
    assert not any(map(is_running, workers))
    assert "Traceback" not in served.errors


def test_a_second_signal_ends_all_at_once():
    async def main(served):
        asked = [asyncio.create_task(exchange(served.url, SLOW)) for _ in range(4)]
        await asyncio.to_thread(until, lambda: in_flight(served) == 4)
        served.signal()
        await asyncio.to_thread(until, lambda: not is_ready(served.url))
        begun_s = time.monotonic()
        served.signal()
        return await asyncio.gather(*asked), begun_s

    arguments = ("--workers", "2", "--max-batch-size", "1", "--grace-s", "600")
    with Served(*arguments, program=GATED, environment=PATHS) as served:
        workers = pids_of(served)
        answers, begun_s = asyncio.run(main(served))
        status = served.wait()

    assert set(answers) <= {503, "lost"}
    assert status == 1
    assert time.monotonic() - begun_s < 60  # of the 600
    assert not any(map(is_running, workers))
    assert "Traceback" not in served.errors


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_while_one_worker_is_ready_those_that_still_load_get_no_connections(tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | PATHS | {"LOADS": str(tmp_path)}

    def is_halfway():
        try:
            return workers_by_state(url) == {"ready": 1, "silent": 0, "starting": 1}
        except httpx2.HTTPError:
            return False

    with subprocess.Popen([*GATED, "--workers", "2", "--port", str(port)], env=environment) as process:
        until((tmp_path / "waits").exists)
        until(is_halfway)
        answers = [asyncio.run(exchange(url, QUICK)) for _ in range(10)]
        (tmp_path / "all").touch()
        until(lambda: is_ready(url))
        process.terminate()

    assert answers == [200] * 10
    assert process.returncode == 0


def test_it_serves_also_when_nobody_reads_what_it_says(tmp_path):
    port = free_port()
    reading, writing = os.pipe()
    os.close(reading)
    command = [*REDSERVE, "serve", str(row_encoding(tmp_path)), "--workers", "2", "--port", str(port)]
    process = subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    with process:
        assert "the server is ready, but cannot say so" in next(line for line in process.stderr if "ERROR" in line)
        assert is_ready(f"http://127.0.0.1:{port}")
        process.terminate()
        process.stderr.read()

    assert process.returncode == 0


def run(*arguments):
    return subprocess.run(
        [*REDSERVE, "serve", *arguments, "--port", "0", "--workers", "2"], capture_output=True, text=True, timeout=60
    )


def test_a_model_that_cannot_be_served_ends_it_with_one_message(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")

    done = run(str(broken))

    assert done.returncode == 1
    assert done.stderr.count("redserve: model 'broken' cannot be served: ") == 1
    assert "Traceback" not in done.stderr


def test_settings_that_do_not_go_together_end_it_with_status_2(tmp_path):
    done = run("--api-keys-file", str(tmp_path / "nowhere.toml"))

    assert done.returncode == 2
    assert done.stderr.count("redserve: ") == 1
    assert "nowhere.toml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_ends_it_with_status_1():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [*REDSERVE, "serve", "--port", str(taken.getsockname()[1]), "--workers", "2"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert "already in use" in done.stderr
    assert "Traceback" not in done.stderr
