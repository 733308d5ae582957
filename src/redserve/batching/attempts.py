"""One batch from the call of the function to what its requests are told: pure but for the clock and the post.

    Run ──> attempts: payloads ──> (a worker calls the function) ──> what it came to ──> Delivery, one per call
                 └── a failed batch is run again in parts (`isolate`), so that only the requests at fault fail

A thread and a task drive the same generator.
"""

from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence, Set
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from redserve.batching.isolate import parts_to_run
from redserve.batching.report import BatchReport
from redserve.batching.request import Request, as_redserve_error
from redserve.batching.run import Run
from redserve.errors import ModelError, RedserveError, WrongResultCount

P = TypeVar("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Results(Protocol[R_co]):
    """What a batched function returns: a list, a tuple, an array; one result for each payload, in order."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[R_co]: ...


SyncFunction: TypeAlias = Callable[[list[P]], Results[R | Exception]]
AsyncFunction: TypeAlias = Callable[[list[P]], Awaitable[Results[R | Exception]]]
Call: TypeAlias = tuple[Any, BaseException | None]
"""What a call of the function came to: what it returned, or what it raised."""


class Delivery(Generic[P, R]):
    """What follows from one call.

    Attributes:
        run: That the call was for.
        requests: Those it settles; none when it failed and is to be run again in parts.
        outcomes: For each of them the result, or the `RedserveError`.
        report: For the observer.
        ended_s: When the call returned.
    """

    __slots__ = ("ended_s", "outcomes", "report", "requests", "run")

    def __init__(
        self,
        run: Run[Request[P, R]],
        requests: Sequence[Request[P, R]],
        outcomes: Sequence[R | RedserveError],
        report: BatchReport,
        ended_s: float,
    ) -> None:
        self.run = run
        self.requests = requests
        self.outcomes = outcomes
        self.report = report
        self.ended_s = ended_s


def attempts(
    run: Run[Request[P, R]],
    post: Callable[[Delivery[P, R]], None],
    *,
    max_reruns: int,
    has_time_for: Callable[[int], bool],
    clock: Callable[[], float],
) -> Generator[list[P], Call, None]:
    """Yield the payloads of each call of the function, be sent what it came to, and post what follows from it.

    Args:
        run: What to call it with.
        post: Takes what follows from each call.
        max_reruns: Calls with parts of the batch, at most.
        has_time_for: Whether so many rows may be run again now.
        clock: Tells when calls begin and end.
    """
    requests = run.batch.requests
    failed: dict[Request[P, R], RedserveError] = {}  # and not yet run again in smaller parts
    parts = parts_to_run(len(requests), max_reruns=max_reruns)
    part: range | None = next(parts)
    while part is not None:
        together = requests[part.start : part.stop]
        run.call_begins(together, now_s=clock())
        call = yield [request.payload for request in together]
        ended_s = clock()
        if run.is_cut:
            return
        returned, error = call
        settled: list[Request[P, R]] = []
        outcomes: list[R | RedserveError] = []
        if error is None:
            settled, outcomes = together, _outcomes(returned, expected=len(together))
            if failed:
                for request in together:
                    failed.pop(request, None)
        else:
            failed.update((request, _verdict(error, among=len(together))) for request in together)
        has_failed = error is not None or all(isinstance(outcome, RedserveError) for outcome in outcomes)
        report = run.call_ended(now_s=ended_s, has_failed=has_failed)
        part = _next_part(parts, error)
        if part is not None and not has_time_for(sum(request.rows for request in requests[part.start : part.stop])):
            part = None
        if part is None and failed:
            settled = [*settled, *failed]
            outcomes = [*outcomes, *failed.values()]
        post(Delivery(run, settled, outcomes, report, ended_s))


def _outcomes(returned: Any, *, expected: int) -> list[Any]:
    """What each request of a call that returned is told; all the same if that is no list of results for them.

    Nothing that reading foreign results raises may leave the callers without an answer.
    """
    try:
        if isinstance(returned, (str, bytes, Set)) or hasattr(returned, "keys"):
            raise TypeError("no sequence of results")  # a data frame, too, iterates over its columns
        len(returned)  # a generator would fail halfway, outside of the function
        outcomes = [as_redserve_error(item) if isinstance(item, BaseException) else item for item in returned]
    except BaseException as cause:
        broken = ModelError(f"a batched function returns one result per payload, not {type(returned).__name__}")
        broken.__cause__ = cause
        return [broken] * expected
    if len(outcomes) != expected:
        return [WrongResultCount(expected=expected, got=len(outcomes))] * expected
    return outcomes


def _verdict(error: BaseException, *, among: int) -> RedserveError:
    """What each of `among` requests is told that failed together, unless it is tried again in a smaller part."""
    own = as_redserve_error(error)
    if among == 1 or _is_nobodys_fault(error):
        return own
    untried = ModelError(f"failed among {among} requests, and there was no time to try it alone: {own}")
    untried.__cause__ = error
    return untried


def _is_nobodys_fault(error: BaseException) -> bool:
    """Whether it is a wish to exit, or a broken contract, rather than the fault of a request."""
    return not isinstance(error, Exception) or isinstance(error, WrongResultCount)


def _next_part(parts: Generator[range, bool, None], error: BaseException | None) -> range | None:
    """What to run next; nothing when the failure is the fault of no request."""
    if error is not None and _is_nobodys_fault(error):
        return None
    try:
        return parts.send(error is None)
    except StopIteration:
        return None
