from pathlib import Path

import pytest

from puppet_engine import PuppetEngine
from redserve.engine.lengths import LengthBuckets
from redserve.models import VersionPolicy
from redserve.server.model_config import ModelConfig, plan
from redserve.server.model_settings import ModelSettings
from redserve.server.settings import Settings


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("REDSERVE_CONFIG", raising=False)


@pytest.fixture
def config(tmp_path):
    """Writes a configuration, and reads it, over the server's settings."""

    def read(text: str, **server: object) -> ModelConfig:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return ModelConfig.read(path, Settings.load(server))

    return read


def test_what_a_configuration_does_not_say_the_server_does(config):
    options = config("max_batch_size = 3\n", max_queue_rows=7, slo_ms=50, instances=2).model_options()

    assert options.max_batch_size == 3
    assert options.policy.max_queue_rows == 7
    assert options.policy.slo_s == options.timeout_s == 0.05
    assert options.instances == 2


def test_a_model_may_differ_from_the_server_in_all_that_concerns_it(config):
    settings = config(
        'device = "cpu"\nintra_op_threads = 1\ninstances = 3\nbatching = "off"\nmax_queue_delay_ms = 2\n'
        "request_timeout_ms = 100\nmax_queue_rows = 9\nmax_queue_mib = 1\nmax_run_s = 5\nfinite = false\n"
        "[session_options]\nenable_mem_pattern = false\ninter_op_num_threads = 1\n",
        device="cuda",
        finite=True,
    )
    options = settings.model_options()

    assert (settings.device, settings.intra_op_threads, settings.batching) == ("cpu", 1, "off")
    assert settings.session_options == {"enable_mem_pattern": False, "inter_op_num_threads": 1}
    assert (options.instances, options.max_run_s, options.finite, options.timeout_s) == (3, 5, False, 0.1)
    assert (options.policy.max_queue_delay_s, options.policy.max_queue_rows) == (0.002, 9)
    assert options.policy.max_queue_bytes == 2**20


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", VersionPolicy()),
        ('versions = "latest"', VersionPolicy()),
        ('versions = "all"', VersionPolicy(latest=None)),
        ("versions = {latest = 2}", VersionPolicy(latest=2)),
        ("versions = [1, 30]", VersionPolicy(latest=None, only=frozenset({"1", "30"}))),
    ],
)
def test_a_version_policy_has_four_forms(config, text, policy):
    assert config(text).versions == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch = 3", "max_batch: unknown key; known are batch_buckets, batching, cuda_graphs, "),
        ("port = 3", "port: unknown key"),
        ("[label]\ny = []", "label: unknown key"),
        ("max_batch_size = 0", "max_batch_size: Input should be greater than or equal to 1"),
        ("instances = 0", "instances: Input should be greater than or equal to 1"),
        ('device = "tpu"', "device: Input should be 'auto', 'cuda', 'tensorrt' or 'cpu'"),
        ("versions = 1", 'versions: write "latest", "all", a list of numbers, or {latest = 2}'),
        ("versions = []", "versions: write"),
        ('versions = ["1"]', "versions: write"),
        ("versions = [0]", "versions: write"),
        ("versions = {latest = 0}", "versions: write"),
        ("versions = {latest = true}", "versions: write"),
        ("versions = {newest = 1}", "versions: write"),
        ("[labels]\ny = 3", "labels: "),
        ("gpu_memory_mib = 0", "gpu_memory_mib: Input should be greater than or equal to 1"),
        (
            "gpu_memory_mib = 8\n[provider_options]\ngpu_mem_limit = 1",
            "gpu_memory_mib: the provider option gpu_mem_limit",
        ),
        ("gpu_budget_mib = 8", "gpu_budget_mib: unknown key"),
        ("length_buckets = [8, 8]", "length_buckets: the lengths of buckets ascend from 1 on, got 8, 8"),
        ("length_buckets = []", "length_buckets: the lengths of buckets ascend"),
        ('length_buckets = "8,b"', "length_buckets: write lengths such as 16,32,64"),
        ("length_buckets = [[8]]", "length_buckets: write lengths such as 16,32,64"),
        ("length_buckets = 8", "length_buckets: "),
        ('batch_buckets = "many"', "batch_buckets: write auto, on, off, or sizes such as 1,4,16, not 'many'"),
        ("batch_buckets = [0, 2]", "batch_buckets: a batch has at least one row"),
        ("batch_buckets = []", "batch_buckets: a batch has at least one row"),
        ("max_batch_size = 4\nbatch_buckets = [1, 8]", "batch_buckets: no batch is larger than max_batch_size 4"),
        ("device = 'cpu'\ncuda_graphs = true", "cuda_graphs: there are none on the CPU"),
        (
            "slots = 2\ncuda_graphs = true",
            "cuda_graphs: an engine with graphs does one run at a time: ask for more inst",
        ),
        ("batch_buckets = 'off'\ncuda_graphs = true", "batch_buckets: cuda_graphs needs batches of few sizes"),
        ("max_batch_size = \n", "Invalid value"),
    ],
)
def test_a_wrong_line_is_refused_by_file_and_key(config, tmp_path, text, message):
    with pytest.raises(ValueError, match=r"config\.toml") as refused:
        config(text)

    assert str(refused.value).startswith(f"{tmp_path / 'config.toml'}: {message}")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(ValueError, match=r"config\.toml: 'utf-8'"):
        ModelConfig.read(path, Settings.load())


def test_labels_are_a_list_or_a_file_beside_the_configuration(config, tmp_path):
    (tmp_path / "names.txt").write_text("cat\n dog \n\ncow\n")

    options = config('[labels]\nx = ["a", "b"]\ny = "names.txt"\n').model_options()

    assert options.labels == {"x": ["a", "b"], "y": ["cat", "dog", "cow"]}
    with pytest.raises(FileNotFoundError):
        config('[labels]\ny = "nowhere.txt"\n')


def test_lengths_that_share_a_batch_are_asked_for_by_model_or_for_all(config, monkeypatch):
    assert config("").model_options().lengths is None
    assert config("length_buckets = [8, 16]\nmask_input = 'mask'\nbatching = 'on'\n").model_options().lengths == (
        LengthBuckets(sizes=(8, 16), mask="mask", must=True)
    )
    monkeypatch.setenv("REDSERVE_LENGTH_BUCKETS", "4, 8")
    assert config("").model_options().lengths == LengthBuckets(sizes=(4, 8))
    assert config("length_buckets = [5]").model_options().lengths == LengthBuckets(sizes=(5,))


def test_batch_buckets_are_a_word_or_sizes(config):
    assert config("").model_options().batch_buckets == "auto"
    assert config("batch_buckets = 'off'").model_options().batch_buckets == "off"
    assert config("batch_buckets = [8, 2, 8]").model_options().batch_buckets == (2, 8)
    assert config("batch_buckets = '1,4,16'").model_options().batch_buckets == (1, 4, 16)


def test_a_model_without_a_configuration_is_served_as_the_server_says():
    defaults = ModelSettings.model_validate({"max_batch_size": 5, "instances": 2})

    planned = plan("cat", None, defaults=defaults)

    assert planned.options == defaults.model_options()
    assert planned.versions == VersionPolicy()


def test_instances_share_the_cores_unless_told_otherwise(monkeypatch):
    asked = []

    def load(path, *, intra_op_threads, **options):
        asked.append(intra_op_threads)
        return PuppetEngine()

    monkeypatch.setattr("redserve.engine.onnx_runtime.OnnxRuntimeEngine.load", load)
    monkeypatch.setattr("redserve.server.model_settings.usable_cpus", lambda: 6)
    for instances, threads in ((1, None), (2, None), (4, None), (12, None), (2, 5)):
        settings = ModelSettings.model_validate({"instances": instances, "intra_op_threads": threads})
        settings.load_engine(Path("model.onnx"))

    assert asked == [None, 3, 1, 1, 5]


def test_a_check_may_be_made_on_another_device_than_the_configuration_names(tmp_path):
    (tmp_path / "config.toml").write_text('device = "cuda"\n')
    defaults = ModelSettings.model_validate({})

    planned = plan("cat", tmp_path / "config.toml", defaults=defaults, device="cpu")

    assert planned.load_engine.func.__self__.device == "cpu"  # type: ignore[attr-defined]
