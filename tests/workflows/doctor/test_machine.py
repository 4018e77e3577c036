import mmap
import socket
from collections import namedtuple

import pytest
from omegaconf import OmegaConf

from workflows.doctor import machine
from workflows.doctor.check import Status

GIB = 2**30
Memory = namedtuple("Memory", "total available")
Disk = namedtuple("Disk", "total used free")


@pytest.fixture
def memory(monkeypatch):
    def set_to(total, available, limit=None):
        monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: Memory(total * GIB, available * GIB))
        monkeypatch.setattr(machine, "cgroup_limit", lambda file: limit and limit * GIB)

    return set_to


@pytest.mark.parametrize(
    ("total", "available", "limit", "status"),
    [(64, 60, None, Status.OK), (64, 8, None, Status.WARN), (8, 8, None, Status.FAIL), (64, 60, 8, Status.FAIL)],
)
def test_memory_against_what_the_run_needs(memory, total, available, limit, status):
    memory(total, available, limit)
    (check,) = machine.check_memory(10 * GIB)
    assert check.status is status
    assert "the run needs about 10.0" in check.found
    (unmeasured,) = machine.check_memory(10 * GIB, measured=False)
    assert unmeasured.status is (Status.WARN if status is Status.FAIL else status)


def test_the_limit_of_a_container(tmp_path):
    file = tmp_path / "memory.max"
    assert machine.cgroup_limit(file) is None
    file.write_text("max\n")
    assert machine.cgroup_limit(file) is None
    file.write_text(f"{3 * GIB}\n")
    assert machine.cgroup_limit(file) == 3 * GIB


def test_shared_memory_too_small(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: Disk(GIB, GIB // 2, GIB // 2))
    (check,) = machine.check_shared_memory(GIB, tmp_path)
    assert check.status is Status.FAIL
    assert "--shm-size" in check.mend
    (check,) = machine.check_shared_memory(GIB // 4, tmp_path)
    assert check.status is Status.OK


def test_dockers_default_is_too_little_for_gpus(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 64 << 20, "total": 64 << 20})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage)
    (check,) = machine.check_shared_memory(0, tmp_path, gpus=True)
    assert check.status is Status.FAIL
    assert check.mend == "docker run --shm-size=16g"
    (check,) = machine.check_shared_memory(0, tmp_path)
    assert check.status is Status.OK


def test_files_of_ended_runs_are_named(tmp_path):
    stale, used, foreign = (tmp_path / name for name in ("verl_weights_a", "verl_weights_b", "of_somebody_else"))
    for path in (stale, used, foreign):
        path.write_bytes(b"x" * 4096)
    with used.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        assert machine.leftovers(tmp_path) == [(stale, 4096)]
        (check,) = machine.check_shared_memory(0, tmp_path)
    assert check.status is Status.WARN
    assert f"rm {stale}" in check.mend


def test_no_shared_memory_at_all(tmp_path):
    (check,) = machine.check_shared_memory(0, tmp_path / "none")
    assert check.status is Status.FAIL


def _output(folder, **trainer):
    return OmegaConf.create(
        {"trainer": {"default_local_dir": str(folder), "save_freq": 1, "max_actor_ckpt_to_keep": 2, **trainer}}
    )


@pytest.mark.parametrize(
    ("free", "trainer", "status"),
    [
        (31, {}, Status.OK),
        (29, {}, Status.WARN),
        (9, {}, Status.FAIL),
        (9, {"save_freq": -1}, Status.OK),
        (31, {"max_actor_ckpt_to_keep": None}, Status.WARN),
    ],
)
def test_disk_against_the_checkpoints_that_are_kept(tmp_path, monkeypatch, free, trainer, status):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: Disk(0, 0, free * GIB))
    (check,) = machine.check_output(_output(tmp_path / "not" / "yet", **trainer), 10 * GIB)
    assert check.status is status
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "run", "/proc/run"):
        (check,) = machine.check_output(_output(place), None)
        assert (check.status, "cannot be written" in check.found) == (Status.FAIL, True)


def test_a_port_can_be_opened_here():
    (check,) = machine.check_ports()
    assert check.status is Status.OK


def test_an_address_of_another_machine(monkeypatch):
    monkeypatch.setattr(machine, "node_address", lambda: "192.0.2.77")
    (check,) = machine.check_ports()
    assert check.status is Status.FAIL
    assert "/etc/hosts" in check.mend


def test_little_room_for_ray(tmp_path):
    (check,) = machine.check_tmp(tmp_path, least=1 << 60)
    assert check.status is Status.WARN
    (check,) = machine.check_tmp(tmp_path, least=1)
    assert check.status is Status.OK


def test_the_sandbox_of_this_machine():
    (check,) = machine.check_sandbox()
    assert check.status in (Status.OK, Status.WARN)


def test_sandbox_settings_that_are_wrong_or_unreachable():
    (check,) = machine.check_sandbox({"backend": "fusion"})
    assert check.status is Status.FAIL
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (check,) = machine.check_sandbox({"backend": "fusion", "url": f"http://127.0.0.1:{port}/run_code"})
        assert check.status is Status.OK
    (check,) = machine.check_sandbox({"backend": "fusion", "url": f"http://127.0.0.1:{port}/run_code"})
    assert check.status is Status.FAIL


def test_a_process_that_ended_meanwhile_is_skipped(tmp_path):
    readable, ended = tmp_path / "1", tmp_path / "2"
    for folder in (readable, ended):
        folder.mkdir()
    (ended / "maps").mkdir()  # reading it is an OSError
    (readable / "maps").write_text("7f00-7f01 rw-s 0 00:1b 12    /dev/shm/verl_weights_x\n7f02-7f03 r-xp 0 0 0\n")
    assert machine.mapped_files("/dev/shm", tmp_path) == {"/dev/shm/verl_weights_x"}
