"""The truth check: what the server's `/metrics` say of a run, and whether its counts and the sender's agree.

Every answer that the sender saw, the server must have counted, with that status. What it counted beyond that must be
requests whose answers the sender did not wait for, else somebody else was there too.
"""

import math
import time
from collections import Counter

from redserve.bench.exchange import Server
from redserve.bench.metrics_page import Buckets, Scrape, read_scrape
from redserve.bench.mistakes import BenchError
from redserve.bench.result import BatchSizes, ServerSide, ServerTimes
from redserve.bench.tally import Tally

_SETTLE_LIMIT_S = 5.0
_SETTLE_EVERY_S = 0.05
_UNCOUNTED = "too_many_connections"
"""The server refuses a connection before it counts a request."""


class Witness:
    """The server's metrics page.

    Args:
        server: Whose.
        path: Of the page.
        must_count: Requests that it does not count at all are a mismatch; else they may be to a path it leaves out.

    Attributes:
        note: Why it says nothing; empty while it does.
    """

    def __init__(self, server: Server, path: str = "/metrics", *, must_count: bool = True) -> None:
        self._server = server
        self._path = path
        self._must_count = must_count
        self._before: Scrape | None = None
        self.note = ""

    def look_before(self) -> None:
        """The run is about to begin."""
        self.note = ""
        self._before = self._look()

    def look_after(self, tally: Tally) -> ServerSide | None:
        """The run is over; `None` when the server says nothing, and `note` why."""
        if self._before is None:
            return None
        deadline_s = time.monotonic() + _SETTLE_LIMIT_S
        after = self._look()
        while after is not None and after.in_flight and time.monotonic() < deadline_s:
            time.sleep(_SETTLE_EVERY_S)  # what the sender gave up may still run
            after = self._look()
        if after is None:
            return None
        since = after - self._before
        if not since.ended and not self._must_count:
            self.note = f"{self._path} counts none of these requests, as of a path it leaves out: no truth check"
            return None
        return server_side(since, tally)

    def _look(self) -> Scrape | None:
        try:
            answer = self._server.ask("GET", self._path, headers={"Accept": "text/plain"})
            if answer.status in (401, 403):
                self.note = f"{self._path} is closed to this key ({answer.status}): no truth check"
                return None
            scrape = read_scrape(answer.body.decode()) if answer.is_ok else None
        except (BenchError, ValueError) as error:
            self.note = f"no truth check: {error}"
            return None
        if scrape is None:
            self.note = f"{self._path} has no metrics of redserve ({answer.status}): no truth check"
        return scrape


def server_side(since: Scrape, tally: Tally) -> ServerSide:
    """What came since, beside what the sender saw."""
    return ServerSide(
        ended=since.ended,
        latency=_times(since.latency),
        finest_s=since.latency.bounds[0] if since.latency.bounds else 0.0,
        queue_wait=_times(since.queue_wait),
        compute=_times(since.compute),
        mean_batch_rows=since.batch_size.mean,
        batch_sizes=[
            BatchSizes(at_most_rows=None if math.isinf(bound) else bound, runs=count)
            for bound, count in zip(since.batch_size.bounds, since.batch_size.counts, strict=True)
            if count
        ],
        mismatch=mismatch(since, tally),
    )


def mismatch(since: Scrape, tally: Tally) -> str:
    """Why the server's counts and the sender's cannot both be right; empty when they can."""
    seen = Counter({str(status): count for status, count in tally.statuses.items()})
    for reason, count in tally.failures.items():
        if reason.endswith(_UNCOUNTED):
            seen[reason.split()[0]] -= count
    counted = Counter({code: round(count) for code, count in since.ended.items()})
    missing = seen - counted
    if missing:
        return (
            f"the server has not counted what it answered: {_listed(missing)} fewer than were received. Are there "
            "several server processes, each with metrics of its own?"
        )
    beyond = counted - seen
    if beyond.total() > tally.unsure:
        return (
            f"the server counted {_listed(beyond)} more than the sender saw, which left {tally.unsure:,} unanswered. "
            "Did somebody else send to it?"
        )
    return ""


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} x {code}" for code, count in sorted(counts.items()))


def _times(buckets: Buckets) -> ServerTimes:
    return ServerTimes(
        count=buckets.count,
        mean_s=buckets.mean,
        p50_s=buckets.quantile(0.5),
        p95_s=buckets.quantile(0.95),
        p99_s=buckets.quantile(0.99),
    )
