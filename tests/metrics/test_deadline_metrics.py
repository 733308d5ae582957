from redserve.metrics import DeadlineMetrics


def test_a_model_is_shown_before_it_is_late(registry):
    DeadlineMetrics(registry).expect("digits")

    assert registry.get_sample_value("inference_deadline_missed_total", {"model": "digits"}) == 0


def test_late_answers_are_counted_by_model(registry):
    DeadlineMetrics(registry).missed("digits")
    DeadlineMetrics(registry).missed("digits")
    DeadlineMetrics(registry).missed("cats")

    assert registry.get_sample_value("inference_deadline_missed_total", {"model": "digits"}) == 2
    assert registry.get_sample_value("inference_deadline_missed_total", {"model": "cats"}) == 1
