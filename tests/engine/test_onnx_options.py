import os

import pytest

from redserve.engine.onnx_options import cuda_options, session_settings, usable_cpus
from redserve.errors import ModelLoadError


def test_by_default_everything_is_optimised_and_nothing_spins():
    settings = session_settings({})
    assert settings.optimization_level == "ORT_ENABLE_ALL"
    assert settings.execution_mode == "ORT_SEQUENTIAL"
    assert settings.config == {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
    assert settings.attributes["log_severity_level"] == 4


def test_what_is_given_overrules_the_defaults():
    settings = session_settings(
        {
            "graph_optimization_level": "basic",
            "execution_mode": "parallel",
            "inter_op_num_threads": 2,
            "enable_cpu_mem_arena": False,
            "session.intra_op.allow_spinning": True,
        }
    )
    assert settings.optimization_level == "ORT_ENABLE_BASIC"
    assert settings.execution_mode == "ORT_PARALLEL"
    assert settings.attributes["inter_op_num_threads"] == 2
    assert settings.attributes["enable_cpu_mem_arena"] is False
    assert settings.config["session.intra_op.allow_spinning"] == "1"


def test_an_unknown_session_option_is_named_with_the_allowed_ones():
    with pytest.raises(ModelLoadError, match=r"session_options: unknown key 'sesion\.spin'; allowed are ") as caught:
        session_settings({"sesion.spin": "1"})
    assert "graph_optimization_level" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"graph_optimization_level": "most"}, "must be one of disable, basic, extended, layout, all, got 'most'"),
        ({"execution_mode": 3}, "must be one of sequential, parallel, got 3"),
        ({"enable_mem_pattern": 1}, "must be true or false, got 1"),
        ({"inter_op_num_threads": True}, "must be a number >= 0, got True"),
        ({"log_severity_level": -1}, "must be a number >= 0, got -1"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_key(given, said):
    with pytest.raises(ModelLoadError) as caught:
        session_settings(given)
    assert str(caught.value) == f"session_options: {next(iter(given))} {said}"


def test_cuda_does_not_search_anew_for_each_batch_size():
    assert cuda_options({}, device_id=1) == {
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "do_copy_in_default_stream": "1",
        "device_id": "1",
    }


def test_runs_are_captured_only_where_asked():
    assert "enable_cuda_graph" not in cuda_options({}, device_id=0)
    assert cuda_options({}, device_id=0, graphs=True)["enable_cuda_graph"] == "1"


def test_cuda_options_are_passed_as_text():
    options = cuda_options({"use_tf32": False, "gpu_mem_limit": 2_000_000_000}, device_id=0)
    assert (options["use_tf32"], options["gpu_mem_limit"]) == ("0", "2000000000")


def test_an_unknown_provider_option_is_named_with_the_allowed_ones():
    with pytest.raises(ModelLoadError, match="provider_options: unknown key 'device_id'; allowed are arena_extend"):
        cuda_options({"device_id": 1}, device_id=0)


@pytest.mark.parametrize(("limit", "cores"), [("50000 100000", 1), ("100000 100000", 1)])
def test_a_container_s_quota_counts_as_cores(limit, cores, tmp_path):
    quota = tmp_path / "cpu.max"
    quota.write_text(limit)
    assert usable_cpus(quota) == cores


def test_a_container_without_a_limit_uses_its_affinity(tmp_path):
    quota = tmp_path / "cpu.max"
    quota.write_text("max 100000")
    assert usable_cpus(quota) == len(os.sched_getaffinity(0))


def test_without_a_quota_the_affinity_counts(tmp_path):
    assert usable_cpus(tmp_path / "none") == len(os.sched_getaffinity(0))
