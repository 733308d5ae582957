import pytest

from redserve.metrics.model import ModelMetrics

DIGITS = {"model": "digits", "version": "1"}
LABELS = {"batching": "dynamic", "max_batch_size": "32"}


def infos(registry):
    return [s.labels for metric in registry.collect() for s in metric.samples if s.name == "inference_model_info"]


def test_a_model_is_described_by_its_labels(registry):
    ModelMetrics(registry).info("digits", "1", "CPUExecutionProvider", **LABELS)

    expected = {**DIGITS, "provider": "CPUExecutionProvider", **LABELS}
    assert registry.get_sample_value("inference_model_info", expected) == 1


def test_a_second_description_takes_the_place_of_the_first(registry):
    models = ModelMetrics(registry, info_labels=())
    models.info("digits", "1", "CUDAExecutionProvider")
    models.info("digits", "1", "CPUExecutionProvider")
    models.info("digits", "2", "CPUExecutionProvider")

    assert infos(registry) == [
        {**DIGITS, "provider": "CPUExecutionProvider"},
        {"model": "digits", "version": "2", "provider": "CPUExecutionProvider"},
    ]


def test_labels_beside_the_fixed_ones_are_refused(registry):
    with pytest.raises(ValueError, match="labels"):
        ModelMetrics(registry).info("digits", "1", "CPUExecutionProvider", flavour="sweet")


def test_readiness_is_one_or_zero(registry):
    models = ModelMetrics(registry)
    models.ready("digits", "1", False)
    assert registry.get_sample_value("inference_model_ready", DIGITS) == 0

    models.ready("digits", "1", True)
    assert registry.get_sample_value("inference_model_ready", DIGITS) == 1


def test_a_removed_model_is_gone(registry):
    models = ModelMetrics(registry)
    models.info("digits", "1", "CPUExecutionProvider", **LABELS)
    models.ready("digits", "1", True)
    ModelMetrics(registry).remove("digits", "1")
    models.remove("digits", "1")

    assert infos(registry) == []
    assert registry.get_sample_value("inference_model_ready", DIGITS) is None


def test_whether_a_model_runs_inline_is_read_at_each_scrape(registry):
    answers = iter([True, False])
    models = ModelMetrics(registry)
    models.inline("digits", "1", lambda: next(answers))
    assert registry.get_sample_value("inference_model_inline", DIGITS) == 1
    assert registry.get_sample_value("inference_model_inline", DIGITS) == 0

    models.inline("digits", "1", lambda: True)
    assert registry.get_sample_value("inference_model_inline", DIGITS) == 1

    models.remove("digits", "1")
    assert registry.get_sample_value("inference_model_inline", DIGITS) is None
