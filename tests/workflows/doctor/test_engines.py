import socket

import pytest
from omegaconf import OmegaConf

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


def test_a_cluster_that_a_run_would_join_unasked(tmp_path):
    word = tmp_path / "ray_current_cluster"
    assert engines.running_cluster(tmp_path) is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        word.write_text(address)
        assert engines.running_cluster(tmp_path) == address
    assert engines.running_cluster(tmp_path) is None
    word.write_text("garbage")
    assert engines.running_cluster(tmp_path) is None


@pytest.mark.parametrize(("nnodes", "status"), [(1, Status.FAIL), (2, Status.WARN)])
def test_gpus_that_are_not_here(monkeypatch, nnodes, status):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = OmegaConf.create({"trainer": {"device": "cuda", "nnodes": nnodes, "n_gpus_per_node": 8}})
    (check,) = engines.check_devices(config)
    assert check.status is status
    assert "platform=cpu" in check.mend


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
    monkeypatch.setattr(engines, "_driver", lambda: "570.1")


@pytest.mark.parametrize(
    ("device", "per_node", "status"), [("cuda", 8, Status.OK), ("cuda", 16, Status.FAIL), ("cpu", 1, Status.FAIL)]
)
def test_gpus_against_the_config(eight_gpus, device, per_node, status):
    config = OmegaConf.create({"trainer": {"device": device, "nnodes": 1, "n_gpus_per_node": per_node}})
    (check,) = engines.check_devices(config)
    assert check.status is status
    assert "8 x NVIDIA H20, 96 GiB each, driver 570.1" in check.found


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
