"""Measuring: which setting of a contestant is best, then rounds in which they take turns."""

import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import drivers
from contestants import Contestant, Setting
from load.watched import machine_cpu_s
from running import Running
from workload import Workload

TUNING_PASSES = 2
WARM_UPS = 5
"""Tries, until one is answered whole: of several processes one may take connections before its model is ready."""

QUIET_CORES = 0.25
"""What the machine's other processes may take of it; a load that they took more from is repeated."""

BEYOND = 0.9
"""An open loop asks nobody for more than this part of what its closed loop reached: its queue would only grow."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured.

    Attributes:
        driver: Of the closed loop: `wrk` or `redserve`.
        connections: Of the closed loop; an open loop begins with so many.
        rounds: Of each contestant.
        seconds: Of each closed loop.
        warm_up_s: Before it.
        tuning_s: For each setting, twice; 0 takes the first one.
        rates: Of the open loops, requests a second.
        open_s: Of each open loop.
        tries: Of each load, until it has the machine for itself.
        server_cores: Those that a server runs on; `None`: where this process and its senders do.
    """

    driver: str
    connections: int
    rounds: int
    seconds: float
    warm_up_s: float
    tuning_s: float
    rates: Sequence[float]
    open_s: float
    tries: int
    server_cores: frozenset[int] | None = None


def tune(contestant: Contestant, workload: Workload, extent: Extent) -> dict[str, Any]:
    """Each of its settings in a closed loop; the best by requests a second, with what all of them reached."""
    settings = contestant.settings(workload.name, extent.connections)
    if len(settings) == 1 or not extent.tuning_s:
        return {"setting": settings[0], "tried": []}
    reached: list[list[float]] = [[] for _ in settings]
    for _ in range(TUNING_PASSES):
        for per_s, setting in zip(reached, settings, strict=True):
            with Running(contestant, workload, setting, extent.server_cores) as server:
                found = ask(server, workload, extent, seconds=extent.tuning_s)
            per_s.append(found["per_s"])
    best = max(range(len(settings)), key=lambda number: statistics.mean(reached[number]))
    tried = [{"setting": setting, "per_s": per_s} for setting, per_s in zip(settings, reached, strict=True)]
    return {"setting": settings[best], "tried": tried}


def one_round(contestant: Contestant, workload: Workload, setting: Setting, extent: Extent) -> dict[str, Any]:
    """A fresh server: its answers, its closed loop, its open loops."""
    began_s = time.monotonic()
    with Running(contestant, workload, setting, extent.server_cores) as server:
        start_s = time.monotonic() - began_s
        closed = ask(server, workload, extent, seconds=extent.seconds)
        loops = []
        for rate in extent.rates:
            if rate > BEYOND * closed["per_s"]:
                loops.append({"rate_per_s": rate, "is_beyond": True})
                continue
            how = {"rate_per_s": rate, "connections": extent.connections, "seconds": extent.open_s}
            loops.append(undisturbed(server, extent.tries, partial(drivers.open_loop, workload, server.port, **how)))
        workload.check(server.port)
        return {"start_s": round(start_s, 2), "processes": len(server.pids()), "closed": closed, "open": loops}


def ask(server: Running, workload: Workload, extent: Extent, *, seconds: float) -> dict[str, Any]:
    """A closed loop, warmed up."""
    load = partial(drivers.closed, extent.driver, workload, server.port, connections=extent.connections)
    for left in reversed(range(WARM_UPS)):
        try:
            load(seconds=extent.warm_up_s)
            break
        except drivers.Failed:
            if not left:
                raise
    return undisturbed(server, extent.tries, partial(load, seconds=seconds))


def undisturbed(server: Running, tries: int, load: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A load that had the machine for itself, or the last try."""
    for number in range(1, tries + 1):
        found = watched(server, load) | {"tries": number}
        if found["neighbours_cores"] <= QUIET_CORES:
            break
    return found


def watched(server: Running, load: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a load found, with the CPU that it took: of the server a request, of the sender, of the machine's others."""
    began_s, server_s, sender_s, machine_s = time.monotonic(), server.cpu_s(), _children_cpu_s(), machine_cpu_s()
    found = load()
    took_s = time.monotonic() - began_s
    server_s, sender_s = server.cpu_s() - server_s, _children_cpu_s() - sender_s
    others_s = machine_cpu_s() - machine_s - server_s - sender_s
    return found | {
        "cpu_us_per_request": round(1e6 * server_s / max(found["requests"], 1), 1),
        "server_cores": round(server_s / took_s, 2),
        "sender_cores": round(sender_s / took_s, 2),
        "neighbours_cores": round(max(others_s, 0.0) / took_s, 2),
    }


def take_turns(
    contestants: Sequence[Contestant], workload: Workload, settings: Mapping[str, Setting], extent: Extent
) -> Iterator[dict[str, Any]]:
    """A B C, C B A, A B C ...: whoever compares two of them compares neighbours in time."""
    for number in range(extent.rounds):
        found = {}
        for contestant in contestants if number % 2 == 0 else contestants[::-1]:
            found[contestant.name] = one_round(contestant, workload, settings[contestant.name], extent)
            print(f"  round {number + 1}  {line_of(contestant.name, found[contestant.name])}", flush=True)
        yield {contestant.name: found[contestant.name] for contestant in contestants}


def line_of(name: str, found: dict[str, Any]) -> str:
    """A round of one contestant, for people."""
    closed = found["closed"]
    text = (
        f"{name:<16}{closed['per_s']:>9,.0f}/s  p50 {closed['p50_ms']:.2f}  p99 {closed['p99_ms']:.2f} ms"
        f"  {closed['cpu_us_per_request']:.0f} us CPU  neighbours {closed['neighbours_cores']:.2f}"
    )
    for loop in found["open"]:
        if not loop.get("is_beyond"):
            text += f"   | {loop['rate_per_s']:,.0f}/s: p50 {loop['p50_ms']:.2f}  p99 {loop['p99_ms']:.2f} ms"
            text += "" if loop["kept_rate"] else " (sender late)"
    return text


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
