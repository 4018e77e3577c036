"""Both ends of the weight transfer name the same socket, and two runs of one machine different ones."""

from types import SimpleNamespace

import pytest

from srpo_verl.training.rollout.vllm_worker import WorkerExtension
from srpo_verl.training.rollout.weight_socket import RUN_ID, name_socket, name_this_run, of_this_run
from tests.compose import compose

# What verl's ServerAdapter composes for the first job of any Ray cluster.
SENDER = "ipc:///tmp/rl-colocate-zmq-01000000-replica-0-rank-0.sock"


def receiver() -> str:
    extension = WorkerExtension.__new__(WorkerExtension)
    extension.model_runner = SimpleNamespace(vllm_config=None)
    extension.local_rank = 0
    return extension._get_zmq_handle()


@pytest.fixture(autouse=True)
def ray_job(monkeypatch):
    monkeypatch.setenv("VERL_RAY_JOB_ID", "01000000")
    monkeypatch.setenv("VERL_REPLICA_RANK", "0")
    monkeypatch.delenv(RUN_ID, raising=False)


def test_two_runs_with_a_ray_of_their_own_do_not_meet(monkeypatch):
    sockets = []
    for _ in range(2):
        name_this_run()
        sockets.append(of_this_run(SENDER))
        assert receiver() == sockets[-1]
    assert len(set(sockets)) == 2
    # A path of a Unix socket has at most 107 bytes.
    assert all(len(socket.removeprefix("ipc://")) < 107 for socket in sockets)
    monkeypatch.delenv(RUN_ID)


def test_without_a_name_it_is_verls():
    assert of_this_run(SENDER) == SENDER == receiver()


@pytest.fixture
def named(monkeypatch):
    monkeypatch.setenv(RUN_ID, "run")


def test_a_socket_of_another_form_is_an_error_where_the_run_has_a_name(named):
    with pytest.raises(ValueError, match=r"verl's socket for weights is ipc:///tmp/verl-01.sock, not ipc:///tmp/rl-"):
        of_this_run("ipc:///tmp/verl-01.sock")


def test_another_form_is_left_alone_where_it_has_none():
    assert of_this_run("ipc:///tmp/verl-01.sock") == "ipc:///tmp/verl-01.sock"


def test_the_sending_end_is_named_or_missed(named):
    adapter = SimpleNamespace(zmq_handle=SENDER)
    name_socket(adapter, "vllm")
    assert adapter.zmq_handle == receiver() != SENDER
    with pytest.raises(AttributeError, match="zmq_handle"):
        name_socket(SimpleNamespace(handle=SENDER), "vllm")
    name_socket(SimpleNamespace(), "sglang")  # has none
    name_socket(None, "vllm")  # a worker without rollouts


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_every_config_takes_the_extension(platform):
    vllm = compose("srpo", [f"platform={platform}"]).actor_rollout_ref.rollout.engine_kwargs.vllm
    module, _, name = vllm.worker_extension_cls.rpartition(".")
    if platform == "cpu":
        assert (module, name) == ("srpo_verl.cpu.vllm_worker", "CPUWorkerExtension")
    else:
        assert (module, name) == (WorkerExtension.__module__, WorkerExtension.__name__)
