"""Several worker processes as one server: how many there are, how often one died, what all of them take.

One process fills these in for all, so a worker only declares them.
"""

import os
import resource
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector

from redserve.metrics.cells import Counter, Gauge
from redserve.metrics.families import FamilySet, shared_families
from redserve.metrics.merging import Snapshot


class WorkerMetrics:
    """The instruments of one registry and namespace, without numbers of their own.

    Args:
        registry: Where the families are registered; `None` is prometheus_client's default registry, which has
            `process_...` metrics of one process, so that this one needs another.
        namespace: What the names of those about workers begin with.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, namespace: str = "inference") -> None:
        shared_families(_WorkerFamilies, registry, namespace)


class ProcessUse:
    """What a process and its children take together, as the usual `process_...` metrics; Linux tells it.

    The CPU time of children that have ended is included, so that it never falls.
    """

    def __init__(self) -> None:
        self._cpu_s = 0.0

    def read(self, children: Iterable[int]) -> Snapshot:
        """Of this process, and of `children` that run."""
        total = _read(os.getpid())
        for pid in children:
            for name, value in _read(pid).items():
                if name != "process_start_time_seconds":
                    total[name] = total.get(name, 0.0) + value
        if "process_cpu_seconds" in total:
            ended = resource.getrusage(resource.RUSAGE_CHILDREN)
            # One that ends between the two looks is in none of them.
            self._cpu_s = max(self._cpu_s, total["process_cpu_seconds"] + ended.ru_utime + ended.ru_stime)
            total["process_cpu_seconds"] = self._cpu_s
        return {name: ("sum", {(): ([value], {})}) for name, value in total.items()}


def worker_numbers(states: Mapping[str, int], restarts: int, *, namespace: str = "inference") -> Snapshot:
    """How many workers are in which state, and how many have taken the place of one that died."""
    return {
        f"{namespace}_workers": ("sum", {(state,): ([number], {}) for state, number in states.items()}),
        f"{namespace}_worker_restarts": ("sum", {(): ([restarts], {})}),
    }


class _WorkerFamilies(FamilySet):
    def __init__(self, namespace: str) -> None:
        super().__init__(
            (
                Gauge(
                    f"{namespace}_workers",
                    "Worker processes: ready, starting, or silent, whose numbers here are those of an earlier scrape.",
                    ("state",),
                ),
                Counter(f"{namespace}_worker_restarts", "Workers that took the place of one that died."),
                Counter("process_cpu_seconds", "CPU time of all processes, those that have ended included."),
                Gauge("process_resident_memory_bytes", "Resident memory of all processes; what they share, each time."),
                Gauge("process_virtual_memory_bytes", "Virtual memory of all processes."),
                Gauge("process_open_fds", "Open file descriptors of all processes."),
                Gauge("process_max_fds", "Open file descriptors that all processes may have."),
                Gauge("process_start_time_seconds", "When the supervisor started, in seconds since 1970."),
            )
        )


def _read(pid: int) -> dict[str, float]:
    """By name of the metric; of a process that is gone, nothing."""
    collector = ProcessCollector(pid=lambda: pid, registry=None)
    return {metric.name: metric.samples[0].value for metric in collector.collect()}
