"""Thread workers without threads: the real Dispatcher and LingerGate, driven by a list of events in virtual time."""

import heapq
import itertools
import math
from collections.abc import Callable

from redserve.batching.batch_queue import Waiting
from redserve.batching.dispatcher import Dispatcher
from redserve.batching.linger import LingerGate
from redserve.batching.policy import BatchPolicy
from redserve.batching.run import Instance, Run


class SimulatedWorker:
    """A thread as the dispatcher sees it; `service_s` says how long a batch of so many rows takes."""

    def __init__(self, world: "World", service_s: Callable[[int], float]) -> None:
        self.instance = Instance()
        self.instance.worker = self
        self.has_lingered = False
        self._world = world
        self._service_s = service_s

    def wake(self) -> None:
        self._world.at(self._world.now_s, self.step)

    def step(self) -> None:
        step = self._world.dispatcher.next_step(self)
        if isinstance(step, Run):
            self._world.at(self._world.now_s + self._service_s(step.batch.rows), lambda: self._ended(step))
        elif step is not None and step != math.inf:
            self._world.at(step, self._slept)

    def _slept(self) -> None:
        if self._world.dispatcher.stop_waiting(self):
            self.step()

    def _ended(self, run: Run[Waiting]) -> None:
        self._world.batch_rows.append(run.batch.rows)
        for request in run.batch.requests:
            self._world.latencies_s.append(self._world.now_s - request.arrived_s)
            self._world.answered(request)
        self.step()


class World:
    """One engine, its queue, and the clock."""

    def __init__(self, policy: BatchPolicy, service_s: Callable[[int], float]) -> None:
        self.now_s = 0.0
        self.latencies_s: list[float] = []
        self.batch_rows: list[int] = []
        self.answered: Callable[[Waiting], None] = lambda _: None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.dispatcher: Dispatcher[Waiting] = Dispatcher(
            policy,
            clock=lambda: self.now_s,
            turn_away=lambda _: None,
            displace=lambda _: None,
            gate=LingerGate() if policy.linger else None,
        )
        worker = SimulatedWorker(self, service_s)
        self.dispatcher.instances.append(worker.instance)
        self.at(0.0, worker.step)

    def at(self, when_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), event))

    def submit(self) -> None:
        self.dispatcher.offer(Waiting(arrived_s=self.now_s))
        worker = self.dispatcher.to_wake()
        if worker is not None:
            worker.wake()

    def run(self, until_s: float) -> None:
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, event = heapq.heappop(self._events)
            event()
