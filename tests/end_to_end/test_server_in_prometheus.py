"""The reference server in a real Prometheus: what was asked is what is counted, and the p99 is the true one."""

import asyncio
import time
from urllib.parse import urlsplit

import httpx2
import numpy as np
from served import Served

from redserve import demo, latency_buckets

REQUESTS = 2_000
CLIENTS = 8


async def ask(url, pixels):
    """Asks all, over a few connections; returns each request's seconds, as its answer says and as its client saw."""
    inside_s, outside_s = [], []

    async def client():
        async with httpx2.AsyncClient(timeout=60) as session:
            for _ in range(REQUESTS // CLIENTS):
                began_s = time.perf_counter()
                answer = await session.post(url, json={"instances": [pixels]})
                outside_s.append(time.perf_counter() - began_s)
                assert answer.json()["predictions"][0]["label"] == 3
                inside_s.append(float(answer.headers["server-timing"].rpartition("total;dur=")[2]) / 1000)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return inside_s, outside_s


def test_requests_to_the_demo_are_seen_in_prometheus_with_their_true_quantiles(prometheus):
    with Served() as served:
        prometheus.add_target("digits", urlsplit(served.url).port)
        inside_s, outside_s = asyncio.run(ask(f"{served.url}/predict", demo.samples()[3]["pixels"]))
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

    # what Prometheus shows lies between what the answers say (before they were sent) and what the clients saw
    bounds = (0.0, *latency_buckets())
    for quantile in (0.5, 0.95, 0.99):
        query = f'histogram_quantile({quantile}, inference_request_latency_seconds_bucket{{{mine},outcome="ok"}})'
        shown_s = prometheus.value(query)
        least_s, most_s = (np.quantile(times_s, quantile, method="inverted_cdf") for times_s in (inside_s, outside_s))
        assert max(bound for bound in bounds if bound < least_s) <= shown_s, quantile
        assert shown_s <= min(bound for bound in bounds if bound >= most_s), quantile
