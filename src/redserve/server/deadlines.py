"""When an answer is due: `X-Request-Timeout-Ms` or what the body says, else the default, never later than the cap.

A budget and not a point in time, so that no clocks have to agree. Source: gRPC's `grpc-timeout`, which is relative for
the same reason.

The header is a number in decimal digits, with a point between digits at most (`250`, `0.5`): neither a sign nor an
exponent. Spaces and tabs around it are not part of it (RFC 9110, 5.5).
"""

import re
from dataclasses import dataclass
from typing import Final

from redserve.errors import BadRequest

HEADER: Final = b"x-request-timeout-ms"

_NUMBER = re.compile(rb"[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long requests may take.

    Attributes:
        default_s: For a request that names no budget.
        max_s: For one that names more than that.
    """

    default_s: float
    max_s: float

    def deadline_s(self, budget_ms: bytes | None, *, arrived_s: float, timeout_s: float | None = None) -> float:
        """When the answer is due, on the clock of `arrived_s`: the earlier where header and body both say.

        Args:
            budget_ms: The header as it came; `None` when it did not.
            arrived_s: When the request came.
            timeout_s: The budget that the body names; `None` when it names none.

        Raises:
            BadRequest: The header is not a positive number.
        """
        if budget_ms is None:
            return arrived_s + min(self.default_s if timeout_s is None else timeout_s, self.max_s)
        number = budget_ms.strip(b" \t")
        if not _NUMBER.fullmatch(number) or not number.strip(b"0."):
            raise BadRequest(
                "X-Request-Timeout-Ms must be one number above 0 in digits, such as 250 or 0.5, "
                f"not {budget_ms[:40].decode('latin-1')!r}"
            )
        budget_s = float(number) / 1000
        return arrived_s + min(budget_s, self.max_s, budget_s if timeout_s is None else timeout_s)
