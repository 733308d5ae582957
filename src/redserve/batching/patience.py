"""Whether those who have come wait one turn of the event loop more, so that more of them share a batch.

the first has come ──> begin ──> the next turn ──> one_more? ──> yes: a turn later again ... ──> no: flush
                                                     ├── UntilQuiet: while turns bring somebody
                                                     └── GiveWay: once, after those who wait for this core
"""

import math
from collections.abc import Callable
from typing import Final, Protocol, final

NEVER_QUIET_S: Final = 0.005
"""A loop that is not quiet for so long is behind; what waits must not wait until it has caught up."""

_WORTH_S: Final = 100e-6  # a row that it brings; whom it answers on the same core asks again within 10 to 20 us
_SHORT_S: Final = 0.001  # a client's turn; who computes keeps a core for one to four milliseconds
_REST: Final = 100.0  # times what was lost, so that it is 1 % of all time at most
_TURNS: Final = 3  # in the first, or the second, sockets are read; the tasks that this starts submit in the next


class Patience(Protocol):
    """Asked in every turn; called on the loop."""

    def begin(self) -> None:
        """The first has come."""
        ...

    def one_more(self, *, has_come: bool) -> bool:
        """Whether to wait for a turn more, now that a turn has, or has not, brought somebody."""
        ...


@final
class UntilQuiet:
    """Waits for a turn that brings nobody: 5 ms at most, and what is left of a turn.

    Args:
        can_wait: Whether so long may be waited at all.
        clock: Seconds that only grow.
    """

    def __init__(self, can_wait: Callable[[], bool], *, clock: Callable[[], float]) -> None:
        self._can_wait = can_wait
        self._clock = clock
        self._until_s = 0.0

    def begin(self) -> None:
        """See `Patience`."""
        self._until_s = self._clock() + NEVER_QUIET_S

    def one_more(self, *, has_come: bool) -> bool:
        """See `Patience`."""
        return has_come and self._clock() < self._until_s and self._can_wait()


@final
class GiveWay:
    """Lets others that wait for this core run first, once, and then looks who has come.

    On a machine that is busy these are the clients, or what brings their requests, and other processes of the server:
    they have to run in any case, and what they bring is in this batch, not in the next. Where it was somebody else, who
    took more than 1 ms and 100 us for each row that came meanwhile, it rests for a hundred times as long. A lone row
    that comes after a lone row has nobody to wait for.

    Args:
        rows: That wait now, for a batch on the loop.
        can_wait: Whether so long as others may keep the core, milliseconds, may be waited at all.
        clock: Seconds that only grow.
        give_way: Gives the core up to whoever waits for it. Where that is forbidden (`OSError`), it is left.
    """

    def __init__(
        self,
        rows: Callable[[], int],
        can_wait: Callable[[], bool],
        *,
        clock: Callable[[], float],
        give_way: Callable[[], None],
    ) -> None:
        self._rows = rows
        self._can_wait = can_wait
        self._clock = clock
        self._give_way = give_way
        self._turns_left = 0
        self._took_s = self._rests_until_s = 0.0
        self._last_rows = 0

    def begin(self) -> None:
        """See `Patience`."""
        self._turns_left = 0

    def one_more(self, *, has_come: bool) -> bool:
        """See `Patience`."""
        if self._turns_left > 1:
            self._turns_left -= 1
            return True
        rows, last_rows = self._rows(), self._last_rows
        now_s = self._clock()
        if self._turns_left:
            if self._took_s > max(_SHORT_S, _WORTH_S * (rows - last_rows)):
                self._rests_until_s = now_s + _REST * self._took_s
            self._last_rows = rows
            return False
        self._last_rows = rows
        if not rows or max(rows, last_rows) < 2 or now_s < self._rests_until_s or not self._can_wait():
            return False
        try:
            self._give_way()
        except OSError:
            self._rests_until_s = math.inf
            return False
        self._took_s = self._clock() - now_s
        self._turns_left = _TURNS
        return True
