"""When an answer is due: `X-Request-Timeout-Ms` or what the body says, else the default, never later than the cap.

A budget and not a point in time, so that no clocks have to agree. Source: gRPC's `grpc-timeout`, which is relative for
the same reason.
"""

import re
from dataclasses import dataclass

from redserve.errors import BadRequest

HEADER = b"x-request-timeout-ms"

_NUMBER = re.compile(rb"[0-9]{1,15}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long requests may take.

    Attributes:
        default_s: For a request that names no budget.
        max_s: For one that names more than that.
    """

    default_s: float
    max_s: float

    def deadline_s(self, budget_ms: bytes, *, arrived_s: float, timeout_s: float | None = None) -> float:
        """When the answer is due, on the clock of `arrived_s`: the earlier where header and body both say.

        Args:
            budget_ms: The header as it came; empty when there was none.
            arrived_s: When the request came.
            timeout_s: The budget that the body names; `None` when it names none.

        Raises:
            BadRequest: The header is not a positive number.
        """
        if not budget_ms:
            return arrived_s + min(self.default_s if timeout_s is None else timeout_s, self.max_s)
        budget_s = float(budget_ms) / 1000 if _NUMBER.fullmatch(budget_ms) else 0.0
        if not budget_s > 0:
            raise BadRequest(
                f"X-Request-Timeout-Ms must be a positive number, not {budget_ms[:40].decode('latin-1')!r}"
            )
        return arrived_s + min(budget_s, self.max_s, budget_s if timeout_s is None else timeout_s)
