"""Signs of life of real Ray actors: one that answers, one that is busy, one that is killed."""

import os
import re
import signal
import time
from types import SimpleNamespace

import pytest
import ray

from srpo_verl.training.watch.heartbeats import Heartbeats
from srpo_verl.training.watch.rank_failure import failure_kept
from tests.patience import PROCESS
from tests.ray_node import ray_node

pytestmark = pytest.mark.slow


@pytest.fixture
def actors():
    class Worker:
        def pid(self):
            return os.getpid()

        def work(self, seconds):
            time.sleep(seconds)

        @failure_kept
        def update(self):
            raise ValueError("the divergence is\nnegative")

    with ray_node():
        remote = ray.remote(num_cpus=0)(Worker)
        yield {"idle": remote.remote(), "busy": remote.remote()}


def test_the_dead_and_the_busy_are_told_apart(actors):
    idle, busy = actors["idle"], actors["busy"]
    pids = {name: ray.get(actor.pid.remote()) for name, actor in actors.items()}
    busy.work.remote(1000)
    heartbeats = Heartbeats()
    deadline = time.monotonic() + PROCESS
    # On a busy machine the idle one may be slow too: until it answers, and the other is silent.
    while (said := heartbeats.silent(longer_than=1)) == [] or len(said) > 1:
        assert time.monotonic() < deadline, said
        assert heartbeats.look(actors) == []
        time.sleep(0.2)
    assert said[0].startswith("busy has"), said

    os.kill(pids["idle"], signal.SIGKILL)
    while time.monotonic() < deadline and not (dead := heartbeats.look(actors)):
        time.sleep(0.2)
    assert dead == [
        f"idle (pid {pids['idle']}) is dead: its process was killed (by a signal, or the machine ran out of memory; "
        "`dmesg` tells. On GPUs also by NCCL, when ranks have waited for each other for 10 minutes: the worker's log "
        "then speaks of a collective operation timeout, and the rank that did not come is the one to look at)"
    ]
    assert heartbeats.look(actors) == dead  # told again
    assert idle is not None


def test_a_rank_that_raised_is_named_while_the_others_wait_for_it(actors):
    failed, waiting = actors["idle"], actors["busy"]
    ranks = {"rank 0": waiting, "rank 1": failed}
    pid = ray.get(failed.pid.remote())
    calls = [waiting.work.remote(1000), failed.update.remote()]  # asked for in the order of the ranks, as verl does
    heartbeats = Heartbeats()
    deadline = time.monotonic() + PROCESS
    while time.monotonic() < deadline and not (said := heartbeats.look(ranks)):
        time.sleep(0.05)
    assert said == [f"rank 1 (pid {pid}) has failed: update raised ValueError: the divergence is negative"]
    with pytest.raises(ValueError, match="negative"):
        ray.get(calls[1])


def test_a_server_that_outlives_its_engine_is_named(actors):
    """verl's vLLM server holds an `AsyncLLM` as `engine`, which knows when the engine's process has died."""

    def lose_engine(actor):
        actor.engine.errored = True

    def give_engine(actor):
        actor.engine = SimpleNamespace(errored=False)

    server = {"vLLM server 0": actors["idle"]}
    ray.get(actors["idle"].__ray_call__.remote(give_engine))
    heartbeats = Heartbeats()
    deadline = time.monotonic() + PROCESS
    while not heartbeats._pids and time.monotonic() < deadline:
        assert heartbeats.look(server, engines=server) == []
        time.sleep(0.05)
    ray.get(actors["idle"].__ray_call__.remote(lose_engine))
    while time.monotonic() < deadline and not (dead := heartbeats.look(server, engines=server)):
        time.sleep(0.05)
    pid = ray.get(actors["idle"].pid.remote())
    assert dead == [f"vLLM server 0 (pid {pid}) has lost its engine: the engine's process died"]


def test_a_server_that_does_not_show_its_engine_ends_the_run(actors):
    """As if verl or vLLM had renamed it: its death would never be seen."""
    server = {"vLLM server 0": actors["idle"]}
    heartbeats = Heartbeats()
    deadline = time.monotonic() + PROCESS
    while time.monotonic() < deadline and not (dead := heartbeats.look(server, engines=server)):
        time.sleep(0.05)
    assert dead == ["vLLM server 0 cannot be watched: AttributeError: 'Worker' object has no attribute 'engine'"]


def test_an_actor_killed_by_rays_memory_monitor_is_dead():
    """Its calls raise OutOfMemoryError, which is no ActorDiedError, for ever."""

    class Worker:
        pass

    with ray_node(_system_config={"memory_usage_threshold": 0.01, "memory_monitor_refresh_ms": 200}):
        actors = {"agent loop worker 0": ray.remote(num_cpus=0)(Worker).remote()}
        heartbeats = Heartbeats()
        deadline = time.monotonic() + PROCESS
        while time.monotonic() < deadline and not (dead := heartbeats.look(actors)):
            time.sleep(0.2)
        assert len(dead) == 1
        assert re.fullmatch(
            r"agent loop worker 0( \(pid \d+\))? is dead: Ray killed it because the machine ran out of memory "
            r"\([\d.]+GB used / [\d.]+GB limit\)",
            dead[0],
        )
