"""Several workers on one port: starts them, hands them connections, adds up what they count, owns the signals.

    connections ─> acceptor ─> a worker in turn
    a scrape, at any worker ─ "whole" ─> every worker is asked for its account ─> summed, departed ones included ─> back
    SIGTERM, SIGINT ─> no worker is ready ─ (`drain_delay_s`) ─> the backlog is handed out ─> all drain ─> exit 0
    the same signal again ─> at once ─> exit 1
    a worker died ─> another takes its place ─ over and over ─> all drain, exit 1

It loads no model and answers no request. When it dies, its ends of all sockets close, and the workers drain and end.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import Coroutine, Sequence
from time import monotonic
from typing import Any

from redserve.engine.onnx_options import usable_cpus
from redserve.metrics.workers import ProcessUse, worker_numbers
from redserve.server.acceptor import Acceptor, listen
from redserve.server.account import Account, Places, total
from redserve.server.logs import configure_logging
from redserve.server.restarts import Restarts
from redserve.server.settings import Settings
from redserve.server.worker_process import SIGNALS, WORKER, WorkerProcess, how_it_ended

ANSWER_WITHIN_S = 1.0
"""For a worker to give its account; one that does not is silent."""

LEAVE_WITHIN_S = 5.0
"""For workers to end once their grace time is over, or after a second signal."""

logger = logging.getLogger("redserve.server")


def supervise(settings: Settings, *, program: Sequence[str] = WORKER) -> int:
    """Serve with `settings.workers` processes until a signal ends it, or they cannot be kept running.

    Args:
        settings: Those of the whole.
        program: Starts a worker, which finds its `Assignment` on standard input.

    Returns:
        The exit status: 0 after a drain; 1 when the port was taken, a worker could not start, workers died over and
            over, the grace time did not suffice, or a second signal came; 2 for settings that do not go together.
    """
    configure_logging(settings.log_level)
    try:
        listening = listen(settings.host, settings.port)
    except OSError as error:
        print(f"redserve: cannot listen on {settings.host}:{settings.port}: {error.strerror}", file=sys.stderr)
        return 1
    return asyncio.run(_Supervisor(shared_out(settings), listening, program).run())


def shared_out(settings: Settings) -> Settings:
    """What each worker is told: the cores are shared among the workers, where nobody says otherwise."""
    threads = settings.intra_op_threads or max(1, usable_cpus() // (settings.workers * settings.instances))
    return settings.model_copy(update={"intra_op_threads": threads})


class _Supervisor:
    def __init__(self, settings: Settings, listening: socket.socket, program: Sequence[str]) -> None:
        self._settings = settings
        self._listening = listening
        host, port = listening.getsockname()[:2]
        self._address = (host, port)
        self._program = program
        self._workers: list[WorkerProcess] = []
        self._places = Places(settings.workers)
        self._restarts = Restarts()
        self._replaced = 0
        self._use = ProcessUse()
        self._tasks: set[asyncio.Task[None]] = set()
        self._banner: str | None = None
        self._is_announced = False
        self._is_draining = False
        self._ended = asyncio.Event()
        self._exit_status = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signalled)
        self._acceptor = Acceptor(self._listening)
        for place in range(self._settings.workers):
            if not self._is_draining:
                await self._start(place)
        await self._ended.wait()
        for worker in self._workers:
            worker.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return self._exit_status

    async def _start(self, place: int, *, is_replacement: bool = False) -> None:
        try:
            worker = await WorkerProcess.start(self._program, self._settings, self._address, place=place)
        except OSError as error:  # no process, memory or file descriptor is left
            if is_replacement:
                await self._replace(place, f"at its start: {error.strerror}")
            else:
                self._give_up(f"a worker cannot be started: {error.strerror}")
            return
        worker.is_replacement = is_replacement
        self._replaced += is_replacement
        self._workers.append(worker)
        self._run(self._follow(worker))
        if self._is_draining:
            worker.kill()

    async def _follow(self, worker: WorkerProcess) -> None:
        """Hear one worker until it ends."""
        failure: tuple[list[str], int] | None = None
        while (message := await worker.hear()) is not None:
            match message:
                case ("begun",):
                    worker.has_begun = True
                    self._share_out()
                case ("ready", banner):
                    worker.ready_since_s = monotonic()
                    self._banner = self._banner or banner
                    self._share_out()
                    self._announce()
                case ("speaks",):
                    self._share_out()
                case ("failed", lines, status):
                    failure = lines, status
                case ("whole", number):
                    self._run(self._answer(worker, number))
        self._acceptor.remove(worker)
        status = await worker.ended()
        self._workers.remove(worker)
        self._acceptor.remove(worker)  # the end of another may have put it back meanwhile
        self._share_out()
        self._places.left(worker.place, worker.account or Account())
        if self._is_draining:
            self._exit_status = max(self._exit_status, int(worker.has_begun and status != 0))
            if not self._workers:
                self._ended.set()
        elif not self._is_announced:
            lines, status = failure or ([f"a worker ended {how_it_ended(status)} before all were ready"], 1)
            self._give_up(*lines, status=status)
        else:
            for line in [] if failure is None else failure[0]:
                logger.error(line)
            await self._replace(worker.place, how_it_ended(status), pid=worker.pid, ready_s=worker.ready_s)

    def _share_out(self) -> None:
        """Connections go to the workers that are ready, not silent; while none is, to those that say that they load."""
        if self._is_draining:
            return
        ready = [worker for worker in self._workers if worker.ready_since_s is not None]
        takers = (
            [worker for worker in ready if not worker.is_silent]
            or ready
            or [worker for worker in self._workers if worker.has_begun and not worker.is_replacement]
        )
        for worker in takers:
            self._acceptor.add(worker)
        for worker in self._workers:
            if worker not in takers:
                self._acceptor.remove(worker)

    async def _replace(self, place: int, ended: str, *, pid: int | None = None, ready_s: float = 0.0) -> None:
        delay_s = self._restarts.died(ready_s=ready_s)
        logger.error("a worker died", extra={"pid": pid, "ended": ended, "next_in_s": delay_s})
        if delay_s is None:
            self._give_up(f"{self._restarts.in_a_row} workers died one after the other, the last {ended}: giving up")
            return
        await asyncio.sleep(delay_s)
        if not self._is_draining:
            await self._start(place, is_replacement=True)

    def _announce(self) -> None:
        """Once, when all are ready for the first time."""
        is_complete = len(self._workers) == self._settings.workers
        if not self._is_announced and is_complete and all(worker.ready_since_s for worker in self._workers):
            self._is_announced = True
            try:
                print(self._banner, flush=True)
            except Exception:  # nobody reads it; that is no reason not to serve
                logger.exception("the server is ready, but cannot say so")

    async def _answer(self, worker: WorkerProcess, number: int) -> None:
        """Tell one worker what all of them have to say."""
        await asyncio.gather(*(each.ask(ANSWER_WITHIN_S) for each in self._workers if each.has_begun))
        self._share_out()
        worker.tell("whole", number, self._whole())

    def _whole(self) -> Account:
        running = list(self._workers)
        silent = sum(each.is_silent for each in running)
        ready = sum(each.ready_since_s is not None and not each.is_silent for each in running)
        numbers = worker_numbers(
            {"ready": ready, "silent": silent, "starting": len(running) - ready - silent}, self._replaced
        )
        wanted = self._settings.workers
        not_ready = {} if ready == wanted else {"workers": f"{ready} of {wanted} are ready"}
        supervisor = Account(numbers | self._use.read([each.pid for each in running]), {}, not_ready)
        known = {each.place: each.account for each in running if each.account is not None}
        return total([self._places.total(known), supervisor])

    def _signalled(self) -> None:
        if not self._is_draining:
            self._is_draining = True
            self._run(self._drain(delay_s=self._settings.drain_delay_s))
        else:
            self._exit_status = 1
            for worker in self._workers:
                worker.tell("stop")
            self._run(self._let_finish(within_s=0.0, kill_after_s=LEAVE_WITHIN_S))

    def _give_up(self, *lines: str, status: int = 1) -> None:
        """End the whole, with a message."""
        for line in lines:
            print(f"redserve: {line}", file=sys.stderr, flush=True)
        self._exit_status = status
        self._is_draining = True
        self._run(self._drain(delay_s=0.0))

    async def _drain(self, *, delay_s: float) -> None:
        for worker in self._workers:
            if worker.has_begun:
                worker.tell("draining")
            else:
                worker.kill()
        if delay_s:
            await asyncio.sleep(delay_s)
        await self._let_finish(within_s=LEAVE_WITHIN_S, kill_after_s=self._settings.grace_s + LEAVE_WITHIN_S)

    async def _let_finish(self, *, within_s: float, kill_after_s: float) -> None:
        await self._acceptor.close(within_s=within_s)
        for worker in self._workers:
            worker.let_finish()
        if not self._workers:
            self._ended.set()
        await asyncio.sleep(kill_after_s)
        for worker in self._workers:
            logger.error("a worker did not end, and is killed", extra={"pid": worker.pid})
            worker.kill()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:  # a mistake of ours: leave no orphans
            logger.error("the supervisor failed", exc_info=task.exception())
            self._exit_status = 1
            self._ended.set()
