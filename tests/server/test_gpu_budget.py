"""What models may take of a GPU together, down to the options of their sessions. The CPU plays the GPU."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry

from engine.onnx_models import adding
from redserve.engine import binding, onnx_runtime
from redserve.engine.device_buffers import DeviceBuffers
from redserve.errors import ModelLoadError
from redserve.metrics import BatchMetrics, REDMetrics
from redserve.models import ModelState
from redserve.server import gpu_budget
from redserve.server.gpu_budget import Claim, GpuBudget, even_part_mib
from redserve.server.model_set import ModelSeries, open_repository
from redserve.server.settings import Settings
from redserve.server.statistics import Statistics

MIB = 2**20
LIMIT_S = 20.0


class OnCuda:
    """A session that says that it is on the GPU."""

    def __init__(self, session):
        self._session = session

    def __getattr__(self, name):
        return getattr(self._session, name)

    def get_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch):
    monkeypatch.setattr(gpu_budget, "SWAP_WAIT_S", 0.0)


@pytest.fixture
def limits(monkeypatch):
    """The `gpu_mem_limit` in MiB of each session that is opened, by the folder of its version."""
    opened, open_session = [], onnx_runtime.open_session

    def on_cuda(load_runtime, path, *, device, cuda, **options):
        session = open_session(load_runtime, path, device="cpu", cuda=cuda, **options)
        limit = cuda.get("gpu_mem_limit")
        name = path.stem if path.stem != "model" else f"{path.parents[1].name} {path.parent.name}"
        opened.append((name, None if limit is None else int(limit) / MIB))
        return (
            session
            if device == "cpu"
            else onnx_runtime.OpenedSession(OnCuda(session.session), session.ort, "", session.threads)
        )

    def in_memory_of_the_cpu(*arguments, device, **options):
        return DeviceBuffers(*arguments, device=("cpu", 0), **options)

    monkeypatch.setattr(onnx_runtime, "open_session", on_cuda)
    monkeypatch.setattr(binding, "DeviceBuffers", in_memory_of_the_cpu)
    monkeypatch.setattr(onnx_runtime, "find_cudart", lambda device_id: None)
    return opened


@pytest.fixture
def repository(tmp_path):
    """Makes one of folders of models with these configurations, or of plain files."""
    folder = tmp_path / "models"
    folder.mkdir()

    def make(configs, **settings):
        for name, config in configs.items():
            put(folder, name, 1, config)
        return opened(folder, **settings)

    return make


def put(folder, name, version, config=None):
    (folder / name / str(version)).mkdir(parents=True)
    adding(folder / name / str(version) / "model.onnx", version)
    if config:
        (folder / name / "config.toml").write_text(config)


def opened(folder, **settings):
    registry = CollectorRegistry()
    batches = BatchMetrics(registry)
    statistics = Statistics(batches)
    series = ModelSeries(registry, red=REDMetrics(registry), batches=batches, statistics=statistics)
    chosen = Settings.load({"repository": folder, "max_batch_size": 1} | settings)
    return open_repository(chosen, None, statistics=statistics, series=series)


@pytest.mark.parametrize(
    ("limit", "asked", "swaps", "part"),
    [
        (400, [None], False, 400),
        (400, [None, None, None, None], False, 100),
        (400, [100, None, None], False, 150),
        (400, [100, 300], False, 0),
        (400, [None, None, None], True, 100),
        (400, [200], True, 0),
        (400, [100, None, None], True, 100),
        (400, [150, None], True, 100),
    ],
)
def test_what_nobody_asks_for_is_divided_evenly(limit, asked, swaps, part):
    assert even_part_mib(limit, asked, swaps=swaps) == part
    room_to_swap = max([part, *filter(None, asked)]) if swaps else 0
    assert sum(part if each is None else each for each in asked) + room_to_swap <= limit


@pytest.mark.parametrize(("asked", "swaps"), [([401], False), ([400, None], False), ([201], True), ([200, None], True)])
def test_a_budget_that_is_too_small_is_refused(asked, swaps):
    with pytest.raises(ValueError, match="gpu_budget_mib: 400 MiB are too few: models ask for "):
        even_part_mib(400, asked, swaps=swaps)


def test_what_is_given_back_can_be_taken_again_and_once_only():
    budget = GpuBudget(300, [Claim(0), Claim(0), Claim(1)])
    first, second = budget.take(Claim(0)), budget.take(Claim(0))

    assert (first.mib, second.mib) == (150, 150)
    with pytest.raises(ModelLoadError, match="gpu_budget_mib: 0 of the 300 MiB of GPU 0 are left, and this takes 150"):
        budget.take(Claim(0))
    assert budget.take(Claim(1)).mib == 300, "a GPU each"
    first.give_back()
    first.give_back()
    assert budget.take(Claim(0, 100)).mib == 100
    with pytest.raises(ModelLoadError, match="50 of the 300 MiB"):
        budget.take(Claim(0))


def test_a_new_version_waits_for_one_that_is_on_its_way_out(monkeypatch):
    monkeypatch.setattr(gpu_budget, "SWAP_WAIT_S", LIMIT_S)
    is_waiting = threading.Event()

    class Watched(threading.Condition):
        def wait(self, timeout=None):
            is_waiting.set()
            return super().wait(timeout)

    budget = GpuBudget(300, [Claim(0), Claim(0)], swaps=True)
    budget._changed = Watched()
    old, _, _ = (budget.take(Claim(0)) for _ in range(3))
    with ThreadPoolExecutor(1) as threads:
        new = threads.submit(budget.take, Claim(0))
        assert is_waiting.wait(LIMIT_S)
        old.give_back()

        assert new.result(LIMIT_S).mib == 100


async def test_each_session_gets_its_part_of_the_budget(repository, limits):
    models = await asyncio.to_thread(
        repository,
        {"a": None, "b": "gpu_memory_mib = 100", "c": "instances = 2", "d": 'device = "cpu"'},
        gpu_budget_mib=400,
    )

    await models.load()

    assert models.not_ready() == {}
    assert sorted(limits, key=str) == [("a 1", 150), ("b 1", 100), ("c 1", 75), ("c 1", 75), ("d 1", None)]
    await models.drain()


async def test_each_version_that_is_served_has_a_part(repository, limits, tmp_path):
    await asyncio.to_thread(put, tmp_path / "models", "a", 2)
    models = await asyncio.to_thread(repository, {"a": 'versions = "all"', "b": None}, gpu_budget_mib=300)

    await models.load()

    assert sorted(limits) == [("a 1", 100), ("a 2", 100), ("b 1", 100)]
    await models.drain()


async def test_without_a_budget_only_what_a_model_says_is_limited(repository, limits):
    models = await asyncio.to_thread(repository, {"a": None, "b": "gpu_memory_mib = 100\ninstances = 2"})

    await models.load()

    assert sorted(limits, key=str) == [("a 1", None), ("b 1", 50), ("b 1", 50)]
    await models.drain()


async def test_a_new_version_has_room_beside_the_old_one_whose_part_comes_back(repository, limits, tmp_path):
    folder = tmp_path / "models"
    models = await asyncio.to_thread(
        repository, {"a": None, "b": None}, gpu_budget_mib=300, repository_mode="explicit", load_models="a,b"
    )
    await models.load()

    for version in range(2, 6):
        await asyncio.to_thread(put, folder, "a", version)
        await models.load("a")
        await freed(models)

    assert models.not_ready() == {}
    assert {limit for _, limit in limits} == {100}
    assert [name for name, _ in limits] == ["a 1", "b 1", "a 2", "a 3", "a 4", "a 5"]
    await models.drain()


async def test_a_model_for_which_nothing_is_left_is_not_loaded_and_says_so(repository, limits, tmp_path):
    models = await asyncio.to_thread(
        repository, {"a": None}, gpu_budget_mib=300, repository_mode="explicit", load_models="a"
    )
    await models.load()
    for name in ("b", "c"):
        await asyncio.to_thread(put, tmp_path / "models", name, 1)
    await models.load("b")

    with pytest.raises(ModelLoadError, match="failed to load 'c': version 1: gpu_budget_mib: 0 of the 300 MiB"):
        await models.load("c")
    await models.unload("b")
    await freed(models)
    await models.load("c")

    assert models.get("c").state is ModelState.READY
    await models.drain()


async def test_what_cannot_be_loaded_takes_nothing(repository, limits, tmp_path):
    models = await asyncio.to_thread(repository, {"a": None}, gpu_budget_mib=200, repository_mode="explicit")
    await asyncio.to_thread(put, tmp_path / "models", "broken", 1)
    broken = tmp_path / "models" / "broken" / "1" / "model.onnx"
    await asyncio.to_thread(broken.write_bytes, b"no model")
    for _ in range(3):
        with pytest.raises(ModelLoadError, match="Protobuf"):
            await models.load("broken")

    await models.load("a")

    assert limits[-1] == ("a 1", 100)
    await models.drain()


def test_a_budget_that_the_configurations_exceed_is_told_at_start(repository):
    with pytest.raises(ValueError, match="gpu_budget_mib: 100 MiB are too few: models ask for 150; 1 more"):
        repository({"a": "gpu_memory_mib = 150", "b": None}, gpu_budget_mib=100)


async def test_a_limit_of_ones_own_beside_a_budget_is_refused(repository, limits):
    models = await asyncio.to_thread(
        repository, {"a": "[provider_options]\ngpu_mem_limit = 1000\n"}, gpu_budget_mib=100
    )

    await models.load()

    assert models.not_ready() == {
        "a": "gpu_budget_mib: gpu_mem_limit is set as well; gpu_memory_mib claims a part of it"
    }


async def freed(models):
    """Whatever is on its way out is gone."""
    async with asyncio.timeout(LIMIT_S):
        while ModelState.STOPPED in [row.state for row in await models.index()]:
            pass
