"""The watchdog without a run: what it ends, when, and with which words."""

import threading
import time

import pytest

from srpo_verl.config import WatchdogConfig
from srpo_verl.training.watch.watchdog import CLEANING_UP, NOTICED, Watchdog, within
from tests.clock import Clock
from tests.patience import PROCESS


def watchdog(dead=(), details=(), grace=0.0, **limits):
    reports = []
    dog = Watchdog(
        WatchdogConfig(**{"interval": 0.02, **limits}),
        dead=lambda: list(dead),
        details=lambda: list(details),
        end=reports.append,
        where=lambda: "step 3",
        grace=grace,
    )
    return dog, reports


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("srpo_verl.training.watch.watchdog.time", clock)
    return clock


def wait_for(reports):
    deadline = time.monotonic() + PROCESS
    while not reports and time.monotonic() < deadline:
        time.sleep(0.01)
    return reports[0]


def a_wait_with_a_name(reports):
    wait_for(reports)


def test_a_stage_over_its_limit_ends_the_run_with_stage_step_seconds_and_place():
    dog, reports = watchdog(details=["reward worker 0 (pid 7) has not answered for 9 s"], update_weights=0.1)
    dog.start()
    with dog.stage("update_weights"):
        a_wait_with_a_name(reports)
    first, second, place = reports[0]
    assert first.startswith("update_weights (step 3) has taken ")
    assert first.endswith("more than srpo.watchdog.update_weights=0.1")
    assert second == "reward worker 0 (pid 7) has not answered for 9 s"
    assert "a_wait_with_a_name" in place
    assert "test_watchdog.py" in place


def test_an_outer_stage_has_its_limit_too(clock):
    dog, _ = watchdog(testing=100)
    with dog.stage("testing"), dog.stage("gen"):
        clock.sleep(100)
        assert dog.reason_to_end() is None
        clock.sleep(1)
        assert dog.reason_to_end() == ["testing (step 3) has taken 101 s, more than srpo.watchdog.testing=100"]


def test_no_limit_is_no_reason(clock):
    dog, _ = watchdog(gen=0)
    with dog.stage("gen"):
        clock.sleep(1e6)
        assert dog.reason_to_end() is None


def test_time_between_stages_is_nobodys(clock):
    dog, _ = watchdog(gen=50)
    for _ in range(4):
        with dog.stage("gen"):
            clock.sleep(20)
            assert dog.reason_to_end() is None
        clock.sleep(100)
        assert dog.reason_to_end() is None


def test_a_dead_worker_leaves_the_driver_its_grace_first(clock):
    dog, _ = watchdog(dead=["vLLM server 0 is dead: killed"], grace=10)
    with dog.stage("gen"):
        clock.sleep(30)
        assert dog.reason_to_end() is None
        clock.sleep(9)
        assert dog.reason_to_end() is None
        clock.sleep(1)
        assert dog.reason_to_end() == ["gen (step 3) waits since 40 s, but vLLM server 0 is dead: killed"]


def test_after_a_failure_a_death_that_ray_notices_late_is_found(clock):
    seen = clock.now + NOTICED / 2
    dog, _ = watchdog()
    dog._dead = lambda: ["actor worker, rank 1 (pid 7) is dead: killed"] if clock.now >= seen else []
    assert dog.deaths() == ["actor worker, rank 1 (pid 7) is dead: killed"]


def test_a_failure_without_a_death_is_not_held_up_for_long(clock):
    dog, _ = watchdog()
    before = clock.now
    assert dog.deaths() == []
    assert NOTICED <= clock.now - before < NOTICED + 1


def test_the_innermost_stage_is_what_failed():
    dog, _ = watchdog()
    with pytest.raises(KeyError), dog.stage("testing"):  # noqa: PT012
        with dog.stage("gen"):
            pass
        with dog.stage("update_actor", "compute"):
            raise KeyError
    assert dog.failed_in == "update_actor"


def test_cleaning_up_after_a_failure_has_a_limit(clock):
    dog, _ = watchdog()
    dog.closing()
    clock.sleep(CLEANING_UP)
    assert dog.reason_to_end() is None
    clock.sleep(1)
    assert dog.reason_to_end() == [f"cleaning up (step 3) has taken {CLEANING_UP + 1:.0f} s, more than {CLEANING_UP:g}"]


def test_a_question_that_hangs_or_fails_does_not_hang_the_watchdog(capfd, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    assert within(0.05, lambda: time.sleep(10)) is None
    assert within(PROCESS, lambda: 1 / 0) is None
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert within(PROCESS, lambda: 3) == 3


def test_switched_off_there_is_no_thread():
    before = threading.active_count()
    dog, _ = watchdog(interval=0.0)
    dog.start()
    assert threading.active_count() == before


def test_stopped_it_reports_nothing():
    dog, reports = watchdog(gen=0.05)
    dog.start()
    dog.stop()
    with dog.stage("gen"):
        time.sleep(0.2)
    assert reports == []
