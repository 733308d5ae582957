"""Label values stay few: methods from a list, everything else the first so many, the rest `_other`."""

import logging

OTHER = "_other"

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"})

logger = logging.getLogger("redserve.metrics")


class BoundedValues:
    """The values one label may take: the first `limit` that come.

    Whatever a user or a client manages to put there, a label has `limit` + 1 values at most.
    """

    def __init__(self, label: str, limit: int) -> None:
        self._label = label
        self._limit = limit
        self._values: set[str] = set()
        self._is_full = False

    def bounded(self, value: str) -> str:
        """`value`, or `_other` when it is new and there is no room."""
        if value in self._values or not value:
            return value
        if len(self._values) < self._limit:
            self._values.add(value)
            return value
        if not self._is_full:
            self._is_full = True
            logger.warning(
                "label values beyond the limit are counted as _other",
                extra={"label": self._label, "limit": self._limit},
            )
        return OTHER

    def forget(self, value: str) -> None:
        """Make room: no series has this value any more."""
        self._values.discard(value)
        self._is_full = False
