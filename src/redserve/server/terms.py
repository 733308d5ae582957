"""What all requests of a server have in common: the bound of their bodies, their deadlines, how they are refused."""

from collections.abc import Callable
from dataclasses import dataclass

from redserve.errors import RedserveError
from redserve.server.bodies import Bodies
from redserve.server.deadlines import Deadlines
from redserve.server.reply import Reply, error_reply


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What all requests of a server have in common.

    Attributes:
        bodies: The bound of what is held before it is queued.
        deadlines: When answers are due.
        missed: Told the model of each answer that is sent after its deadline.
        overload_status: The status of what is turned away because too much waits: 503 or 429.
    """

    bodies: Bodies
    deadlines: Deadlines
    missed: Callable[[str], None]
    overload_status: int = 503

    def refusal(self, error: RedserveError, *, model: str = "", is_open_inference: bool = False) -> Reply:
        """The answer to a request that fails with `error`."""
        return error_reply(
            error, model=model, overload_status=self.overload_status, is_open_inference=is_open_inference
        )
