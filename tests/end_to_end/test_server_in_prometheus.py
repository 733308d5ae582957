"""The reference server in a real Prometheus: what was asked is what is counted, and the p99 is the true one."""

import asyncio
from urllib.parse import urlsplit

import httpx2
import numpy as np
from served import Served

from redserve import demo, latency_buckets

REQUESTS = 2_000
CLIENTS = 8


async def ask(url, pixels):
    """Asks all, over a few connections; returns the server's own milliseconds of each request."""
    totals_ms = []

    async def client():
        async with httpx2.AsyncClient(timeout=60) as session:
            for _ in range(REQUESTS // CLIENTS):
                answer = await session.post(url, json={"instances": [pixels]})
                assert answer.json()["predictions"][0]["label"] == 3
                totals_ms.append(float(answer.headers["server-timing"].rpartition("total;dur=")[2]))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return totals_ms


def test_requests_to_the_demo_are_seen_in_prometheus_with_their_true_quantiles(prometheus):
    with Served() as served:
        prometheus.add_target("digits", urlsplit(served.url).port)
        totals_s = np.array(asyncio.run(ask(f"{served.url}/predict", demo.samples()[3]["pixels"]))) / 1000
        mistake = httpx2.post(f"{served.url}/predict", json={"instances": [[1]]})
        prometheus.wait_for_scrape("digits")
        prometheus.remove_target("digits")

    mine = 'job="digits",route="/predict",method="POST",model="digits"'
    assert mistake.status_code == 400
    assert prometheus.value(f'inference_requests_total{{{mine},code="200",outcome="ok"}}') == REQUESTS
    assert prometheus.value(f'inference_requests_total{{{mine},code="400",outcome="client_error"}}') == 1
    assert prometheus.value('inference_requests_in_flight{job="digits"}') == 0
    assert prometheus.value('inference_batch_size_sum{job="digits"}') == REQUESTS
    assert prometheus.value('inference_queue_wait_seconds_count{job="digits"}') == REQUESTS
    assert prometheus.value('sum(inference_batches_total{job="digits"})') == prometheus.value(
        'inference_compute_seconds_count{job="digits"}'
    )
    assert prometheus.value('inference_model_ready{job="digits",model="digits"}') == 1

    bounds = np.array(latency_buckets())
    for quantile in (0.5, 0.95, 0.99):
        query = f'histogram_quantile({quantile}, inference_request_latency_seconds_bucket{{{mine},outcome="ok"}})'
        shown_s = prometheus.value(query)
        exact_s = float(np.quantile(totals_s, quantile, method="inverted_cdf"))
        position = int(np.searchsorted(bounds, exact_s))
        lower_s, upper_s = (bounds[position - 1] if position else 0.0), bounds[position]
        # the middleware begins before the door and ends after it: allow 0.2 ms on either side of the bucket
        assert lower_s - 2e-4 <= shown_s <= upper_s + 2e-4, (quantile, shown_s, exact_s)
