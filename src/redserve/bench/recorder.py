"""Counts what became of each request, cheaply enough for 50,000 a second; the histograms are made at the end."""

import math
import re
from array import array
from collections import Counter, defaultdict

from redserve.bench.connection import Departure
from redserve.bench.histogram import Histogram, round_us
from redserve.bench.sender import Sender
from redserve.bench.tally import MOST_REASONS, Slot, Tally

_MOST_SLOTS = 120
_LONGEST_EXAMPLE = 500
_REASON = re.compile(rb'"reason"\s*:\s*"(\w{1,40})"')
_REASON_WITHIN = 300  # bytes of a body that are searched for its reason


class TallyRecorder:
    """A `Recorder` of the sender that ends up as a `Tally`.

    Attributes:
        fresh_us: Latencies since `take_fresh` was last called, in microseconds.
        ok: Answers with status 2xx so far.
        failed: Requests without one so far.
    """

    def __init__(self, *, duration_s: float) -> None:
        self._slot_s = max(1.0, math.ceil(duration_s / _MOST_SLOTS))
        self._latency_us: defaultdict[int, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
        self._failed_at: Counter[int] = Counter()
        self._failed_us: defaultdict[int, int] = defaultdict(int)
        self._own_delay_us: defaultdict[int, int] = defaultdict(int)
        self._wait_us: defaultdict[int, int] = defaultdict(int)
        self._statuses: defaultdict[int, int] = defaultdict(int)
        self._failures: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._unsure = self._received_bytes = 0
        self._in_time = 0
        self._duration_s = duration_s
        self.fresh_us = array("I")
        self.ok = self.failed = 0

    def answered(self, departure: Departure, *, ended_s: float, status: int, body: bytes) -> None:
        """See `Recorder`."""
        planned_s = departure.planned_s
        latency_us = round_us(ended_s - planned_s)
        self._statuses[status] += 1
        self._received_bytes += len(body)
        self._left(departure)
        if 200 <= status < 300:
            self.ok += 1
            self._in_time += ended_s <= self._duration_s
            self._latency_us[int(planned_s / self._slot_s)][latency_us] += 1
            self.fresh_us.append(latency_us)
        else:
            self._failed_us[latency_us] += 1
            found = _REASON.search(body, 0, _REASON_WITHIN)
            reason = f"{status} {found[1].decode()}" if found else str(status)
            self._fail(departure, reason, body[:_LONGEST_EXAMPLE].decode("utf-8", "replace"))

    def unanswered(self, departure: Departure, *, ended_s: float, reason: str, detail: str) -> None:
        """See `Recorder`."""
        self._fail(departure, reason, detail[:_LONGEST_EXAMPLE])
        if departure.sent_s < math.inf:
            self._unsure += 1
            self._left(departure)

    def take_fresh(self) -> "array[int]":
        """The latencies since the last call."""
        fresh, self.fresh_us = self.fresh_us, array("I")
        return fresh

    def tally(self, sender: Sender) -> Tally:
        """All of it, and what the sender knows of the run."""
        count = 1 + max((*self._latency_us, *self._failed_at), default=-1)
        slots = [Slot(Histogram.of(self._latency_us[at]), self._failed_at[at]) for at in range(count)]
        latency = Histogram()
        for slot in slots:
            latency.add(slot.latency)
        return Tally(
            slot_s=self._slot_s,
            slots=slots,
            latency=latency,
            failed_latency=Histogram.of(self._failed_us),
            own_delay=Histogram.of(self._own_delay_us),
            connection_wait=Histogram.of(self._wait_us),
            statuses=Counter(self._statuses),
            failures=self._failures,
            examples=self._examples,
            unsure=self._unsure,
            received_bytes=self._received_bytes,
            in_time=self._in_time,
            unsent=sender.unsent,
            sent_for_s=sender.sent_for_s,
            stopped_because=sender.stopped_because,
        )

    def _left(self, departure: Departure) -> None:
        self._own_delay_us[round_us(departure.taken_s - departure.planned_s)] += 1
        self._wait_us[round_us(departure.sent_s - departure.taken_s)] += 1

    def _fail(self, departure: Departure, reason: str, example: str) -> None:
        if reason not in self._failures and len(self._failures) >= MOST_REASONS:
            reason = "other"
        self.failed += 1
        self._failed_at[int(departure.planned_s / self._slot_s)] += 1
        self._failures[reason] += 1
        self._examples.setdefault(reason, example)
