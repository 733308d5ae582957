"""Rate, errors, duration: what is counted for each request of an ASGI app.

    received(method) ─> requests_received_total +1, requests_in_flight +1
    finished(...)    ─> requests_in_flight -1, requests_total +1, request_latency_seconds, and errors_total +1 if not ok

Each of the two calls writes all its cells without giving up the event loop, so in every copy that a scrape takes there,
received = sum(requests_total) + in flight, and + requests_forgotten_total once a model's series have gone with it.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Self, final

from prometheus_client import CollectorRegistry

from redserve.metrics.buckets import checked_bounds, latency_buckets
from redserve.metrics.cells import Counter, Gauge, Histogram, Series
from redserve.metrics.families import FamilySet, shared_families
from redserve.metrics.labels import METHODS, OTHER, BoundedValues

_MAX_MODELS = 100
_MAX_ROUTES = 500
_MAX_REASONS = 100
_MAX_OUTCOMES = 10

_RequestKey = tuple[str, str, str, int, str, str]  # route, method, model, code, outcome, reason
_Resolved = tuple[Series, Series | None, Series]  # in requests_total, errors_total, request_latency_seconds


@final
class REDMetrics:
    """The RED instruments of one registry and namespace; however often it is made, the numbers are the same ones.

    Args:
        registry: Where the families are registered; `None` is prometheus_client's default registry.
        namespace: What the names begin with.
        buckets: Upper bounds of the latency histogram in seconds; `None` is `latency_buckets()`.
        first_byte: Also keep `<namespace>_first_byte_seconds`, for routes that stream.

    Raises:
        ValueError: The registry has these families with other settings, or from elsewhere.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        namespace: str = "inference",
        buckets: Sequence[float] | None = None,
        first_byte: bool = False,
    ) -> None:
        bounds = latency_buckets() if buckets is None else checked_bounds(buckets)
        self._families = shared_families(_REDFamilies, registry, namespace, buckets=bounds, first_byte=first_byte)
        self._bounds = self._families.latency.bounds
        self._sum = len(self._bounds) + 1  # of a latency cell; CPython has no fast path for -1
        self._in_flight = self._families.in_flight.series().cell
        self._received = self._families.receiving_methods
        self._resolved = self._families.resolved

    @classmethod
    def shared(
        cls,
        registry: CollectorRegistry | None = None,
        *,
        namespace: str = "inference",
        buckets: Sequence[float] | None = None,
        first_byte: bool = False,
    ) -> Self:
        """The instruments of this registry and namespace, made if nobody did yet: the same as constructing them."""
        return cls(registry, namespace=namespace, buckets=buckets, first_byte=first_byte)

    def shares_numbers_with(self, other: "REDMetrics") -> bool:
        """Whether both write the same numbers: they are of one registry and namespace."""
        return self._families is other._families

    def received(self, method: str) -> None:
        """A request has arrived; `finished` must follow exactly once."""
        series = self._received.get(method)
        if series is None:
            series = self._families.receiving(method)
        series.cell[0] += 1
        self._in_flight[0] += 1

    def finished(
        self,
        route: str,
        method: str,
        model: str,
        code: int,
        outcome: str,
        reason: str,
        duration_s: float,
        exemplar: Mapping[str, object] | None = None,
    ) -> None:
        """A received request has ended.

        Args:
            route: The template, never the path that was asked for.
            method: As given to `received`.
            model: The model that answered; empty for none.
            code: The HTTP status as the client saw it.
            outcome: One of the table in `redserve.errors`.
            reason: Why it is not `ok`, for `errors_total`; of an `ok` it is not looked at.
            duration_s: From arrival to the last byte of the body.
            exemplar: Labels that lead to this very request, such as its trace id. Kept for its latency bucket, and for
                its reason when it is not ok.

        Raises:
            ValueError: The exemplar is not a valid one; the request is counted all the same.
        """
        resolved = self._resolved.get((route, method, model, code, outcome, reason))
        if resolved is None:
            resolved = self._families.resolve(route, method, model, code, outcome, reason)
        requests, errors, latency = resolved
        bucket = bisect_left(self._bounds, duration_s)
        self._in_flight[0] -= 1
        requests.cell[0] += 1
        if errors is not None:
            errors.cell[0] += 1
        cell = latency.cell
        cell[bucket] += 1
        cell[self._sum] += duration_s
        if exemplar:
            latency.set_exemplar(bucket, exemplar, duration_s)
            if errors is not None:
                errors.set_exemplar(0, exemplar, 1)

    def forget_model(self, model: str) -> None:
        """Take the series of a model that is gone out of the exposition; one that is not there is no mistake."""
        self._families.forget_model(model)

    def first_byte(self, *, route: str, method: str, model: str, outcome: str, duration_s: float) -> None:
        """Record how long the first byte of a response's body took; labels as in `finished`.

        Raises:
            RuntimeError: The instruments were made without `first_byte=True`.
        """
        family = self._families.first_byte
        if family is None:
            raise RuntimeError("REDMetrics was made without first_byte=True")
        family.observe(family.series(*self._families.request_labels(route, method, model, outcome)), duration_s)


class _REDFamilies(FamilySet):
    """What all REDMetrics of one registry and namespace write: cells, the limits of labels, the resolved series."""

    def __init__(self, namespace: str, *, buckets: Sequence[float], first_byte: bool) -> None:
        self.received = Counter(
            f"{namespace}_requests_received", "Requests that arrived, counted at entry.", ("method",)
        )
        self.requests = Counter(
            f"{namespace}_requests",
            "Requests that ended, by the status the client saw and by how they ended.",
            ("route", "method", "model", "code", "outcome"),
        )
        self.errors = Counter(
            f"{namespace}_errors", "Requests that did not end ok, by reason.", ("route", "model", "reason")
        )
        self.in_flight = Gauge(f"{namespace}_requests_in_flight", "Requests that arrived and have not ended.")
        self.forgotten = Counter(
            f"{namespace}_requests_forgotten", "Requests that ended, and whose series went with their model."
        )
        self.latency = Histogram(
            f"{namespace}_request_latency_seconds",
            "From arrival to the last byte of the answer.",
            ("route", "method", "model", "outcome"),
            bounds=buckets,
            unit="seconds",
        )
        self.first_byte = (
            Histogram(
                f"{namespace}_first_byte_seconds",
                "From arrival to the first byte of the answer's body.",
                ("route", "method", "model", "outcome"),
                bounds=buckets,
                unit="seconds",
            )
            if first_byte
            else None
        )
        families = (
            self.received,
            self.requests,
            self.errors,
            self.in_flight,
            self.forgotten,
            self.latency,
            self.first_byte,
        )
        super().__init__(family for family in families if family is not None)
        self.in_flight.series()
        self.receiving_methods: dict[str, Series] = {}
        self.resolved: dict[_RequestKey, _Resolved] = {}
        self._routes = BoundedValues("route", _MAX_ROUTES)
        self._models = BoundedValues("model", _MAX_MODELS)
        self._outcomes = BoundedValues("outcome", _MAX_OUTCOMES)
        self._reasons = BoundedValues("reason", _MAX_REASONS)

    def receiving(self, method: str) -> Series:
        """The series of requests that arrived with this method; remembered for the known ones."""
        if method not in METHODS:
            return self.received.series(OTHER)
        return self.receiving_methods.setdefault(method, self.received.series(method))

    def resolve(self, route: str, method: str, model: str, code: int, outcome: str, reason: str) -> _Resolved:
        """The series of a request; remembered, but under bounded labels only, so that this memory is bounded too."""
        labels = self.request_labels(route, method, model, outcome)
        route, method, model, outcome = labels
        reason = self._reasons.bounded(reason)
        status = str(code) if 100 <= code <= 599 else OTHER
        key = (route, method, model, code if status != OTHER else 0, outcome, reason)
        resolved = self.resolved.get(key)
        if resolved is None:
            resolved = self.resolved[key] = (
                self.requests.series(route, method, model, status, outcome),
                None if outcome == "ok" else self.errors.series(route, model, reason),
                self.latency.series(*labels),
            )
        return resolved

    def forget_model(self, model: str) -> None:
        """Remove every series of this model, and make room for another one."""
        for family in (self.requests, self.errors, self.latency, self.first_byte):
            if family is None:
                continue
            place = family.labels.index("model")
            for series, cell, _ in family.copy():
                if series.values[place] == model:
                    family.remove(*series.values)
                    if family is self.requests:
                        self.forgotten.series().cell[0] += cell[0]
        for key in [key for key in self.resolved if key[2] == model]:
            del self.resolved[key]
        self._models.forget(model)

    def request_labels(self, route: str, method: str, model: str, outcome: str) -> tuple[str, str, str, str]:
        """The bounded labels of both histograms."""
        return (
            self._routes.bounded(route),
            method if method in METHODS else OTHER,
            self._models.bounded(model),
            self._outcomes.bounded(outcome),
        )
