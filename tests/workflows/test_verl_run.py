"""A run is watched to its end, its failures are explained, and nothing of it is left running."""

import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from srpo_verl.cpu.environment import ROLLOUT_ENVIRONMENT
from tests.clock import HoursPass
from tests.patience import PROCESS
from workflows.verl_run import (
    LOADING,
    RAY,
    STARTING,
    STOPPING,
    TRAINING,
    VALIDATING,
    RunFailed,
    RunFiles,
    hydra_value,
    run_environment,
    verl_command,
    watch,
)

FAKE = Path(__file__).with_name("fake_trainer.py")


class Listener:
    def __init__(self):
        self.stages, self.steps = [], []

    def stage(self, name):
        self.stages.append(name)

    def record(self, record):
        self.steps.append(record.step)


def run(folder, ending, *options, timeout=PROCESS, observer=None, **env):
    files = RunFiles(folder)
    return watch(
        [sys.executable, str(FAKE), ending, "3", *options],
        files=files,
        env={**run_environment(files, cpu=True), **env},
        observer=observer or Listener(),
        timeout=timeout,
        poll=0.05,
    )


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_run_that_ends_well(tmp_path):
    listener, begun = Listener(), time.monotonic()
    outcome = run(tmp_path, "well", observer=listener)
    assert 0 < outcome.total_seconds <= time.monotonic() - begun
    assert listener.steps == [0, 1, 2, 3]
    assert listener.stages[0] == STARTING
    assert listener.stages[-3:] == [TRAINING, STOPPING, ""]
    order = [STARTING, RAY, LOADING, VALIDATING, TRAINING, STOPPING, ""]
    assert listener.stages == [name for name in order if name in listener.stages]
    assert list(outcome.stage_seconds) == listener.stages[:-1]
    assert outcome.peak_memory_bytes > 0


def test_a_run_that_does_not_validate_first_has_no_such_stage(tmp_path):
    listener = Listener()
    outcome = run(tmp_path, "well", "-", observer=listener)
    assert listener.steps == [1, 2, 3]
    assert listener.stages[-3:] == [TRAINING, STOPPING, ""]
    assert VALIDATING not in [*listener.stages, *outcome.stage_seconds]


@pytest.mark.parametrize("options", [[], ["-"]])
def test_a_failure_in_the_first_step_is_one_while_training(tmp_path, options):
    with pytest.raises(RunFailed, match="The run failed while training: exit code 1"):
        run(tmp_path, "raises_in_step_1", *options)


def test_the_exception_is_named(tmp_path):
    with pytest.raises(RunFailed) as failure:
        run(tmp_path, "raises")
    text = str(failure.value)
    assert "KeyError: 'reward_model'" in text
    assert "fake_trainer.py" in text
    assert str(tmp_path / "train.log") in text
    assert len(text.splitlines()) < 6


def test_a_refused_configuration_is_one_sentence(tmp_path):
    with pytest.raises(RunFailed, match=r"exit code 2\.\nsrpo\.threshold=2\.0: set it within \[0, 1\]\n"):
        run(tmp_path, "refused")


def test_a_signal_is_named(tmp_path):
    with pytest.raises(RunFailed, match="SIGKILL"):
        run(tmp_path, "killed")


def test_a_hang_ends_at_the_timeout_and_says_where(tmp_path, monkeypatch):
    log, listener = RunFiles(tmp_path).log, Listener()
    clock = HoursPass(lambda: TRAINING in listener.stages and "waiting for a socket" in log.read_text())
    monkeypatch.setattr("workflows.verl_run.time", clock)
    with pytest.raises(RunFailed, match=r"while training: not finished after 3000 s(.|\n)*waiting for a socket"):
        run(tmp_path, "hangs", timeout=3000, observer=listener)


def test_processes_that_left_the_group_are_ended_too(tmp_path):
    pid_file = tmp_path / "pid"
    run(tmp_path, "leaves_children", STRAY_PID=str(pid_file))
    assert gone(int(pid_file.read_text()))


def test_ctrl_c_leaves_nothing_running(tmp_path):
    class Interrupting(Listener):
        def record(self, record):
            super().record(record)
            if record.step == 3:
                raise KeyboardInterrupt

    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "hangs", observer=Interrupting())
    assert {child.pid for child in psutil.Process().children()} <= before
    assert threading.active_count() >= 1


def test_the_environment_of_the_child(tmp_path):
    base = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "RAY_ADDRESS": "x:1", "OMP_NUM_THREADS": "4"}
    env = run_environment(RunFiles(tmp_path), cpu=True, base=base)
    assert "PYTHONDONTWRITEBYTECODE" not in env
    assert env["RAY_ADDRESS"] == "local"
    assert env["OMP_NUM_THREADS"] == "4"
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert env["VERL_FILE_LOGGER_PATH"] == str(tmp_path / "metrics.jsonl")
    assert "VLLM_CPU_KVCACHE_SPACE" not in run_environment(RunFiles(tmp_path), cpu=False, base=base)
    assert "HF_HUB_OFFLINE" not in env
    # What verl gives the processes of the rollout engine is among it.
    assert ROLLOUT_ENVIRONMENT.items() - {("OMP_NUM_THREADS", "1")} <= env.items()


@pytest.mark.parametrize(
    "value", ["/a/b-c_d.e", "/with space/x", "a=b,c", "it's", "back\\slash", "ünïcode", 3, 0.5, "[x]"]
)
def test_values_survive_hydra(value):
    override = OverridesParser.create().parse_override(f"key={hydra_value(value)}")
    assert override.value() == value or str(override.value()) == str(value)


def test_the_command():
    command = verl_command("srpo_tiny", {"data.seed": 1}, ["trainer.test_freq=5"])
    assert command[1:] == [
        "-m",
        "verl.trainer.main_ppo",
        "--config-name",
        "srpo_tiny",
        "data.seed=1",
        "trainer.test_freq=5",
    ]
    own = verl_command("mine/run.yaml", {})
    assert own[3:] == ["--config-dir", str(Path.cwd() / "mine"), "--config-name", "run"]
