"""A server process as seen from outside: what it holds and burns by `/proc`, what it counted by its scrape."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Held:
    """What a process holds now.

    Attributes:
        rss_bytes: Memory that is resident.
        threads: Threads.
        fds: Open file descriptors.
        sockets: Those of them that are sockets.
    """

    rss_bytes: int
    threads: int
    fds: int
    sockets: int


def held_by(pid: int) -> Held:
    """Look at a process of ours. Source: proc(5)."""
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    targets = []
    for descriptor in os.listdir(process / "fd"):
        try:
            targets.append(os.readlink(process / "fd" / descriptor))
        except FileNotFoundError:  # closed since it was listed
            continue
    return Held(
        rss_bytes=int(status["VmRSS"].split()[0]) * 1024,
        threads=int(status["Threads"]),
        fds=len(targets),
        sockets=sum(target.startswith("socket:") for target in targets),
    )


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has burnt, in all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def machine_cpu_s() -> float:
    """CPU seconds that the whole machine has burnt, or that were taken from it. Source: proc(5)."""
    with Path("/proc/stat").open() as stat:
        user, nice, system, _, _, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


@dataclass(frozen=True)
class Scrape:
    """One scrape, read.

    Attributes:
        series: How many it has.
        received: Requests that arrived.
        in_flight: Of these, those that have not ended.
        queued_rows: Rows that wait.
        ended: Requests that ended, by route, method and code.
        ended_well: Those of them whose outcome is `ok`.
        failed: Those that did not end well, as the reasons count them.
        runs: Batches that were run.
        run_rows: Rows in them.
        run_s: Seconds they took.
        missed: Answers that were late, as far as the server knows.
    """

    series: int
    received: int
    in_flight: int
    queued_rows: int
    ended: Counter[tuple[str, str, str]]
    ended_well: int
    failed: int
    runs: int
    run_rows: int
    run_s: float
    missed: int

    @property
    def adds_up(self) -> bool:
        """Nothing is lost and nothing is counted twice."""
        total = sum(self.ended.values())
        return self.received == total + self.in_flight and total == self.ended_well + self.failed


def read_scrape(text: str) -> Scrape:
    """Read Prometheus text."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def total(name: str, **labels: str) -> float:
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())

    ended: Counter[tuple[str, str, str]] = Counter()
    for sample in samples:
        if sample.name == "inference_requests_total":
            labels = sample.labels
            ended[labels["route"], labels["method"], labels["code"]] += int(sample.value)
    return Scrape(
        series=len(samples),
        received=int(total("inference_requests_received_total")),
        in_flight=int(total("inference_requests_in_flight")),
        queued_rows=int(total("inference_batch_queue_depth")),
        ended=ended,
        ended_well=int(total("inference_requests_total", outcome="ok")),
        failed=int(total("inference_errors_total")),
        runs=int(total("inference_batch_size_count")),
        run_rows=int(total("inference_batch_size_sum")),
        run_s=total("inference_compute_seconds_sum"),
        missed=int(total("inference_deadline_missed_total")),
    )
