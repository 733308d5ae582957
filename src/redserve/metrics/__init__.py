"""Instruments: requests, batches and models as numbers on a prometheus_client registry, and `/metrics` to read them.

    REDMetrics       received, finished ─┐
    BatchMetrics     record, depth()     │
    ModelMetrics     info, ready        ─┼─> cells (plain lists, one writer: the event loop)
    DeadlineMetrics  missed             ─┘      │ copied in one step
                                                ├─> metrics_app: rendered from cached lines, in a thread
                                                └─> collect(): Metric objects, for generate_latest and others

Needs prometheus_client alone. Each instrument belongs to a registry and a namespace: made twice, it writes the same
numbers twice, because frameworks build their middleware stack more than once.

Decision: cells are lists, not prometheus_client's values. One request (arrived, in flight, ended, timed into 66
buckets) costs 0.7 us; with cached children of prometheus_client it costs 2.5 us, because each value takes a lock and a
histogram walks its bounds. Lists need one writer, so engine threads hand their timings to the loop with the answers.
Several processes each count for themselves, and are added up at a scrape (`merging.py`).
(`benchmarks/results/scrape_cost.json`)

Decision: 66 bounds, 15 a decade. The usual 14 put p99 up to 890 % off; 15 a decade keep p50, p95 and p99 within 7.5 %
over seven shapes of latency anywhere in 0.5 ms to 10 s, 10 a decade within 14.5 %, 20 a decade within 4.6 %. The exact
p99 of 1,000 requests itself wobbles by 4 % to 16 %, so finer bounds would show noise. An SLO gets growth 1.1 around it:
within 3.2 % there, with 49 bounds. (`benchmarks/results/quantile_error.json`)

Decision: latency is split by outcome. A refused request is answered at once; in the same histogram it would make the
p99 of an overloaded server look better.

Decision: our families are rendered here, the rest by `generate_latest`: 0.2 to 0.4 us a series against 7.4, so 3,000
series take 1 ms instead of 22 (`benchmarks/results/scrape_cost.json`). While the registry is collected our collectors
step aside (a context variable, nothing private of prometheus_client), so nothing is rendered twice and
`generate_latest(registry)` still shows everything.

Decision: every scrape is collected and rendered in a thread, whatever its size. A threshold would save the hand-over
for small ones, and would leave a user's slow collector on the event loop. The thread is our own: models that run in
asyncio's default pool fill it under load, and a scrape behind them would be late just then. Only the cells are copied
on the loop (20 ns a series), which is why the numbers of one scrape agree with each other. Copied from another thread,
as by `start_http_server`, each series agrees with itself only. A scrape of 30,000 series stops a busy loop for 0.5 ms.
(`benchmarks/results/scrape_cost.json`)

Decision: a collector of the user's that fails makes the scrape a 500, although our numbers would still be there. A 200
without the user's would look whole; a target that is down fires an alert. Who wants ours apart gives them a registry.

Decision: no `_created` series. They would double the counters, and Prometheus stores them as gauges like any other.
"""

from redserve.metrics.batch import BatchMetrics, BatchRecorder
from redserve.metrics.buckets import latency_buckets
from redserve.metrics.deadlines import DeadlineMetrics
from redserve.metrics.exposition import metrics_app
from redserve.metrics.model import ModelMetrics
from redserve.metrics.red import REDMetrics

__all__ = [
    "BatchMetrics",
    "BatchRecorder",
    "DeadlineMetrics",
    "ModelMetrics",
    "REDMetrics",
    "latency_buckets",
    "metrics_app",
]
