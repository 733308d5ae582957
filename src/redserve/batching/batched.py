"""@batched: an ordinary function of a list becomes one to call with single items, from any number of tasks at once."""

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, overload

from redserve.batching.attempts import AsyncFunction, SyncFunction
from redserve.batching.batcher import Batcher
from redserve.batching.observer import BatchObserver
from redserve.batching.policy import BatchPolicy

P = TypeVar("P")
R = TypeVar("R")

_DEFAULT = BatchPolicy()


class Batched(Generic[P, R]):
    """A function of a list, called with one item: `result = await function(item)`.

    Binds to the running event loop at the first call, and anew when that loop is closed or after `aclose`.
    """

    def __init__(
        self,
        function: Callable[[list[P]], Any],
        *,
        policy: BatchPolicy,
        name: str | None,
        observer: BatchObserver | None,
        max_run_s: float | None,
    ) -> None:
        _check_takes_one_list(function)
        functools.update_wrapper(self, function)
        self._function = function
        self._policy = policy
        self._name = name or str(getattr(function, "__name__", type(function).__name__))
        self._observer = observer
        self._max_run_s = max_run_s
        self._batcher: Batcher[P, R] | None = None

    async def __call__(self, payload: P, /) -> R:
        """Run `payload` together with what other callers sent.

        Raises:
            ModelError: The function failed on this payload; what it raised is the cause.
            RunTimeout: It took longer than `max_run_s`.
            QueueFull: Too much waits already.
            ShuttingDown: It is being closed.
            RuntimeError: It is in use in another event loop that still lives.
        """
        batcher = self._batcher
        if batcher is None or batcher.loop is not asyncio.get_running_loop():
            batcher = self._bind()
        return await batcher(payload)

    async def aclose(self, *, grace_s: float | None = None) -> None:
        """Run what is queued, then end the thread; a later call starts anew.

        Args:
            grace_s: After so long, what is still queued or running fails with `ShuttingDown`; `None` waits for all.
        """
        batcher = self._batcher
        if batcher is None:
            return
        if batcher.loop.is_closed():
            batcher.abandon()
        else:
            self._check_loop(batcher)
            await batcher.aclose(grace_s=grace_s)
        if self._batcher is batcher:
            self._batcher = None

    def _bind(self) -> Batcher[P, R]:
        if self._batcher is not None:
            self._check_loop(self._batcher)
            self._batcher.abandon()
        self._batcher = Batcher(
            self._function, policy=self._policy, name=self._name, observer=self._observer, max_run_s=self._max_run_s
        )
        return self._batcher

    def _check_loop(self, batcher: Batcher[P, R]) -> None:
        if batcher.loop is not asyncio.get_running_loop() and not batcher.loop.is_closed():
            raise RuntimeError(f"{self._name} is in use in another event loop; await its aclose() there first")


class _Decorator(Protocol):
    """What `@batched(...)` gives."""

    @overload
    def __call__(self, function: AsyncFunction[P, R], /) -> Batched[P, R]: ...
    @overload
    def __call__(self, function: SyncFunction[P, R], /) -> Batched[P, R]: ...


@overload
def batched(function: AsyncFunction[P, R], /) -> Batched[P, R]: ...
@overload
def batched(function: SyncFunction[P, R], /) -> Batched[P, R]: ...
@overload
def batched(
    *,
    max_batch_size: int = ...,
    name: str | None = ...,
    observer: BatchObserver | None = ...,
    max_run_s: float | None = ...,
    max_queue_delay_s: float = ...,
    max_queue_rows: int = ...,
    max_reruns: int = ...,
) -> _Decorator: ...


def batched(
    function: Callable[[list[Any]], Any] | None = None,
    /,
    *,
    max_batch_size: int = _DEFAULT.max_batch_size,
    name: str | None = None,
    observer: BatchObserver | None = None,
    max_run_s: float | None = 60.0,
    max_queue_delay_s: float = _DEFAULT.max_queue_delay_s,
    max_queue_rows: int = _DEFAULT.max_queue_rows,
    max_reruns: int = _DEFAULT.max_reruns,
) -> Any:
    """Make a function of a list one to be awaited with single items; concurrent calls run as one.

    A plain function runs in a thread of its own, an async one as a task. It gets a list of what the callers passed and
    returns one result for each, in order; a result that is an `Exception` fails that call alone. When it raises, the
    list is run again in parts until only the items at fault fail, so it should be safe to repeat. For functions, not
    methods: batch a bound method by `batched(self.method)`.

        @batched(max_batch_size=32)
        def embed(texts: list[str]) -> list[list[float]]: ...

        vector = await embed("one text")

    Args:
        function: To be batched, when used without parentheses.
        max_batch_size: Items in one call, at most.
        name: The `model` label of its metrics; the function's name by default.
        observer: Records queue depth, waits, batch sizes: a `BatchMetrics()`.
        max_run_s: Longest that one call may take before its callers get `RunTimeout`; `None` waits for ever.
        max_queue_delay_s: Longest an idle thread waits for company, from the oldest item's arrival; 0 never waits.
        max_queue_rows: Items that may wait; one more fails with `QueueFull`.
        max_reruns: Runs spent on finding the items at fault; 0 fails the whole list.

    Raises:
        TypeError: The function cannot be called with one list.
        ValueError: A number is out of its range.
    """
    policy = BatchPolicy(
        max_batch_size=max_batch_size,
        max_queue_delay_s=max_queue_delay_s,
        max_queue_rows=max_queue_rows,
        max_reruns=max_reruns,
    )

    def decorate(function: Callable[[list[Any]], Any], /) -> Batched[Any, Any]:
        return Batched(function, policy=policy, name=name, observer=observer, max_run_s=max_run_s)

    return decorate if function is None else decorate(function)


def _check_takes_one_list(function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin that does not tell
        return
    try:
        signature.bind([])
    except TypeError as error:
        raise TypeError(
            f"batched needs a function that can be called with one list, not {function!r}: {error}. "
            "A method has to be bound first: batched(self.method)"
        ) from None
