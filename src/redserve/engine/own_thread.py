"""A thread that does whatever is handed to it, one after the other, for what must always be done by the same thread."""

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from redserve.errors import ModelError

T = TypeVar("T")


class OwnThread:
    """Ends when it is closed or forgotten, after what it has to do already."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._is_closed = False
        self._lock = threading.Lock()
        self._end = weakref.finalize(self, self._jobs.put, None)
        threading.Thread(target=_serve, args=(self._jobs,), name=name, daemon=True).start()

    def call(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises in that thread; waits for it.

        Raises:
            ModelError: It is closed.
        """
        job = _Job(work)
        with self._lock:  # nothing may be put behind the end
            if self._is_closed:
                raise ModelError("the engine is closed")
            self._jobs.put(job)
        job.done.acquire()
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def close(self) -> None:
        """Take no more."""
        with self._lock:
            self._is_closed = True
            self._end()


class _Job:
    """What is to be done, and what it came to."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()


def _serve(jobs: "SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        try:
            job.result = job.work()
        except BaseException as error:  # whoever waits has to hear of it
            job.error = error
        job.done.release()
        del job  # it holds a batch and its answer
