"""Runs seen from outside: `srpo attach`, `stop` and `status` of runs of this machine and of another."""

from __future__ import annotations

import os
import threading

import pytest
from rich.console import Console
from typer.testing import CliRunner

from srpo_verl.base.files import write_atomically
from srpo_verl.base.lease import in_use, take
from tests.base.lease_contender import elsewhere
from tests.workflows.fake_trainer import log_metrics
from workflows.cli import app
from workflows.live.attach import attach
from workflows.live.run_state import NoRunError, find, run_state
from workflows.live.stop import stop
from workflows.run_reader import METRICS


def srpo(*words):
    return CliRunner().invoke(app, list(map(str, words)), terminal_width=200, env={"COLUMNS": "200"})


@pytest.fixture
def running(tmp_path):
    """A run that this process has, at step 2."""
    folder = tmp_path / "runs" / "mine"
    lease = take(folder)
    lease.note(step=2, doing="gen")
    lease.beat()
    start = folder / "srpo_run" / "99991231-000000"
    start.mkdir(parents=True)
    (start / "config.yaml").write_text("data: {}\ntrainer: {total_training_steps: 7}\n")
    with (start / METRICS).open("w") as file:
        log_metrics(file, 1)
        log_metrics(file, 2)
    return folder, lease


def attached(folder, shown, meanwhile):
    """What `attach` returns, while the other thread does `meanwhile`; it writes into `shown`."""
    other = threading.Thread(target=meanwhile, daemon=True)
    other.start()
    with shown.open("w", buffering=1) as file:
        last = attach(folder, Console(file=file, width=200), poll=0.01)
    other.join()
    return last


def wait_for(words, shown):
    while words not in (shown.read_text() if shown.exists() else ""):
        pass


def test_attach_shows_the_steps_until_the_run_ends(running, tmp_path):
    folder, lease = running
    shown = tmp_path / "shown.txt"

    def go_on():
        wait_for("step 2/7", shown)
        with (folder / "srpo_run" / "99991231-000000" / METRICS).open("a") as file:
            log_metrics(file, 3)
        lease.release("ended")

    last = attached(folder, shown, go_on)
    assert last.how == "ended"
    text = shown.read_text()
    assert f"run {lease.token}" in text
    assert "step 3/7: " in text
    result = srpo("attach", folder)
    assert result.exit_code == 1
    assert "is not being trained: ended, at step 2" in result.output


def test_attach_learns_the_number_of_steps_when_the_trainer_says_it(tmp_path):
    folder = tmp_path / "run"
    lease = take(folder, what="starting")
    shown = tmp_path / "shown.txt"

    def go_on():
        wait_for("starting", shown)
        start = folder / "srpo_run" / "20000101-000000"
        start.mkdir(parents=True)
        write_atomically(start / "config.yaml", "data: {}\ntrainer: {total_training_steps: 7}\n")  # as the trainer does
        with (start / METRICS).open("w") as file:
            log_metrics(file, 1)
        wait_for("step 1", shown)
        lease.release("ended")

    attached(folder, shown, go_on)
    assert "step 1/7: " in shown.read_text()


def test_attach_finds_the_start_of_a_machine_with_another_clock(tmp_path):
    folder = tmp_path / "run"
    for name in ("20000101-000000", "20000102-000000"):  # by its clock; the lease is of today
        start = folder / "srpo_run" / name
        start.mkdir(parents=True)
        with (start / METRICS).open("w") as file:
            log_metrics(file, 1 if name.startswith("20000101") else 2)
    lease = take(folder)
    shown = tmp_path / "shown.txt"

    def end():
        wait_for("step 2", shown)
        lease.release("ended")

    attached(folder, shown, end)
    assert "step 1" not in shown.read_text()


def test_stop_asks_this_run_and_waits_for_its_end(running):
    folder, lease = running

    def heed():
        while (request := lease.stop_request()) is None:
            pass
        assert (request.within, request.why.startswith("srpo stop on ")) == (30, True)
        lease.release("stopped: as asked after step 2")

    other = threading.Thread(target=heed)
    other.start()
    said = []
    assert stop(folder, within=30, tell=said.append, poll=0.01).how == "stopped: as asked after step 2"
    other.join()
    assert "at step 2, in gen, is asked to save and end" in said[0]
    with pytest.raises(NoRunError, match="is not being trained: stopped"):
        stop(folder)


def test_status_of_runs_that_live_are_dead_and_were_stopped(running, tmp_path, monkeypatch):
    _, lease = running
    (tmp_path / "runs" / "old" / "srpo_run").mkdir(parents=True)
    far = take(tmp_path / "runs" / "far", here=elsewhere(7, "node9"))
    take(tmp_path / "runs" / "demo" / "checkpoints").release("stopped: asked")
    monkeypatch.chdir(tmp_path)
    lines = {line.split()[0]: line for line in srpo("status").output.splitlines()[1:]}
    assert f"run {lease.token}" in lines["runs/mine"]
    assert "gen" in lines["runs/mine"]
    assert "runs" in lines["runs/far"].split()[1]
    assert f"host node9, pid 7, run {far.token}" in lines["runs/far"]
    assert "ended" in lines["runs/old"]
    assert "stopped: asked" in lines["runs/demo"]
    assert find([tmp_path]) == sorted(tmp_path / "runs" / name for name in ("mine", "old", "far", "demo"))
    assert srpo("status", tmp_path / "nothing").exit_code == 1


def test_a_run_of_a_machine_whose_clock_is_slow_is_not_silent(tmp_path, monkeypatch):
    """Its own word for the time does not count, but when the files changed."""
    monkeypatch.setattr("srpo_verl.base.lease.time.time", lambda: 1000.0)
    take(tmp_path / "far", here=elsewhere())
    monkeypatch.undo()
    assert run_state(tmp_path / "far").how == "runs"
    assert in_use(tmp_path / "far")


def test_a_silent_one_of_another_machine(tmp_path):
    take(tmp_path / "far", here=elsewhere())
    os.utime(tmp_path / "far/srpo_lease/00000001.heartbeat", (0, 0))
    assert not in_use(tmp_path / "far")
    assert run_state(tmp_path / "far").how == "silent"
    with pytest.raises(NoRunError, match="holds no run"):
        run_state(tmp_path)
    assert srpo("stop", tmp_path).exit_code == 1


def test_status_goes_on_past_a_run_that_cannot_be_read(running, tmp_path, monkeypatch):
    _, lease = running
    (tmp_path / "runs" / "a_colleagues" / "srpo_run").mkdir(parents=True)

    def state(folder):
        if folder.name == "a_colleagues":
            raise PermissionError(13, "Permission denied", str(folder))
        return run_state(folder)

    monkeypatch.setattr("workflows.live.status.run_state", state)
    shown = srpo("status", tmp_path / "runs")
    assert shown.exit_code == 0
    assert lease.token in shown.output
    assert "Permission denied" in shown.stderr


def test_what_is_no_training_is_not_asked(tmp_path):
    take(tmp_path, what="evaluating")
    with pytest.raises(NoRunError, match="evaluating is no training; end it with kill"):
        stop(tmp_path)
