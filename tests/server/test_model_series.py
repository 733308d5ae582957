import asyncio

from puppet_engine import PuppetEngine
from redserve.metrics import BatchMetrics, REDMetrics
from redserve.models import ModelRepository, ServedModel
from redserve.server.model_set import ModelSeries
from redserve.server.statistics import Statistics

VERSION_1 = {"model": "cat", "version": "1"}


def series_of(registry, *, forget_after_s):
    batches = BatchMetrics(registry)
    statistics = Statistics(batches)
    red = REDMetrics(registry)
    red.received("POST")
    red.finished("/predict", "POST", "cat", 200, "ok", "", 0.001)
    series = ModelSeries(registry, red=red, batches=batches, statistics=statistics, forget_after_s=forget_after_s)
    return statistics, series


async def served(statistics, series, *, version="1"):
    """A model that has run once, and was drained."""
    model = ServedModel("cat", PuppetEngine, version=version, observer=statistics)
    repository = ModelRepository([model], on_change=series.changed)
    await repository.load()
    ran = asyncio.Event()
    model.probe(lambda answer: ran.set())
    await ran.wait()
    await repository.drain()


async def turns():
    """Whatever is due is done."""
    for _ in range(2):
        await asyncio.sleep(0)


def models_in(registry):
    """The models that any series is of."""
    samples = (sample for family in registry.collect() for sample in family.samples)
    return {sample.labels["model"] for sample in samples if "model" in sample.labels}


def value(registry, name, **labels):
    return registry.get_sample_value(f"inference_{name}", {**VERSION_1, **labels})


async def test_a_model_that_is_unloaded_has_no_gauges_and_for_a_while_its_counts(registry):
    statistics, series = series_of(registry, forget_after_s=1000)
    await served(statistics, series)
    assert value(registry, "model_ready") == 0

    series.unloaded("cat", "1")

    assert value(registry, "model_ready") is None
    assert value(registry, "batch_queue_depth") is None
    assert value(registry, "batch_size_count") == 1


async def test_after_a_while_the_counts_go_as_well(registry):
    statistics, series = series_of(registry, forget_after_s=0)
    await served(statistics, series)
    old = statistics.of("cat", "1")

    series.unloaded("cat", "1")
    await turns()

    left = [sample for family in registry.collect() for sample in family.samples if "version" in sample.labels]
    assert left == []
    assert statistics.of("cat", "1") is not old


async def test_the_counts_of_requests_go_with_the_last_version_of_their_model(registry):
    statistics, series = series_of(registry, forget_after_s=0)
    await served(statistics, series)
    await served(statistics, series, version="2")
    series.unloaded("cat", "1")
    await turns()
    assert models_in(registry) == {"cat"}

    series.unloaded("cat", "2")
    await turns()

    assert models_in(registry) == set()
    assert registry.get_sample_value("inference_requests_forgotten_total") == 1


async def test_a_version_that_comes_back_meanwhile_keeps_its_counts(registry):
    statistics, series = series_of(registry, forget_after_s=0)
    await served(statistics, series)
    series.unloaded("cat", "1")

    await served(statistics, series)

    assert value(registry, "batch_size_count") == 2
