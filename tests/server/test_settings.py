import pytest

from redserve.server.settings import Settings


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("REDSERVE_CONFIG", raising=False)


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_file(tmp_path, monkeypatch):
    file = tmp_path / "redserve.toml"
    file.write_text('host = "10.0.0.1"\nport = 1\nmax_queue_rows = 7\n')
    monkeypatch.setenv("REDSERVE_PORT", "2")
    monkeypatch.setenv("REDSERVE_MAX_QUEUE_ROWS", "8")

    settings = Settings.load({"config": file, "max_queue_rows": "9"})

    assert (settings.host, settings.port, settings.max_queue_rows) == ("10.0.0.1", 2, 9)


def test_the_environment_may_name_the_file(tmp_path, monkeypatch):
    file = tmp_path / "redserve.toml"
    file.write_text("port = 77\n[provider_options]\ndevice_id = '1'\n")
    monkeypatch.setenv("REDSERVE_CONFIG", str(file))

    settings = Settings.load()

    assert settings.port == 77
    assert settings.provider_options == {"device_id": "1"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"port": "http"}, "port: .*integer"),
        ({"port": "70000"}, "port: .*65535"),
        ({"max_batch_size": "0"}, "max_batch_size"),
        ({"max_batch_size": "many"}, "max_batch_size"),
        ({"max_queue_delay_ms": "-1"}, "max_queue_delay_ms: .*greater than or equal to 0"),
        ({"device": "tpu"}, "device: .*'auto', 'cuda', 'tensorrt' or 'cpu'"),
        ({"name": "a/b"}, "name: .*match"),
        ({"workers": "0"}, "workers: .*greater than or equal to 1"),
        ({"workers": "2", "repository": "m", "repository_mode": "poll"}, "workers: .*need one process"),
        ({"workers": "2", "gpu_budget_mib": "100"}, "workers: .*needs one process"),
        ({"prot": "1"}, "prot: unknown; known are .*, port, "),
        ({"config": "/nowhere.toml"}, "no configuration file '/nowhere.toml'"),
    ],
)
def test_a_wrong_value_is_refused_by_name(flags, message):
    with pytest.raises(ValueError, match=message):
        Settings.load(flags)


def test_a_wrong_value_of_the_environment_is_refused_by_the_name_of_its_variable(monkeypatch):
    monkeypatch.setenv("REDSERVE_PORT", "tcp://10.0.0.1:80")  # what Kubernetes sets beside a service named redserve
    with pytest.raises(ValueError, match=r"REDSERVE_PORT: .*valid integer"):
        Settings.load()


def test_an_unknown_or_malformed_line_of_the_file_is_refused(tmp_path):
    file = tmp_path / "redserve.toml"
    file.write_text("max_batch = 3\n")
    with pytest.raises(ValueError, match=r"max_batch: unknown; known are .*, max_batch_size, "):
        Settings.load({"config": file})
    file.write_text("max_batch = \n")
    with pytest.raises(ValueError, match=r"redserve\.toml"):
        Settings.load({"config": file})


def test_milliseconds_become_seconds_and_mebibytes_bytes():
    options = Settings.load({"max_queue_delay_ms": "5", "max_queue_mib": "2", "max_batch_size": "16"}).model_options()

    assert options.policy.max_queue_delay_s == 0.005
    assert options.policy.max_queue_bytes == 2 * 2**20
    assert options.max_batch_size == 16


def test_auto_leaves_the_batch_size_to_the_measurement():
    assert Settings.load({"max_batch_size": "auto"}).model_options().max_batch_size is None
    assert Settings.load().model_options().max_batch_size is None
