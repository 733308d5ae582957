"""What a run amounts to: histograms, counts, examples; those of several processes add up."""

from collections import Counter
from dataclasses import dataclass, field

from redserve.bench.histogram import Histogram

MOST_REASONS = 50
"""More kinds of failure than these are counted as `other`, so that no server can fill the report."""


@dataclass
class Slot:
    """A stretch of the run, by planned time.

    Attributes:
        latency: Of the answers that were ok.
        failed: Requests without such an answer.
    """

    latency: Histogram = field(default_factory=Histogram)
    failed: int = 0


@dataclass
class Tally:
    """All that was seen.

    Attributes:
        slot_s: How long a slot is.
        slots: One after the other, from the start.
        latency: Of answers with status 2xx, from the planned time to the last byte.
        failed_latency: Of all other answers, so that quick refusals do not make a server look fast.
        own_delay: From the planned time until the sender got to the request: no server's doing.
        connection_wait: From there until a connection was free.
        statuses: Answers by status.
        failures: Requests without a 2xx answer, by reason.
        examples: One body or error text of each reason.
        unsure: Requests that left and were never answered: whether the server counted them is not known.
        received_bytes: In bodies.
        unsent: Requests that were due and had not left when the run ended.
        in_time: Answers with status 2xx that were complete before the time for sending was over.
        sent_for_s: How long it was sent.
        stopped_because: Why the run ended early, else empty.
    """

    slot_s: float = 1.0
    slots: list[Slot] = field(default_factory=list)
    latency: Histogram = field(default_factory=Histogram)
    failed_latency: Histogram = field(default_factory=Histogram)
    own_delay: Histogram = field(default_factory=Histogram)
    connection_wait: Histogram = field(default_factory=Histogram)
    statuses: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    unsure: int = 0
    received_bytes: int = 0
    unsent: int = 0
    in_time: int = 0
    sent_for_s: float = 0.0
    stopped_because: str = ""

    @property
    def ok(self) -> int:
        """Answers with status 2xx."""
        return len(self.latency)

    @property
    def failed(self) -> int:
        """Requests without such an answer; those that never left because the sender was late are not among them."""
        return self.failures.total()

    @property
    def ok_per_s(self) -> float:
        """Answers with status 2xx a second, while it was sent: the goodput."""
        return self.in_time / self.sent_for_s if self.sent_for_s else 0.0

    @property
    def planned(self) -> int:
        """Requests that were to leave."""
        return self.ok + self.failed + self.unsent

    def add(self, other: "Tally") -> None:
        """Take in what another process saw of the same run."""
        self.slot_s = other.slot_s
        self.slots += [Slot() for _ in range(len(other.slots) - len(self.slots))]
        for mine, theirs in zip(self.slots, other.slots, strict=False):
            mine.latency.add(theirs.latency)
            mine.failed += theirs.failed
        self.latency.add(other.latency)
        self.failed_latency.add(other.failed_latency)
        self.own_delay.add(other.own_delay)
        self.connection_wait.add(other.connection_wait)
        self.statuses += other.statuses
        self.failures += other.failures
        self.examples = other.examples | self.examples
        self.unsure += other.unsure
        self.received_bytes += other.received_bytes
        self.unsent += other.unsent
        self.in_time += other.in_time
        self.sent_for_s = max(self.sent_for_s, other.sent_for_s)
        self.stopped_because = self.stopped_because or other.stopped_because
