"""When the workers hear of what has come: once a turn of the event loop, or once the loop is quiet.

arm (somebody has come) ──> the next turn ──> flush
                                 └── until_quiet: one turn more, for as long as turns bring somebody
"""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Final, final

NEVER_QUIET_S: Final = 0.005
"""A loop that is not quiet for so long is behind; what waits must not wait until it has caught up."""


@final
class Turns:
    """Arranges one flush for all that a turn brings; every method is called on the loop.

    Args:
        loop: Its turns.
        flush: Called without the context of any request.
        until_quiet: Whether to wait for a turn that brings nobody: 5 ms at most, and what is left of a turn.
        can_wait: Whether so long may be waited at all.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        flush: Callable[[], None],
        *,
        until_quiet: bool,
        can_wait: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._flush = flush
        self._until_quiet = until_quiet
        self._can_wait = can_wait
        self._clock = clock
        self._context = contextvars.Context()
        self._is_armed = False
        self._has_come = False
        self._until_s = 0.0

    def arm(self) -> None:
        """Somebody has come."""
        self._has_come = True
        if not self._is_armed:
            self._is_armed = True
            if self._until_quiet:
                self._until_s = self._clock() + NEVER_QUIET_S
            self._loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        if self._until_quiet and self._has_come and self._clock() < self._until_s and self._can_wait():
            self._has_come = False
            self._loop.call_soon(self._turn, context=self._context)
        else:
            self._is_armed = False
            self._flush()
