import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as ForeignCounter

from redserve.metrics.labels import OTHER
from redserve.metrics.red import REDMetrics

REQUEST = {
    "route": "/predict",
    "method": "POST",
    "model": "digits",
    "code": 200,
    "outcome": "ok",
    "reason": "",
    "duration_s": 0.004,
}


def serve(red, **changes):
    request = {**REQUEST, **changes}
    red.received(request["method"])
    red.finished(**request)


def total(registry, name):
    return sum(sample.value for metric in registry.collect() for sample in metric.samples if sample.name == name)


def values_of(registry, name, label):
    return {sample.labels[label] for metric in registry.collect() for sample in metric.samples if sample.name == name}


def test_a_request_is_in_flight_from_its_arrival_to_its_end(registry):
    red = REDMetrics(registry)
    red.received("POST")
    assert registry.get_sample_value("inference_requests_in_flight") == 1
    assert total(registry, "inference_requests_total") == 0

    red.finished(**REQUEST)
    assert registry.get_sample_value("inference_requests_in_flight") == 0
    assert total(registry, "inference_requests_total") == 1


def test_an_ok_request_is_counted_and_timed_under_the_labels_of_the_contract(registry):
    serve(REDMetrics(registry))

    assert registry.get_sample_value("inference_requests_received_total", {"method": "POST"}) == 1
    labels = {"route": "/predict", "method": "POST", "model": "digits", "outcome": "ok"}
    assert registry.get_sample_value("inference_requests_total", {**labels, "code": "200"}) == 1
    assert registry.get_sample_value("inference_request_latency_seconds_count", labels) == 1
    assert registry.get_sample_value("inference_request_latency_seconds_sum", labels) == 0.004
    assert registry.get_sample_value("inference_request_latency_seconds_bucket", {**labels, "le": "0.00464"}) == 1
    assert registry.get_sample_value("inference_request_latency_seconds_bucket", {**labels, "le": "0.00398"}) == 0


def test_only_a_request_that_is_not_ok_is_an_error(registry):
    red = REDMetrics(registry)
    serve(red)
    assert total(registry, "inference_errors_total") == 0

    serve(red, code=503, outcome="rejected", reason="queue_full")
    labels = {"route": "/predict", "model": "digits", "reason": "queue_full"}
    assert registry.get_sample_value("inference_errors_total", labels) == 1
    assert total(registry, "inference_errors_total") == 1


def test_refusals_are_timed_apart_from_answers(registry):
    red = REDMetrics(registry)
    serve(red, code=503, outcome="rejected", reason="queue_full", duration_s=0.0001)

    labels = {"route": "/predict", "method": "POST", "model": "digits", "outcome": "ok"}
    assert registry.get_sample_value("inference_request_latency_seconds_count", labels) is None


def test_nothing_is_exposed_for_requests_not_seen_yet(registry):
    REDMetrics(registry)

    names = [sample.name for metric in registry.collect() for sample in metric.samples]
    assert names == ["inference_requests_in_flight"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"])
def test_a_known_method_keeps_its_name(registry, method):
    serve(REDMetrics(registry), method=method)

    assert values_of(registry, "inference_requests_received_total", "method") == {method}
    assert values_of(registry, "inference_requests_total", "method") == {method}


def test_made_up_methods_share_one_series(registry):
    red = REDMetrics(registry)
    for number in range(50):
        serve(red, method=f"MADE{number}")

    assert registry.get_sample_value("inference_requests_received_total", {"method": OTHER}) == 50
    assert values_of(registry, "inference_request_latency_seconds_count", "method") == {OTHER}


def test_the_101st_model_is_other(registry):
    red = REDMetrics(registry)
    for number in range(150):
        serve(red, model=f"model{number}")
    serve(red, model="model7")

    models = values_of(registry, "inference_requests_total", "model")
    assert len(models) == 101
    assert OTHER in models
    labels = {"route": "/predict", "method": "POST", "model": OTHER, "code": "200", "outcome": "ok"}
    assert registry.get_sample_value("inference_requests_total", labels) == 50


def test_the_limit_of_models_is_one_for_all_instruments_of_a_registry(registry):
    for number in range(150):
        serve(REDMetrics(registry), model=f"model{number}")

    assert len(values_of(registry, "inference_requests_total", "model")) == 101


def test_no_label_grows_without_bound(registry, caplog):
    red = REDMetrics(registry)
    for number in range(700):
        serve(red, route=f"/{number}", code=number, outcome="error", reason=f"reason{number}")

    assert len(values_of(registry, "inference_requests_total", "route")) <= 501
    assert len(values_of(registry, "inference_requests_total", "code")) <= 501
    assert len(values_of(registry, "inference_errors_total", "reason")) <= 101
    assert total(registry, "inference_requests_total") == 700
    assert len(caplog.records) == 2


def test_a_model_that_is_gone_leaves_no_series_and_no_gap_in_the_sum(registry):
    red = REDMetrics(registry, first_byte=True)
    for model in ("digits", "cat", ""):
        serve(red, model=model)
        serve(red, model=model, code=500, outcome="error", reason="model_error")
        red.first_byte(route="/predict", method="POST", model=model, outcome="ok", duration_s=0.001)

    red.forget_model("digits")
    red.forget_model("digits")
    red.forget_model("nobody")

    for name in ("requests_total", "errors_total", "request_latency_seconds_count", "first_byte_seconds_count"):
        assert values_of(registry, f"inference_{name}", "model") == {"cat", ""}
    assert registry.get_sample_value("inference_requests_forgotten_total") == 2
    assert total(registry, "inference_requests_received_total") == total(registry, "inference_requests_total") + 2


def test_a_model_that_comes_back_counts_from_zero(registry):
    red = REDMetrics(registry)
    serve(red)
    red.forget_model("digits")

    serve(red)

    assert total(registry, "inference_requests_total") == 1
    assert total(registry, "inference_request_latency_seconds_count") == 1
    assert registry.get_sample_value("inference_requests_forgotten_total") == 1


def test_a_model_that_is_gone_makes_room_for_another(registry):
    red = REDMetrics(registry)
    for number in range(150):
        serve(red, model=f"model-{number}")
        red.forget_model(f"model-{number}")

    serve(red, model="model-150")

    assert values_of(registry, "inference_requests_total", "model") == {"model-150"}


def test_a_status_outside_http_is_other(registry):
    serve(REDMetrics(registry), code=799)

    assert values_of(registry, "inference_requests_total", "code") == {OTHER}


def test_the_memory_of_resolved_series_is_bounded_as_the_labels_are(registry):
    red = REDMetrics(registry)
    for number in range(300):
        serve(red, method=f"MADE{number}", code=1000 + number)

    assert len(red._resolved) == 1


request = st.fixed_dictionaries(
    {
        "route": st.sampled_from(["/a", "/b"]),
        "method": st.sampled_from(["GET", "POST", "MADE"]),
        "model": st.sampled_from(["", "digits"]),
        "code": st.sampled_from([200, 404, 503]),
        "outcome": st.sampled_from(["ok", "client_error", "rejected"]),
        "reason": st.sampled_from(["", "not_found", "queue_full"]),
        "duration_s": st.floats(0, 100),
    }
)


@settings(deadline=None)
@given(events=st.lists(st.one_of(request, st.none()), max_size=40))
def test_received_is_finished_plus_in_flight_in_every_copy(events):
    registry = CollectorRegistry()
    red = REDMetrics(registry)
    in_flight = []
    durations = []
    for event in events:
        if event is not None:
            in_flight.append(event)
            red.received(event["method"])
        elif in_flight:
            ended = in_flight.pop(0)
            red.finished(**ended)
            durations.append(ended["duration_s"])

        finished = total(registry, "inference_requests_total")
        assert registry.get_sample_value("inference_requests_in_flight") == len(in_flight)
        assert total(registry, "inference_requests_received_total") == finished + len(in_flight)
        assert total(registry, "inference_request_latency_seconds_count") == finished
        assert total(registry, "inference_request_latency_seconds_sum") == pytest.approx(sum(durations))


def test_a_stack_that_is_built_twice_writes_the_same_numbers(registry):
    serve(REDMetrics(registry))
    serve(REDMetrics.shared(registry))

    assert total(registry, "inference_requests_total") == 2


def test_two_namespaces_of_one_registry_are_apart(registry):
    serve(REDMetrics(registry, namespace="shop"))
    REDMetrics(registry, namespace="bank")

    assert total(registry, "shop_requests_total") == 1
    assert total(registry, "bank_requests_total") == 0


def test_two_registries_are_apart(registry):
    other = CollectorRegistry()
    serve(REDMetrics(registry))
    REDMetrics(other)

    assert total(other, "inference_requests_total") == 0


@pytest.mark.parametrize("settings", [{"buckets": [0.1, 1]}, {"first_byte": True}])
def test_other_settings_for_the_same_registry_are_refused(registry, settings):
    REDMetrics(registry)

    with pytest.raises(ValueError, match=f"other {next(iter(settings))}"):
        REDMetrics(registry, **settings)


def test_the_same_settings_spelled_otherwise_are_the_same(registry):
    REDMetrics(registry, buckets=[1, 2])
    REDMetrics(registry, buckets=(1.0, 2.0, float("inf")))


def test_metrics_of_somebody_else_with_our_names_are_named_in_the_error(registry):
    ForeignCounter("inference_requests", "Foreign.", registry=registry)

    with pytest.raises(ValueError, match="choose another namespace"):
        REDMetrics(registry)


def test_a_registry_that_was_emptied_gets_its_families_back(registry):
    serve(REDMetrics(registry))
    registry.unregister(REDMetrics(registry)._families)
    assert total(registry, "inference_requests_total") == 0

    serve(REDMetrics(registry))
    assert total(registry, "inference_requests_total") == 2


@pytest.mark.parametrize("namespace", ["", "a-b", "1a", "a b", "a:b"])
def test_a_namespace_must_be_a_metric_prefix(registry, namespace):
    with pytest.raises(ValueError, match="namespace"):
        REDMetrics(registry, namespace=namespace)


def test_a_registry_is_not_kept_alive_by_its_instruments():
    registry = CollectorRegistry()
    red = REDMetrics(registry)
    gone = weakref.ref(registry)
    del registry
    gc.collect()

    assert gone() is None
    serve(red)


def test_the_first_byte_has_its_own_histogram_when_asked_for(registry):
    red = REDMetrics(registry, first_byte=True)
    red.first_byte(route="/stream", method="GET", model="", outcome="ok", duration_s=0.002)

    labels = {"route": "/stream", "method": "GET", "model": "", "outcome": "ok"}
    assert registry.get_sample_value("inference_first_byte_seconds_count", labels) == 1


def test_the_first_byte_cannot_be_recorded_unasked(registry):
    with pytest.raises(RuntimeError, match="first_byte"):
        REDMetrics(registry).first_byte(route="/", method="GET", model="", outcome="ok", duration_s=0.1)
    assert total(registry, "inference_first_byte_seconds_count") == 0


def test_an_exemplar_marks_the_latency_bucket_and_the_error(registry):
    red = REDMetrics(registry)
    serve(red, code=500, outcome="error", reason="model_error", exemplar={"trace_id": "abc"})

    marked = {
        sample.name: sample.exemplar.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.exemplar
    }
    assert marked == {"inference_request_latency_seconds_bucket": 0.004, "inference_errors_total": 1}


def test_a_request_is_counted_although_its_exemplar_is_invalid(registry):
    red = REDMetrics(registry)

    with pytest.raises(ValueError, match="exemplar"):
        serve(red, exemplar={"not a name": "abc"})
    assert total(registry, "inference_requests_total") == 1
    assert registry.get_sample_value("inference_requests_in_flight") == 0
