"""Graders of other people's packages: installed by pip, found by entry point, killed at their deadline."""

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import reward_fns
from reward_fns import compute_score, registry
from reward_fns.workers import Died, Failed, TimedOut, WorkerPool
from reward_fns.workers import pool as pool_module
from tests.patience import PROCESS

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_reward"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example package installed into a directory of its own."""
    target, build = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("build")
    subprocess.run(["cp", "-r", f"{EXAMPLE}/.", str(build)], check=True)  # pip builds in the source tree
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--target", str(target), str(build)], capture_output=True, text=True, check=False)
    if done.returncode and "setuptools" in done.stderr and "No module named" in done.stderr:
        pytest.skip("pip or setuptools is not installed in this environment")
    assert done.returncode == 0, done.stderr
    return target


def grade_in_a_new_process(installed, *calls, cwd="/"):
    code = (
        "import json, sys, reward_fns\n"
        "print(json.dumps([reward_fns.compute_score(*c['args'], **c.get('kwargs', {})) for c in json.load(sys.stdin)]))"
    )
    root = str(Path(reward_fns.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), root])}
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(calls), text=True, capture_output=True, env=environment, cwd=cwd,
        timeout=PROCESS, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_an_installed_package_is_found_in_any_process(installed):
    right, wrong, near, other = grade_in_a_new_process(
        installed,
        {"args": ["word_count", "one two three", "3"]},
        {"args": ["word_count", "one two", "3"]},
        {"args": ["word_count", "one two", "3"], "kwargs": {"tolerance": 1}},
        {"args": ["gsm8k", "#### 3", "3"]},
    )
    assert (right["score"], right["word_distance"], right["feedback"]) == (1.0, 0.0, "")
    assert (wrong["score"], wrong["word_distance"]) == (0.0, 1.0)
    assert "3 were asked for" in wrong["feedback"]
    assert near["score"] == 1.0
    assert list(other) == list(right)  # verl needs the same keys for every sample


def test_its_deadline_holds(installed):
    fast, slow = grade_in_a_new_process(
        installed, {"args": ["slow_word_count", "a b", "2"]}, {"args": ["slow_word_count", "slow b", "2"]}
    )
    assert (fast["score"], fast["timed_out"], fast["infra_error"]) == (1.0, 0.0, 0.0)
    assert (slow["score"], slow["timed_out"], slow["infra_error"]) == (0.0, 1.0, 0.0)


SLOW_MODULE = """
import time
from reward_fns import register

END = time.process_time() + 1.0
while time.process_time() < END:
    pass


@register("slow_import", deadline=0.5)
def grade(solution, ground_truth, extra_info):
    return {"score": ground_truth[0], "acc": extra_info["count"]}


@register("always_late", deadline=0.1)
def late(solution, ground_truth, extra_info):
    while True:
        pass
"""


@pytest.fixture
def slow_module(tmp_path, monkeypatch):
    (tmp_path / "slow_reward_module.py").write_text(SLOW_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("slow_reward_module")
    yield
    registry.unregister("slow_import", "always_late")
    sys.modules.pop("slow_reward_module")
    pool = pool_module._pools.pop((os.getpid(), "slow_reward_module"), None)
    if pool is not None:
        pool.close()


def test_the_import_of_its_module_does_not_count_towards_the_deadline(slow_module):
    result = compute_score("slow_import", "a", [1.0], {"count": 1})
    assert (result["score"], result["infra_error"], result["timed_out"]) == (1.0, 0.0, 0.0)


def test_a_deadline_that_plain_completions_miss_too_is_no_verdict(slow_module):
    result = compute_score("always_late", "a", "a")
    assert (result["score"], result["infra_error"], result["timed_out"]) == (0.0, 1.0, 1.0)
    assert "0.1 s of CPU time" in result["error"]


def test_columns_of_numpy_reach_a_grader_with_a_deadline(slow_module):
    numpy = pytest.importorskip("numpy")
    result = compute_score("slow_import", "a", numpy.array([0.5]), {"count": numpy.int64(1)})
    assert (result["score"], result["acc"], result["error"]) == (0.5, 1.0, "")


def test_without_the_package_the_source_is_unknown():
    with pytest.raises(reward_fns.UnknownDataSource, match="word_count"):
        compute_score("word_count", "one", "1")


def test_a_broken_package_is_named_and_does_not_stop_the_others(monkeypatch, caplog):
    class Broken:
        name, value = "broken", "no_such_module"

        def load(self):
            raise ImportError("no_such_module")

    monkeypatch.setattr(registry, "entry_points", lambda group: [Broken()])
    monkeypatch.setattr(registry, "_broken", {})
    registry.load_entry_points(force=True)
    assert "no_such_module" in caplog.text
    assert compute_score("gsm8k", "#### 3", "3")["score"] == 1.0
    with pytest.raises(reward_fns.UnknownDataSource, match=r"failed to load.*no_such_module"):
        registry.find("surely_unknown")


def test_a_deadline_needs_an_importable_function():
    with pytest.raises(ValueError, match="top level"):
        reward_fns.register("deadline_test", deadline=1)(lambda *_: 1)


@pytest.fixture
def pool():
    pool = WorkerPool(size=2)
    yield pool
    pool.close()


@pytest.mark.parametrize(
    ("target", "args", "error"),
    [
        ("time:sleep", [100], TimedOut),
        ("operator:pow", [99999, 9999999], TimedOut),
        ("os:_exit", [0], Died),
        ("os:abort", [], Died),
        ("operator:add", [1, "x"], Failed),
        ("no.such.module:f", [], Failed),
        ("operator:nothing", [], Failed),
    ],
)
def test_a_worker_that_fails_is_replaced(pool, target, args, error):
    with pytest.raises(error):
        pool.call(target, args, deadline=0.3)
    assert pool.call("operator:add", [1, 2], deadline=5) == 3


def test_workers_from_many_threads_with_some_stuck(pool):
    answers = []

    def work(number):
        if number % 10 == 0:
            with pytest.raises(TimedOut):
                pool.call("operator:pow", [99999, 9999999], deadline=0.2)
            answers.append(number)
        else:
            answers.append(pool.call("operator:add", [number, 0], deadline=5))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == list(range(40))


def test_a_killed_fork_server_is_replaced(pool):
    assert pool.call("operator:add", [1, 2], deadline=5) == 3
    pool._server.kill()
    pool._server.wait()
    with pytest.raises((Died, TimedOut)):
        pool.call("os:_exit", [0], deadline=1)
    assert pool.call("operator:add", [1, 2], deadline=5) == 3


def test_workers_end_with_their_owner():
    code = (
        "from reward_fns.workers import WorkerPool; import os\n"
        "p = WorkerPool(size=1); print(p.call('os:getpid', [], deadline=5), p._server.pid, flush=True); os._exit(1)"
    )
    root = str(Path(reward_fns.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        check=False,
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    end = time.monotonic() + PROCESS
    while any(_alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False
