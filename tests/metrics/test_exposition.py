import asyncio
import gzip
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Counter as UserCounter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from redserve.errors import ModelNotReady
from redserve.metrics import BatchMetrics, ModelMetrics, REDMetrics, exposition, metrics_app
from redserve.metrics.exposition import takes_gzip, wants_openmetrics
from redserve.metrics.families import family_sets
from redserve.metrics.rendering import render

# What Prometheus 2.42 and 3.5 send.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


async def scrape(registry, *, method="GET", query="", copy_all=None, **headers):
    sent = []

    async def receive():
        raise AssertionError("a scrape has no body to read")

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": "/metrics",
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }
    await metrics_app(registry, copy_all=copy_all)(scope, receive, send)
    start, body = sent
    return start["status"], {key.decode(): value.decode() for key, value in start["headers"]}, body["body"]


def serve(registry, **changes):
    red = REDMetrics(registry)
    red.received("POST")
    request = {"route": "/predict", "method": "POST", "model": "", "code": 200, "outcome": "ok", "reason": ""}
    red.finished(**{**request, "duration_s": 0.004, **changes})


class Collecting:
    """A user's collector: it runs `collect` and remembers the thread."""

    def __init__(self, collect=lambda: None):
        self._collect = collect
        self.threads = []

    def describe(self):
        return []

    def collect(self):
        self.threads.append(threading.get_ident())
        self._collect()
        return [GaugeMetricFamily("users_own", "A user's.", value=1)]


def samples_of(families):
    return sorted((s.name, tuple(sorted(s.labels.items())), s.value) for family in families for s in family.samples)


async def test_a_scrape_shows_each_of_our_families_once_and_the_users(registry):
    serve(registry, code=500, outcome="error", reason="model_error")
    BatchMetrics(registry).watch("digits", "1", lambda: 3, 1024)
    ModelMetrics(registry).ready("digits", "1", True)
    UserCounter("users_own", "A user's.", registry=registry).inc()

    status, headers, body = await scrape(registry)

    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert int(headers["content-length"]) == len(body)
    expected = samples_of(parse_text(generate_latest(registry).decode()))
    assert samples_of(parse_text(body.decode())) == expected


async def test_openmetrics_ends_once_and_holds_the_exemplars(registry):
    serve(registry, exemplar={"trace_id": "abc"})
    UserCounter("users_own", "A user's.", registry=registry).inc()

    _, headers, body = await scrape(registry, accept=PROMETHEUS_2)

    assert headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    text = body.decode()
    assert text.count("# EOF") == 1
    assert text.endswith("# EOF\n")
    families = {family.name: family for family in parse_openmetrics(text)}
    assert {"users_own", "inference_requests", "inference_request_latency_seconds"} <= families.keys()
    exemplars = [s.exemplar for s in families["inference_request_latency_seconds"].samples if s.exemplar]
    assert [(exemplar.labels, exemplar.value) for exemplar in exemplars] == [({"trace_id": "abc"}, 0.004)]


async def test_a_registry_without_instruments_is_exposed_too(registry):
    UserCounter("users_own", "A user's.", registry=registry).inc()

    _, _, body = await scrape(registry)
    assert b"users_own_total 1.0\n" in body


async def test_head_has_the_headers_of_get_and_no_body(registry):
    serve(registry)
    _, get_headers, _ = await scrape(registry, accept_encoding="gzip")
    status, headers, body = await scrape(registry, method="HEAD", accept_encoding="gzip")

    assert status == 200
    assert headers == get_headers
    assert body == b""


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "DELETE"])
async def test_other_methods_are_told_what_is_allowed(registry, method):
    status, headers, body = await scrape(registry, method=method)

    assert status == 405
    assert headers["allow"] == "GET, HEAD"
    assert method.encode() in body


async def test_gzip_is_used_where_it_is_taken(registry):
    serve(registry)
    _, plain_headers, plain = await scrape(registry)
    _, headers, compressed = await scrape(registry, accept_encoding="deflate, gzip;q=0.5")

    assert "content-encoding" not in plain_headers
    assert headers["content-encoding"] == "gzip"
    assert int(headers["content-length"]) == len(compressed)
    assert gzip.decompress(compressed) == plain


async def test_caches_are_told_what_the_answer_depends_on(registry):
    _, headers, _ = await scrape(registry)

    assert headers["vary"] == "Accept, Accept-Encoding"


@pytest.mark.parametrize("names", [["inference_requests_total"], ["users_own_total", "inference_errors_total"], ["no"]])
async def test_a_filter_of_names_works_as_in_prometheus_client(registry, names):
    serve(registry, code=500, outcome="error", reason="model_error")
    UserCounter("users_own", "A user's.", registry=registry).inc()

    _, _, body = await scrape(registry, query="&".join(f"name[]={name}" for name in names))

    assert body == generate_latest(registry.restricted_registry(names))


@pytest.mark.parametrize("accept", ["", PROMETHEUS_2])
async def test_a_failing_collector_of_the_users_is_a_500_that_says_so(registry, accept, caplog):
    serve(registry)
    registry.register(Collecting(lambda: 1 // 0))

    status, headers, body = await scrape(registry, accept=accept)

    assert status == 500
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert b"ZeroDivisionError" in body
    assert "a scrape failed" in caplog.text


async def test_numbers_of_other_processes_that_are_not_had_are_a_503_with_the_reason(registry, caplog):
    async def copy_all(sets):
        raise ModelNotReady("the supervisor does not answer")

    status, _, body = await scrape(registry, copy_all=copy_all)

    assert (status, body) == (503, b"the supervisor does not answer\n")
    assert not caplog.records


async def test_collecting_and_rendering_are_not_done_on_the_event_loop(registry, monkeypatch):
    for number in range(50):
        serve(registry, route=f"/{number}")
    collecting = Collecting()
    registry.register(collecting)
    threads = []

    def watched(*arguments, **options):
        threads.append(threading.get_ident())
        return render(*arguments, **options)

    monkeypatch.setattr(exposition, "render", watched)
    await scrape(registry)

    assert len(threads) == len(collecting.threads) == 1
    assert threading.get_ident() not in (threads + collecting.threads)


async def test_a_scrape_does_not_wait_for_the_threads_that_the_application_keeps_busy(registry):
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=1))
    is_done = threading.Event()
    busy = loop.run_in_executor(None, is_done.wait)

    try:
        status, _, _ = await asyncio.wait_for(scrape(registry), timeout=10)
        assert not busy.done()
    finally:
        is_done.set()
        await busy
    assert status == 200


async def test_the_cells_are_copied_on_the_event_loop_before_anything_is_collected(registry):
    serve(registry)
    threads = []
    BatchMetrics(registry).watch("digits", "1", lambda: threads.append(threading.get_ident()) or 0, 10)
    registry.register(Collecting(lambda: serve(registry)))

    _, _, body = await scrape(registry)

    assert threads == [threading.get_ident()]
    assert b'code="200",outcome="ok"} 1\n' in body


async def test_a_filtered_scrape_shows_the_same_copy(registry):
    threads = []
    BatchMetrics(registry).watch("digits", "1", lambda: threads.append(threading.get_ident()) or 0, 10)

    await scrape(registry, query="name[]=inference_batch_queue_depth")
    assert threads == [threading.get_ident()]


async def test_instruments_that_were_unregistered_are_not_exposed(registry):
    REDMetrics(registry)
    for families in family_sets(registry):
        registry.unregister(families)

    _, _, body = await scrape(registry)
    assert body == b""


async def test_another_registry_collected_within_a_scrape_shows_its_own_families(registry):
    inner = CollectorRegistry()
    REDMetrics(inner, namespace="inner")
    registry.register(inner)
    REDMetrics(registry)

    _, _, body = await scrape(registry)
    assert body.count(b"inner_requests_in_flight 0") == 1
    assert body.count(b"inference_requests_in_flight 0") == 1


async def test_a_websocket_is_turned_away(registry):
    sent = []

    async def send(message):
        sent.append(message["type"])

    await metrics_app(registry)({"type": "websocket", "headers": []}, None, send)
    assert sent == ["websocket.close"]


async def test_other_protocols_are_refused(registry):
    with pytest.raises(NotImplementedError, match="lifespan"):
        await metrics_app(registry)({"type": "lifespan"}, None, None)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,*/*;q=0.8", False),
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; Version=1.0.0", True),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=2.0.0,text/plain", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.1,text/plain;q=0.5", False),
        ("application/openmetrics-text;q=nonsense", False),
    ],
)
def test_openmetrics_is_answered_to_who_likes_it_best(accept, expected):
    assert wants_openmetrics(accept) is expected


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        ("", False),
        ("gzip", True),
        ("deflate, GZIP", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0, *", False),
        ("*", True),
        ("*;q=0", False),
        ("identity", False),
        ("br;q=1.0, gzip;q=0.1", True),
        ("gzip;q=nonsense", False),
    ],
)
def test_gzip_is_used_only_where_it_is_accepted(accept_encoding, expected):
    assert takes_gzip(accept_encoding) is expected
