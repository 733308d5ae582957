"""Whether a client has stopped reading its answers: told how much waits for it, now and then."""

from redserve.server.bodies import MIN_BODY_BYTES_PER_S


class Unread:
    """What one connection has not taken yet.

    Args:
        timeout_s: Something may wait for so long, and a second more for each 1,000 bytes that are taken meanwhile.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._bytes = 0  # when last looked at
        self._since_s = 0.0

    def is_too_slow(self, unsent_bytes: int, *, now_s: float) -> bool:
        """Whether the client has had its time; what is added to what waits is no excuse."""
        if not self._bytes:
            self._since_s = now_s
        elif unsent_bytes < self._bytes:
            self._since_s = min(now_s, self._since_s + (self._bytes - unsent_bytes) / MIN_BODY_BYTES_PER_S)
        self._bytes = unsent_bytes
        return unsent_bytes > 0 and now_s - self._since_s >= self._timeout_s
