import os
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from redserve.metrics.families import family_sets
from redserve.metrics.merging import copies_of
from redserve.metrics.rendering import render
from redserve.metrics.workers import ProcessUse, WorkerMetrics, worker_numbers

BUSY = "sum(range(10_000_000)); print(flush=True); input()"


def value(numbers, name):
    return numbers[name][1][()][0][0]


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for another process's numbers")
def test_the_time_of_a_child_counts_while_it_runs_and_when_it_has_ended():
    use = ProcessUse()
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        alone, both = use.read([]), use.read([child.pid])
        child.communicate(b"\n")
    after = use.read([])

    assert value(both, "process_cpu_seconds") > value(alone, "process_cpu_seconds")
    assert value(after, "process_cpu_seconds") >= value(both, "process_cpu_seconds")
    assert value(both, "process_resident_memory_bytes") > value(after, "process_resident_memory_bytes")
    assert value(both, "process_start_time_seconds") == value(alone, "process_start_time_seconds")


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for a process's numbers")
def test_a_process_that_is_gone_takes_nothing():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass

    assert value(ProcessUse().read([child.pid]), "process_max_fds") == value(ProcessUse().read([]), "process_max_fds")


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for a process's numbers")
def test_what_the_supervisor_fills_in_is_what_a_worker_shows():
    registry = CollectorRegistry()
    WorkerMetrics(registry)
    numbers = worker_numbers({"ready": 2, "silent": 1}, 3) | ProcessUse().read([os.getpid()])

    text = b"".join(render(copies_of(family_sets(registry), numbers, {}).values(), is_openmetrics=False)).decode()

    assert 'inference_workers{state="ready"} 2\n' in text
    assert 'inference_workers{state="silent"} 1\n' in text
    assert "inference_worker_restarts_total 3\n" in text
    assert set(numbers) == {family.name for sets in family_sets(registry) for family in sets.families}
