"""Where requests come in: looked at, queued, and announced.

submit ──> Dispatcher.offer ──> Turns ──> Crew: runs, answers
"""

from collections.abc import Callable, Hashable, Iterable
from operator import index
from typing import Any, Generic, TypeVar, final

from redserve.batching.crew import Crew
from redserve.batching.policy import BatchPolicy
from redserve.batching.request import Answer, Parts, Request, Ticket
from redserve.batching.waiting import NEVER_S
from redserve.errors import DeadlineExpired, ShuttingDown

P = TypeVar("P")
R = TypeVar("R")


@final
class Intake(Generic[P, R]):
    """Takes requests for a crew, on the event loop.

    Args:
        crew: Runs them.
        policy: As for the batcher.
        split: As for the batcher.
        join: As for the batcher.
        clock: As for the batcher.
    """

    def __init__(
        self,
        crew: Crew[P, R],
        policy: BatchPolicy,
        *,
        split: Callable[[P, int], Iterable[Any]] | None,
        join: Callable[[list[R]], R] | None,
        clock: Callable[[], float],
    ) -> None:
        self._crew = crew
        self._max_rows = policy.max_batch_size
        self._slo_s = policy.slo_s
        self._split = split
        self._join = join
        self._clock = clock
        self._turns = crew.turns
        self._dispatcher = crew.dispatcher
        self._leave_queue = crew.dispatcher.cancel

    def submit(
        self,
        payload: P,
        answer: Callable[[Answer[R]], None],
        rows: int,
        group: Hashable,
        size_bytes: int,
        deadline_s: float,
    ) -> Ticket:
        """See `Batcher.submit`."""
        if self._crew.is_closing:
            raise ShuttingDown
        now_s = self._clock()
        if deadline_s == NEVER_S and self._slo_s is not None:
            deadline_s = now_s + self._slo_s
        if not deadline_s > now_s:
            raise DeadlineExpired
        if rows > self._max_rows:
            return self._submit_parts(payload, answer, now_s, rows, group, size_bytes, deadline_s)
        request: Request[P, R] = Request(payload, answer, self._leave_queue, now_s, rows, group, size_bytes, deadline_s)
        self._queue(request)
        return request

    def _submit_parts(
        self,
        payload: P,
        answer: Callable[[Answer[R]], None],
        now_s: float,
        rows: int,
        group: Hashable,
        size_bytes: int,
        deadline_s: float,
    ) -> Ticket:
        if self._split is None or self._join is None:
            raise ValueError(f"{rows} rows exceed a batch of {self._max_rows}, and no split was given")
        pieces = [(piece, index(count)) for piece, count in self._split(payload, self._max_rows)]
        if sum([piece_rows for _, piece_rows in pieces]) != rows:
            raise ValueError(f"the parts of {rows} rows have {[piece_rows for _, piece_rows in pieces]}")
        parts = Parts(len(pieces), self._join, answer)
        requests: list[Request[P, R]] = [
            Request(
                piece,
                parts.answer_part(place),
                self._leave_queue,
                now_s,
                piece_rows,
                group,
                size_bytes * piece_rows // rows,
                deadline_s,
            )
            for place, (piece, piece_rows) in enumerate(pieces)
        ]
        self._queue(*requests)
        parts.tickets.extend(requests)
        return parts

    def _queue(self, *requests: Request[P, R]) -> None:
        """All of them, which are one request."""
        self._dispatcher.offer(*requests)
        if requests[0].deadline_s != NEVER_S:
            self._crew.expiry.watch(requests[0].deadline_s)
        self._turns.arm()
