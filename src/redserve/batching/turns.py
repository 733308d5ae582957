"""When the workers hear of what has come: once a turn of the event loop, or some turns later.

arm (somebody has come) ──> the next turn ──> flush
                                 └── patience: one turn more, for as long as it says so
"""

import asyncio
import contextvars
from collections.abc import Callable
from typing import final

from redserve.batching.patience import Patience


@final
class Turns:
    """Arranges one flush for all that a turn brings; every method is called on the loop.

    Args:
        loop: Its turns.
        flush: Called without the context of any request.
        patience: Whether to wait for further turns; `None`: never.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, flush: Callable[[], None], *, patience: Patience | None = None
    ) -> None:
        self._loop = loop
        self._flush = flush
        self._patience = patience
        self._context = contextvars.Context()
        self._is_armed = False
        self._has_come = False

    def arm(self) -> None:
        """Somebody has come."""
        self._has_come = True
        if not self._is_armed:
            self._is_armed = True
            if self._patience is not None:
                self._patience.begin()
            self._loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        self._is_armed = False
        if self._patience is not None and self._patience.one_more(has_come=self._has_come):
            self._is_armed, self._has_come = True, False
            self._loop.call_soon(self._turn, context=self._context)
        else:
            self._flush()
