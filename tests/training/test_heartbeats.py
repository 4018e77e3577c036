"""Signs of life of real Ray actors: one that answers, one that is busy, one that is killed."""

import os
import signal
import time

import pytest
import ray

from srpo_verl.training.heartbeats import Heartbeats

pytestmark = pytest.mark.slow


@pytest.fixture
def actors():
    class Worker:
        def pid(self):
            return os.getpid()

        def work(self, seconds):
            time.sleep(seconds)

    environment = {"env_vars": {"PYTHONPATH": os.getcwd()}}
    ray.init(address="local", num_cpus=2, include_dashboard=False, runtime_env=environment, log_to_driver=False)
    remote = ray.remote(num_cpus=0)(Worker)
    yield {"idle": remote.remote(), "busy": remote.remote()}
    ray.shutdown()


def test_the_dead_and_the_busy_are_told_apart(actors):
    idle, busy = actors["idle"], actors["busy"]
    pids = {name: ray.get(actor.pid.remote()) for name, actor in actors.items()}
    busy.work.remote(1000)
    heartbeats = Heartbeats()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and heartbeats.silent(longer_than=1)[:1] == []:
        assert heartbeats.look(actors) == []
        time.sleep(0.2)
    assert [line.split(" has")[0] for line in heartbeats.silent(longer_than=1)] == ["busy"]

    os.kill(pids["idle"], signal.SIGKILL)
    while time.monotonic() < deadline and not (dead := heartbeats.look(actors)):
        time.sleep(0.2)
    assert dead == [
        f"idle (pid {pids['idle']}) is dead: its process was killed (by a signal, or the machine ran out of memory; "
        "`dmesg` tells)"
    ]
    assert heartbeats.look(actors) == dead  # told again
    assert idle is not None
