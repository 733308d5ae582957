"""A real Prometheus for the tests: scrapes each second, takes targets while it runs, answers PromQL.

Discovery hands new targets over every five seconds whatever the scrape interval is, so one server is shared by the
whole session, and a target is added before the traffic that it should see.
"""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

from fetch import Refused, fetch

T = TypeVar("T")
Sample = tuple[dict[str, str], float]

START_LIMIT_S = 20.0
TARGET_LIMIT_S = 30.0
SCRAPE_LIMIT_S = 15.0
RULES_LIMIT_S = 15.0
STOP_LIMIT_S = 10.0


class PrometheusServer:
    """Runs `program` in `folder` from `__enter__` to `__exit__`, with `rule_files` evaluated each second.

    All targets are scraped with `scrape_settings`, as in Prometheus's own `scrape_configs`.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        *,
        rule_files: Sequence[Path] = (),
        scrape_settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._program = program
        self._folder = folder
        self._rule_files = rule_files
        self._scrape_settings = scrape_settings or {}
        self._targets: dict[str, int] = {}
        self._log = folder / "prometheus.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self._write_configuration()
        for _ in range(3):  # another process may take the free port between the look and the start
            self._start(_free_port())
            if self._is_ready():
                return self
            self._stop()
        raise RuntimeError(f"prometheus did not become ready:\n{self._log.read_text(errors='replace')[-2000:]}")

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def add_target(self, job: str, port: int) -> None:
        """Scrape 127.0.0.1:`port` as `job`, and wait until that has worked once."""
        self._targets[job] = port
        self._write_targets()
        self._until(
            lambda: self.value(f'up{{job="{job}"}} == 1'), limit_s=TARGET_LIMIT_S, what=f"{job} was not scraped"
        )

    def remove_target(self, job: str) -> None:
        """Scrape `job` no more; its series stay."""
        del self._targets[job]
        self._write_targets()

    def wait_for_scrape(self, job: str) -> None:
        """Wait until a scrape of `job` that began after this call is stored."""
        now_s = time.time()
        query = f'timestamp(up{{job="{job}"}}) > {now_s:.3f}'
        self._until(lambda: self.value(query), limit_s=SCRAPE_LIMIT_S, what=f"{job} was not scraped again")

    def query(self, expression: str) -> list[Sample]:
        """The instant vector of `expression` now: labels and value of each series.

        Raises:
            ValueError: Prometheus refuses the expression.
        """
        answer = self._get("/api/v1/query", query=expression)
        if answer["resultType"] == "scalar":
            return [({}, float(answer["result"][1]))]
        return [(series["metric"], float(series["value"][1])) for series in answer["result"]]

    def wait_for(self, expression: str) -> list[Sample]:
        """As `query`, once it finds anything: a rule counts as evaluated a little before its samples are stored."""
        return self._until(
            lambda: self.query(expression) or None, limit_s=RULES_LIMIT_S, what=f"{expression} has no data"
        )

    def value(self, expression: str) -> float | None:
        """The value of the only series of `expression`; `None` when there is none."""
        samples = self.query(expression)
        if len(samples) > 1:
            raise ValueError(f"{expression} has {len(samples)} series, not one")
        return samples[0][1] if samples else None

    def evaluated_rules(self) -> list[dict[str, Any]]:
        """Every rule as the API shows it (name, health, type), once all were evaluated after this call."""
        now = datetime.now(UTC)

        def look() -> list[dict[str, Any]] | None:
            rules = [rule for group in self._get("/api/v1/rules")["groups"] for rule in group["rules"]]
            is_done = all(datetime.fromisoformat(rule["lastEvaluation"]) > now for rule in rules)
            return rules if is_done else None

        return self._until(look, limit_s=RULES_LIMIT_S, what="the rules were not evaluated")

    def _get(self, path: str, **parameters: str) -> Any:
        try:
            return json.loads(fetch(f"{self.url}{path}?{urlencode(parameters)}"))["data"]
        except Refused as refusal:
            raise ValueError(f"prometheus refuses {parameters or path}: {refusal}") from None

    def _until(self, look: Callable[[], T | None], *, limit_s: float, what: str) -> T:
        deadline_s = time.monotonic() + limit_s
        while (seen := look()) is None:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{what} within {limit_s:g} s")
            time.sleep(0.05)
        return seen

    def _write_configuration(self) -> None:
        targets = {"files": [str(self._folder / "targets.json")]}
        configuration = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in self._rule_files],
            "scrape_configs": [{"job_name": "tests", "file_sd_configs": [targets], **self._scrape_settings}],
        }
        (self._folder / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
        self._write_targets()

    def _write_targets(self) -> None:
        groups = [{"targets": [f"127.0.0.1:{port}"], "labels": {"job": job}} for job, port in self._targets.items()]
        draft = self._folder / "targets.draft"
        draft.write_text(json.dumps(groups))
        draft.replace(self._folder / "targets.json")

    def _start(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--storage.tsdb.retention.time=1h",
                    "--enable-feature=exemplar-storage",
                    "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _is_ready(self) -> bool:
        """Whether it answers `/-/ready` in time; false as soon as it is gone."""
        deadline_s = time.monotonic() + START_LIMIT_S
        while self._process and self._process.poll() is None and time.monotonic() < deadline_s:
            try:
                fetch(f"{self.url}/-/ready", timeout_s=1)
                return True
            except OSError:
                time.sleep(0.05)
        return False

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_LIMIT_S)
        self._process = None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
