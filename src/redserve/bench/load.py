"""What is sent to whom, and for how long."""

import math
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from redserve.bench.arrivals import Arrivals


@dataclass(frozen=True, kw_only=True)
class Load:
    """One run against one server.

    Attributes:
        host: Whom.
        port: Where it listens.
        requests: Whole HTTP/1.1 requests, head and body, sent in turn.
        arrivals: When each leaves (open loop); `None` sends as fast as answers come (closed loop).
        connections: In a closed loop, so many requests are under way at any time; in an open loop, to begin with.
        max_connections: An open loop opens more when all are busy, up to these; then requests wait.
        duration_s: How long it sends.
        timeout_s: A request without an answer so long after its planned time has failed.
        max_failed_ratio: The run is broken off when a larger part fails within a second; 1 never does.
        tls: For https.
    """

    host: str
    port: int
    requests: Sequence[bytes]
    arrivals: Arrivals | None = None
    connections: int = 64
    max_connections: int = 1024
    duration_s: float = 10.0
    timeout_s: float = 30.0
    max_failed_ratio: float = 1.0
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        if not self.requests:
            raise ValueError("there is nothing to send")
        if self.connections < 1:
            raise ValueError(f"connections must be >= 1, got {self.connections}")
        if not (0 < self.duration_s < math.inf):
            raise ValueError(f"a run has a bounded duration > 0, got {self.duration_s} s")
        if not self.timeout_s > 0:
            raise ValueError(f"the timeout must be > 0, got {self.timeout_s} s")
        if not 0 < self.max_failed_ratio <= 1:
            raise ValueError(f"max_failed_ratio must be in (0, 1], got {self.max_failed_ratio}")

    @property
    def loop(self) -> str:
        """`open` or `closed`, as every output names it."""
        return "closed" if self.arrivals is None else "open"

    @property
    def most_connections(self) -> int:
        """How many there may be at a time."""
        return self.connections if self.arrivals is None else max(self.connections, self.max_connections)
