"""What a server's own metrics say of a stretch of time: two scrapes of redserve's families, subtracted."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import Sample
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Buckets:
    """A histogram of Prometheus: how many were above one bound and not above the next.

    Attributes:
        bounds: Upper ends, the last one infinite.
        counts: In each, not cumulated.
        total: The sum of what was observed.
    """

    bounds: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()
    total: float = 0.0

    @property
    def count(self) -> float:
        """How many."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """0 of none."""
        return self.total / self.count if self.count else 0.0

    def __sub__(self, before: "Buckets") -> "Buckets":
        """What came since `before`."""
        earlier = dict(zip(before.bounds, before.counts, strict=True))
        counts = tuple(n - earlier.get(bound, 0) for bound, n in zip(self.bounds, self.counts, strict=True))
        return Buckets(self.bounds, counts, self.total - before.total)

    def quantile(self, share: float) -> float:
        """As Prometheus' `histogram_quantile`: evenly spread within a bucket; 0 of none."""
        rank, seen, low = share * self.count, 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if count and seen + count >= rank:
                return low if math.isinf(bound) else low + (bound - low) * (rank - seen) / count
            seen, low = seen + count, bound
        return 0.0


@dataclass(frozen=True)
class Scrape:
    """What one look at `/metrics` showed, of all models and routes.

    Attributes:
        ended: Requests that ended, by status as its label says it.
        in_flight: Requests that have not.
        latency: From arrival to the last byte, of those that were ok, in seconds.
        queue_wait: From a row's arrival in the queue to its batch, in seconds.
        compute: One run, in seconds.
        batch_size: Rows of one run.
    """

    ended: Mapping[str, float] = field(default_factory=dict)
    in_flight: float = 0.0
    latency: Buckets = Buckets()
    queue_wait: Buckets = Buckets()
    compute: Buckets = Buckets()
    batch_size: Buckets = Buckets()

    def __sub__(self, before: "Scrape") -> "Scrape":
        """What came since `before`."""
        ended = {code: n - before.ended.get(code, 0) for code, n in self.ended.items()}
        return Scrape(
            {code: n for code, n in ended.items() if n},
            self.in_flight,
            self.latency - before.latency,
            self.queue_wait - before.queue_wait,
            self.compute - before.compute,
            self.batch_size - before.batch_size,
        )


def read_scrape(page: str) -> Scrape | None:
    """Read a page; `None` when it has no requests of redserve's.

    Raises:
        ValueError: It is not Prometheus text.
    """
    families = {family.name: family.samples for family in text_string_to_metric_families(page)}
    if "inference_requests_received" not in families:
        return None
    ended: Counter[str] = Counter()
    for sample in families.get("inference_requests", ()):
        if sample.name.endswith("_total"):
            ended[sample.labels["code"]] += int(sample.value)
    return Scrape(
        ended,
        sum(sample.value for sample in families.get("inference_requests_in_flight", ())),
        _buckets(families.get("inference_request_latency_seconds", ()), outcome="ok"),
        _buckets(families.get("inference_queue_wait_seconds", ())),
        _buckets(families.get("inference_compute_seconds", ())),
        _buckets(families.get("inference_batch_size", ())),
    )


def _buckets(samples: Sequence[Sample], **labels: str) -> Buckets:
    cumulated: defaultdict[float, float] = defaultdict(float)
    total = 0.0
    for sample in samples:
        if labels.items() <= sample.labels.items():
            if sample.name.endswith("_bucket"):
                cumulated[float(sample.labels["le"])] += sample.value
            elif sample.name.endswith("_sum"):
                total += sample.value
    bounds = sorted(cumulated)
    below = [0.0, *(cumulated[bound] for bound in bounds)]
    counts = tuple(high - low for low, high in itertools.pairwise(below))
    return Buckets(tuple(bounds), counts, total)
