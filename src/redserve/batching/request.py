"""A request in the batcher, from `submit` to its one answer; and one that is larger than a batch, in parts.

submit ──> Request ──────────────────────────────────> answer(Answer), once, or never after cancel()
submit ──> Parts ──> Request, Request, ... ──> join ──> answer(Answer), once, or never after cancel()
"""

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar, final

from redserve.batching.waiting import NEVER_S, PATIENCE_S, Waiting
from redserve.errors import ModelError, RedserveError

P = TypeVar("P")
R = TypeVar("R")


@final
class Answer(Generic[R]):
    """How a request ended.

    Attributes:
        result: Its result; meaningless when there is an error.
        error: What went wrong, or `None`. What the function raised is the `__cause__` of a `ModelError`.
        queue_s: From its arrival until its batch was taken, or until it was turned away.
        compute_s: From then until its run ended, runs of a failed batch in parts included.
        batch_rows: Rows that ran together with it, its own included; 0 when it never ran.
    """

    __slots__ = ("batch_rows", "compute_s", "error", "queue_s", "result")

    def __init__(
        self, result: R | None, error: RedserveError | None, queue_s: float, compute_s: float, batch_rows: int
    ) -> None:
        self.result = result
        self.error = error
        self.queue_s = queue_s
        self.compute_s = compute_s
        self.batch_rows = batch_rows


class Ticket(Protocol):
    """What `submit` gives: the right to change one's mind."""

    def cancel(self) -> None:
        """Be answered no more: leave the queue, or silence the delivery if the batch has been taken already.

        On the event loop only; harmless after the answer.
        """


class Request(Waiting, Generic[P, R]):
    """One entry of the queue, and its own ticket."""

    __slots__ = ("_answer", "_leave_queue", "payload")

    def __init__(
        self,
        payload: P,
        answer: Callable[[Answer[R]], None],
        leave_queue: Callable[["Request[P, R]"], object],
        arrived_s: float,
        rows: int,
        group: Hashable,
        size_bytes: int,
        deadline_s: float,
    ) -> None:
        self.arrived_s = arrived_s  # as `Waiting` does; to call it would cost as much again
        self.deadline_s = deadline_s
        self.turn_s = arrived_s + PATIENCE_S if deadline_s == NEVER_S else deadline_s
        self.rows = rows
        self.group = group
        self.size_bytes = size_bytes
        self.payload = payload
        self._answer: Callable[[Answer[R]], None] | None = answer
        self._leave_queue = leave_queue

    def settle(self, answer: Answer[R]) -> None:
        """Deliver `answer` unless the request was answered or cancelled before; on the event loop only."""
        deliver, self._answer = self._answer, None
        if deliver is None:
            return
        try:
            deliver(answer)
        except (Exception, asyncio.CancelledError) as error:  # must not cost the rest of the batch their answers
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the answer callback of a batched request failed", "exception": error}
            )

    def cancel(self) -> None:
        """See `Ticket`."""
        if self._answer is not None:
            self._answer = None
            self._leave_queue(self)


class Parts(Generic[R]):
    """Joins the answers to the parts of one request; its ticket. The first part to fail fails the whole."""

    def __init__(self, count: int, join: Callable[[list[R]], R], answer: Callable[[Answer[R]], None]) -> None:
        self.tickets: list[Ticket] = []
        self._answers: list[Answer[R] | None] = [None] * count
        self._left = count
        self._join = join
        self._answer = answer

    def answer_part(self, index: int) -> Callable[[Answer[R]], None]:
        """What part `index` is submitted with."""

        def answer(part: Answer[R]) -> None:
            self._answers[index] = part
            self._left -= 1
            if part.error is not None:
                self.cancel()
                self._answer(part)
            elif self._left == 0:
                self._answer(self._joined([part for part in self._answers if part is not None]))

        return answer

    def cancel(self) -> None:
        """See `Ticket`."""
        for ticket in self.tickets:
            ticket.cancel()

    def _joined(self, parts: list[Answer[R]]) -> Answer[R]:
        """One answer: queued as long as the first part, computed for all the time of all parts."""
        whole: Answer[R] = Answer(
            result=None,
            error=None,
            queue_s=parts[0].queue_s,
            compute_s=sum(part.compute_s for part in parts),
            batch_rows=max(part.batch_rows for part in parts),
        )
        try:
            whole.result = self._join([part.result for part in parts])  # type: ignore[misc]  # none has an error
        except Exception as error:
            whole.error = as_redserve_error(error)
        return whole


def as_redserve_error(error: BaseException) -> RedserveError:
    """`error` itself if it is ours, else a `ModelError` of its own with `error` as the cause."""
    if isinstance(error, RedserveError):
        return error
    try:
        said = f"{type(error).__name__}: {error}"
    except Exception:  # its `__str__` fails; the requests must have their answer all the same
        said = type(error).__name__
    wrapped = ModelError(said)
    wrapped.__cause__ = error
    return wrapped
