"""One run: connect, warm up, look at the metrics, send, look again."""

from datetime import UTC, datetime

from redserve.bench.load import Load
from redserve.bench.processes import Processes
from redserve.bench.progress import Reporter
from redserve.bench.result import Client, Failure, Moment, Run, Times
from redserve.bench.tally import Tally
from redserve.bench.truth import Witness
from redserve.bench.verdict import notes_on, within_slo_ratio


def measure(
    load: Load,
    *,
    processes: int,
    warm_up_s: float,
    rows: int,
    slo_s: float | None,
    witness: Witness,
    reporter: Reporter,
) -> tuple[Run, Tally]:
    """Make one run.

    Args:
        load: What is sent, by all processes together.
        processes: That send.
        warm_up_s: Sent before and not counted, unless it is stopped; the queue is empty again when the run begins.
        rows: In a request, for the rows a second.
        slo_s: The latency that is wanted, if any.
        witness: Of the server.
        reporter: Shows how far it is.

    Raises:
        BenchError: The server takes no connections.
    """
    with Processes(load, processes) as senders:
        witness.look_before()
        started_at = datetime.now(UTC)
        tally = Tally()
        if warm_up_s:
            reporter.begin("warm-up", warm_up_s)
            tally = senders.run(warm_up_s, reporter.show)
        if not tally.stopped_because:
            witness.look_before()
            started_at = datetime.now(UTC)
            reporter.begin(f"{load.loop} loop", load.duration_s)
            tally = senders.run(load.duration_s, reporter.show)
    server = witness.look_after(tally)
    run = Run(
        started_at=started_at.isoformat(timespec="milliseconds"),
        rate_per_s=None if load.arrivals is None else load.arrivals.rate_per_s,
        client=client_side(tally, load, rows=rows, slo_s=slo_s),
        server=server,
        server_note=witness.note,
        notes=notes_on(tally, load),
        stopped_because=tally.stopped_because,
    )
    return run, tally


def client_side(tally: Tally, load: Load, *, rows: int, slo_s: float | None) -> Client:
    """A tally as it is reported."""
    return Client(
        loop="closed" if load.arrivals is None else "open",
        planned=tally.planned,
        ok=tally.ok,
        failed=tally.failed,
        unsent=tally.unsent,
        seconds=tally.sent_for_s,
        ok_per_s=tally.ok_per_s,
        rows_per_s=rows * tally.ok_per_s,
        within_slo_ratio=None if slo_s is None else within_slo_ratio(tally, slo_s),
        latency=Times.of(tally.latency),
        failed_latency=Times.of(tally.failed_latency),
        own_delay=Times.of(tally.own_delay),
        connection_wait=Times.of(tally.connection_wait),
        statuses={str(status): count for status, count in sorted(tally.statuses.items())},
        failures=[
            Failure(reason=reason, count=count, example=tally.examples.get(reason, ""))
            for reason, count in tally.failures.most_common()
        ],
        unsure=tally.unsure,
        received_bytes=tally.received_bytes,
        timeline=_timeline(tally),
        histogram=tally.latency.encode(),
    )


def _timeline(tally: Tally) -> list[Moment]:
    moments = []
    for number, slot in enumerate(tally.slots):
        at_s = number * tally.slot_s
        seconds = min(tally.slot_s, tally.sent_for_s - at_s)
        if seconds <= 0:
            break
        p50_s, p99_s = slot.latency.percentiles_s((50.0, 99.0))
        moments.append(
            Moment(at_s=at_s, seconds=seconds, ok=len(slot.latency), failed=slot.failed, p50_s=p50_s, p99_s=p99_s)
        )
    return moments
