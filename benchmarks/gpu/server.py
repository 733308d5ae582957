"""`redserve serve` with a model at a time, loaded and unloaded by request: what one fails at is no other's loss."""

import http.client
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gpu.bodies import FORMS, request_of
from gpu.client import LIMIT_S, Client
from gpu.workloads import Workload
from load.watched import Scrape, cpu_s, read_scrape
from prometheus_client.parser import text_string_to_metric_families

from redserve.bench.arrivals import Poisson
from redserve.bench.load import Load
from redserve.bench.processes import Processes

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "end_to_end"))
from fetch import fetch
from served import Served

ROOM = (
    "--max-body-mib",
    "256",
    "--max-queue-mib",
    "4096",
    "--max-queue-rows",
    "16384",
    "--request-timeout-ms",
    "30000",
)
SENDERS = max(1, (os.cpu_count() or 1) // 4)


class Server:
    """A server and the folder that it serves.

    Args:
        device: Where its models run.
        flags: More of its settings.
    """

    def __init__(self, device: str, *flags: str) -> None:
        self.device = device
        self._temporary = tempfile.TemporaryDirectory(prefix="redserve-gpu-")
        self._folder = Path(self._temporary.name)
        self._served = Served(
            *("--repository", str(self._folder), "--repository-mode", "explicit", "--device", device, *ROOM, *flags)
        )

    def __enter__(self) -> Self:
        self._served.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._served.__exit__(kind, error, trace)
        self._temporary.cleanup()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._served.process.pid

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._served.url.rpartition(":")[2])

    def load(self, workload: Workload, **settings: str | int | bool) -> float:
        """Load a model, with lines of its `config.toml`; returns the seconds until it was ready.

        Raises:
            RuntimeError: It cannot be.
        """
        model = self._folder / workload.title
        (model / "1").mkdir(parents=True, exist_ok=True)
        if not (model / "1" / "model.onnx").exists():
            (model / "1" / "model.onnx").symlink_to(workload.path.resolve())
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        options = [f"{key} = {json.dumps(value)}" for key, value in workload.provider_options(self.device).items()]
        (model / "config.toml").write_text("\n".join([*lines, "[provider_options]", *options]) + "\n")
        began_s = time.perf_counter()
        self._post(f"/v2/repository/models/{workload.title}/load")
        return time.perf_counter() - began_s

    def unload(self, workload: Workload) -> None:
        """Unload it, once what it has taken is answered."""
        self._post(f"/v2/repository/models/{workload.title}/unload")

    def check(self, workload: Workload, rows: int) -> float:
        """Ask in each form; how far the answers are off at the worst.

        Raises:
            WrongAnswer: Too far.
        """
        given = workload.rows(rows)
        with Client(self.port) as client:
            answers = [client.ask(form, request_of(form, workload.title, given)) for form in FORMS]
        return max(map(workload.error_ratio, answers))

    def scrape(self) -> Scrape:
        """What it has counted."""
        return read_scrape(fetch(f"{self._served.url}/metrics"))

    def info(self, workload: Workload) -> dict[str, str]:
        """The labels of the info metric."""
        page = text_string_to_metric_families(fetch(f"{self._served.url}/metrics"))
        (labels,) = (
            sample.labels
            for family in page
            for sample in family.samples
            if sample.name == "inference_model_info" and sample.labels["model"] == workload.title
        )
        return labels

    def drive(
        self, requests: list[bytes], *, rows: int, connections: int, seconds: float, rate_per_s: float | None = None
    ) -> dict[str, Any]:
        """Send for so long, in a closed loop or as independent clients do, and say what came of it.

        `busy_ratio` is the time of runs by the clock: below 1, the device waited for requests; two at a time can be 2.
        Where `sender_late_p99_ms` is much of the latency, the sender was the limit.

        Raises:
            RuntimeError: Not everything was answered.
        """
        load = Load(
            host="127.0.0.1",
            port=self.port,
            requests=requests,
            arrivals=None if rate_per_s is None else Poisson(rate_per_s),
            connections=max(connections, SENDERS),
            duration_s=seconds,
        )
        with Processes(load, SENDERS) as senders:
            senders.run(seconds / 4, lambda *_: None)
            before, cpu_before_s, began_s = self.scrape(), cpu_s(self.pid), time.perf_counter()
            tally = senders.run(seconds, lambda *_: None)
            wall_s, burnt_s, after = time.perf_counter() - began_s, cpu_s(self.pid) - cpu_before_s, self.scrape()
        if tally.failures:
            raise RuntimeError(f"not every request was answered: {dict(tally.failures)} {dict(tally.examples)}")
        p50_s, p99_s = tally.latency.percentiles_s((50.0, 99.0))
        runs = after.runs - before.runs
        return {
            "rows_a_request": rows,
            "connections": connections,
            "requests_per_s": round(tally.ok_per_s, 1),
            "rows_per_s": round(rows * tally.ok_per_s, 1),
            "p50_ms": round(1000 * p50_s, 3),
            "p99_ms": round(1000 * p99_s, 3),
            "batch_mean_rows": round((after.run_rows - before.run_rows) / runs, 1) if runs else None,
            "busy_ratio": round((after.run_s - before.run_s) / wall_s, 3),
            "server_cores": round(burnt_s / wall_s, 2),
            "sender_late_p99_ms": round(1000 * tally.own_delay.percentile_s(99), 3),
        }

    def _post(self, path: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        connection.request("POST", path, b"{}", {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}: {body[:500]!r}")
