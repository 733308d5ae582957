"""What `redserve bench` found, as it is written to JSON and read again: one frozen schema, with its version in it.

A change of these classes that an older reader would not understand is a new `SCHEMA`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
import orjson

from redserve.bench.histogram import Histogram
from redserve.bench.mistakes import BenchError

SCHEMA: Final = "redserve-bench/1"


@dataclass(frozen=True, kw_only=True)
class Times:
    """A distribution of times, in seconds; all 0 when there was none."""

    count: int
    mean_s: float
    p50_s: float
    p75_s: float
    p90_s: float
    p95_s: float
    p99_s: float
    p999_s: float
    max_s: float

    @classmethod
    def of(cls, histogram: Histogram) -> "Times":
        """Of what was recorded."""
        p50, p75, p90, p95, p99, p999 = histogram.percentiles_s()
        return cls(
            count=len(histogram),
            mean_s=histogram.mean_s(),
            p50_s=p50,
            p75_s=p75,
            p90_s=p90,
            p95_s=p95,
            p99_s=p99,
            p999_s=p999,
            max_s=histogram.max_s(),
        )


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A stretch of a run, by the planned time of its requests."""

    at_s: float
    seconds: float
    ok: int
    failed: int
    p50_s: float
    p99_s: float


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Requests without a 2xx answer, of one reason, and what one of them was told."""

    reason: str
    count: int
    example: str


@dataclass(frozen=True, kw_only=True)
class Client:
    """What the sender saw.

    Attributes:
        loop: Whether latency counts from a plan (`open`) or from the previous answer (`closed`).
        planned: Requests that were to leave.
        ok: Those answered with 2xx.
        failed: Those sent, or tried to, and not answered so.
        unsent: Those that were due and never left, because the sender was too slow.
        seconds: How long it was sent.
        ok_per_s: 2xx answers within that time, a second.
        rows_per_s: Rows in them; 0 where rows are not known.
        within_slo_ratio: The part of all planned requests that were answered with 2xx within the SLO.
        latency: Of the 2xx answers, from the planned time to the last byte.
        failed_latency: Of other answers.
        own_delay: From the planned time until the sender got to it: part of the latency, not the server's doing.
        connection_wait: From there until a connection was free: part of the latency.
        statuses: Answers by status.
        failures: By reason, the most frequent first.
        unsure: Requests that left and were not answered: the server may have counted them or not.
        received_bytes: In bodies.
        timeline: The run in stretches.
        histogram: `latency`, HdrHistogram V2, base64.
    """

    loop: Literal["open", "closed"]
    planned: int
    ok: int
    failed: int
    unsent: int
    seconds: float
    ok_per_s: float
    rows_per_s: float
    within_slo_ratio: float | None
    latency: Times
    failed_latency: Times
    own_delay: Times
    connection_wait: Times
    statuses: Mapping[str, int]
    failures: Sequence[Failure]
    unsure: int
    received_bytes: int
    timeline: Sequence[Moment]
    histogram: str


@dataclass(frozen=True, kw_only=True)
class ServerTimes:
    """Quantiles of a Prometheus histogram, interpolated within its buckets."""

    count: float
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float


@dataclass(frozen=True, kw_only=True)
class BatchSizes:
    """How many runs had more rows than the bound before and at most `at_most_rows`; `None` is no bound."""

    at_most_rows: float | None
    runs: float


@dataclass(frozen=True, kw_only=True)
class ServerSide:
    """What the server's `/metrics` say of the same run.

    Attributes:
        ended: Requests that ended, by status.
        latency: From arrival to the last byte, of those that were ok.
        finest_s: The first bound of its latency histogram: below that it tells nothing apart.
        queue_wait: Of rows.
        compute: Of runs.
        mean_batch_rows: Rows of a run.
        batch_sizes: Runs by size, without empty buckets.
        mismatch: Why its counts and the sender's cannot both be right; empty when they agree.
    """

    ended: Mapping[str, float]
    latency: ServerTimes
    finest_s: float
    queue_wait: ServerTimes
    compute: ServerTimes
    mean_batch_rows: float
    batch_sizes: Sequence[BatchSizes]
    mismatch: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """One measurement.

    Attributes:
        started_at: ISO 8601, UTC.
        rate_per_s: What was asked for; `None` in a closed loop.
        client: What the sender saw.
        server: What the server says; `None` where it says nothing.
        server_note: Why it says nothing.
        notes: What must be known before the numbers are believed.
        stopped_because: Why it ended early, else empty.
    """

    started_at: str
    rate_per_s: float | None
    client: Client
    server: ServerSide | None
    server_note: str
    notes: Sequence[str]
    stopped_because: str


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What was asked for.

    Attributes:
        url: Of the endpoint.
        server: Name and version, as it says.
        model: Its name.
        format: `predict`, `v2`, `v2-binary`, `template` or `no body`.
        rows: In a request; 0 where that is not known.
        loop: `open` or `closed`.
        arrivals: In words.
        connections: At any time in a closed loop; to begin with in an open one.
        max_connections: At most.
        processes: That send.
        duration_s: Of a run.
        warm_up_s: Before it.
        timeout_s: Patience for an answer.
        deadline_s: That the server was told.
        slo_s: What latency was wanted.
        distinct_requests: Different ones, sent in turn.
        request_bytes: Of one, on average.
    """

    url: str
    server: str
    model: str
    format: str
    rows: int
    loop: Literal["open", "closed"]
    arrivals: str
    connections: int
    max_connections: int
    processes: int
    duration_s: float
    warm_up_s: float
    timeout_s: float
    deadline_s: float | None
    slo_s: float | None
    distinct_requests: int
    request_bytes: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """One rate of a sweep; `run` is its place in the result's runs."""

    rate_per_s: float
    run: int
    is_within_slo: bool


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The rates tried.

    Attributes:
        slo_s: The latency that `share` of all planned requests must keep; a failed request keeps none.
        share: Of them, 0.99.
        steps: In the order they were tried.
        knee_per_s: The highest rate that kept it; `None` when none did.
        ended_because: Why no higher rate was tried.
    """

    slo_s: float
    share: float
    steps: Sequence[Step]
    knee_per_s: float | None
    ended_because: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """A whole command.

    Attributes:
        schema: `redserve-bench/1`.
        command: As it was typed.
        setup: What was asked for.
        environment: Where it ran, and the versions.
        runs: In the order they were made.
        sweep: With `--sweep`.
    """

    schema: Literal["redserve-bench/1"]
    command: str
    setup: Setup
    environment: Mapping[str, str]
    runs: Sequence[Run]
    sweep: Sweep | None

    def write(self, path: Path) -> None:
        """As JSON.

        Raises:
            BenchError: It cannot be written.
        """
        try:
            path.write_bytes(orjson.dumps(self, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            raise BenchError(f"{path}: {error.strerror}") from error

    @classmethod
    def read(cls, path: Path) -> "Result":
        """What `write` wrote.

        Raises:
            BenchError: It is not there, or something else.
        """
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise BenchError(f"{path}: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise BenchError(f"{path} is no result of `redserve bench` ({SCHEMA}): {error}") from error
