"""The grid with a stand-in for training: every path of the program, in seconds."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import psutil
import pytest

from srpo_verl.base.processes import family_of
from srpo_verl.training.durable import checkpoint_store as store
from tests.clock import HoursPass
from tests.patience import PROCESS
from workflows.reproduce.backends import backend_of
from workflows.reproduce.backends.local import CELL_VARIABLE
from workflows.reproduce.cell_files import Start, cell_lease
from workflows.reproduce.run_cell import _Watch
from workflows.reproduce.run_grid import GridRefused
from workflows.reproduce.spec.cell import select
from workflows.reproduce.states import cost

CELLS, STEPS = 12, 5


@pytest.mark.slow
def test_killed_at_random_moments_nothing_is_lost_and_nothing_repeated(laboratory):
    """SIGKILL to the program, its runs go on as orphans; then again; then to the end."""
    laboratory.write(overrides=["+stand_in.seconds=0.05"])
    moment = random.Random(0)
    finished = set()
    for _ in range(3):
        # In a process of its own, which imports the composing of configs: leave the stand-in's settings unchecked.
        program = "import workflows.reproduce.run_grid as g; g._check_configs = lambda *_: None; import sys; "
        program += "sys.argv = sys.argv[1:]; from workflows.reproduce.command import app; app()"
        command = [sys.executable, "-c", program, *laboratory.command[2:3], *laboratory.command[4:]]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        goal = len(laboratory.steps_done()) + moment.randint(5, 14)
        deadline = time.monotonic() + PROCESS
        while len(laboratory.steps_done()) < goal and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        states = laboratory.states()
        assert finished <= {name for name, state in states.items() if state.state == "done"}
        finished = {name for name, state in states.items() if state.state == "done"}
    assert 0 < len(finished) < CELLS
    before = laboratory.steps_done()

    told = laboratory.run()

    assert {name for what, name in told if what == "started"}.isdisjoint(finished)
    assert all(state.state == "done" and state.last_step == STEPS for state in laboratory.states().values())
    done = laboratory.steps_done()
    assert {name for name, _ in done[len(before) :]}.isdisjoint(finished)
    times = Counter(done)
    assert len(times) == CELLS * STEPS
    # Checkpoints are every two steps: only a step that no checkpoint holds is done again, once per kill.
    assert sum(times.values()) - CELLS * STEPS <= 3 * 2
    for cell in laboratory.cells():
        assert [record.step for record in cell.records()] == list(range(STEPS + 1))
        assert not family_of(CELL_VARIABLE, str(cell.folder))
    assert laboratory.run() == []


def test_two_programs_share_the_grid(laboratory):
    first = laboratory.cells()[0]
    with cell_lease(first) as lease:
        assert lease is not None
        assert laboratory.states()[first.name].state == "running"
        told = laboratory.run(laboratory.cells()[:2])
    assert told[0] == ("skipped", first.name)
    assert ("done", laboratory.cells()[1].name) in told
    assert laboratory.steps_done().count((first.name, "1")) == 0


def test_a_budget_in_hours_ends_a_run_at_a_step_and_cells_run_at_once(laboratory):
    # The stand-in says that each step took 100 s.
    laboratory.write(budget={"hours": [0.05, 0.125]}, overrides=["+stand_in.hold=5"])
    laboratory.run(select(laboratory.cells(), ["a s1"]), jobs=3)
    state = laboratory.states()["a__tiny__grpo__s1"]
    assert state.state == "done"
    assert 450 <= state.training_seconds <= 500
    assert not [child for child in psutil.Process().children() if "bash" in child.name()]


def test_a_changed_spec_is_refused_in_words(laboratory):
    chosen = laboratory.cells()[:1]
    laboratory.run(chosen)
    laboratory.write(overrides=["actor_rollout_ref.actor.optim.lr=1e-4"], budget={"steps": [6]})
    with pytest.raises(GridRefused) as refusal:
        laboratory.run()
    for words in ("optim.lr=1e-4", "'steps': 5", "'steps': 6", "name another `runs` folder", chosen[0].name):
        assert words in str(refusal.value)
    assert laboratory.states()[chosen[0].name].state == "changed"
    laboratory.write()
    (laboratory.folder / "data/a/train.parquet").write_text("other rows")
    with pytest.raises(GridRefused, match="train: the contents of the data file have changed"):
        laboratory.run()


def test_a_failed_cell_says_why_and_is_run_again_only_when_asked(laboratory):
    laboratory.write(overrides=["+stand_in.fault=raises"])
    chosen = laboratory.cells()[:2]
    assert [what for what, _ in laboratory.run(chosen)] == ["started", "failed"] * 2
    state = laboratory.states()[chosen[0].name]
    assert state.state == "failed"
    assert "RuntimeError: CUDA out of memory" in state.reason
    assert laboratory.run(chosen) == []
    (chosen[0].folder / "mended").touch()
    told = laboratory.run(chosen, retry_failed=True)
    assert told == [
        ("started", chosen[0].name),
        ("done", chosen[0].name),
        ("started", chosen[1].name),
        ("failed", chosen[1].name),
    ]
    assert laboratory.states()[chosen[0].name].reason == ""


def test_a_run_that_failed_before_its_first_step_may_change(laboratory):
    laboratory.write(overrides=["+stand_in.seconds=soon"])
    laboratory.run(laboratory.cells()[:1])
    laboratory.write()
    chosen = laboratory.cells()[:1]
    assert laboratory.run(chosen, retry_failed=True)[-1] == ("done", chosen[0].name)
    laboratory.write(overrides=["a=1"])
    with pytest.raises(GridRefused):
        laboratory.run()


def test_killed_between_the_last_checkpoint_and_its_metrics(laboratory):
    """No step is left to train, yet the run is validated and done."""
    laboratory.write(overrides=["+stand_in.fault=dies_before_logging"])
    chosen = laboratory.cells()[:1]
    assert laboratory.run(chosen)[-1] == ("failed", chosen[0].name)
    assert laboratory.run(chosen, retry_failed=True)[-1] == ("done", chosen[0].name)
    assert chosen[0].records()[-1].accuracy() is not None
    assert laboratory.steps_done() == [(chosen[0].name, str(step)) for step in range(1, STEPS + 1)]


def test_a_run_that_ends_before_its_budget_has_failed(laboratory):
    laboratory.write(overrides=["+stand_in.fault=ends_early"])
    laboratory.run(laboratory.cells()[:1])
    (state,) = [state for state in laboratory.states().values() if state.state == "failed"]
    assert "ended by itself after 2 steps, before its budget of 5 steps" in state.reason


def test_checks_stop_a_run_and_are_judged_again_when_they_change(laboratory):
    acceptance = [{"metric": "accuracy", "within": [0.5, 0.6], "benchmarks": ["a"]}]
    laboratory.write(acceptance=acceptance, overrides=["+stand_in.hold=2"])
    chosen = select(laboratory.cells(), ["srpo s1"])
    for cell in chosen:
        cell.folder.mkdir(parents=True)
        if cell.benchmark.name == "b":
            (cell.folder / "go_on").touch()
    laboratory.run(chosen)
    states = laboratory.states()
    assert states["a__tiny__srpo__s1"].state == "rejected"
    assert states["a__tiny__srpo__s1"].reason == "not accepted: accuracy was 0.4 at step 0, expected 0.5 to 0.6"
    assert states["a__tiny__srpo__s1"].last_step < STEPS
    assert states["b__tiny__srpo__s1"].state == "done"
    assert laboratory.run(chosen) == []
    laboratory.write(overrides=["+stand_in.hold=2"])
    assert laboratory.states()["a__tiny__srpo__s1"].state == "stopped"
    for cell in chosen:
        (cell.folder / "go_on").touch()
    laboratory.run(select(laboratory.cells(), ["srpo s1"]))
    assert laboratory.states()["a__tiny__srpo__s1"].state == "done"


def test_a_collapse_stops_a_run(laboratory):
    collapse = [{"metric": "accuracy", "drop": 0.3, "times": 2}]
    laboratory.write(collapse=collapse, overrides=["+stand_in.fault=collapses", "+stand_in.hold=4"])
    laboratory.run(laboratory.cells()[:1])
    state = laboratory.states()[laboratory.cells()[0].name]
    assert state.reason == "collapsed: accuracy fell from 0.5 to 0.1 at step 4, 2 times in a row"


def test_a_run_without_a_sign_of_life_fails(laboratory, monkeypatch):
    laboratory.write(overrides=["+stand_in.hold=0"])
    log = laboratory.cells()[0].folder / "train.log"
    clock = HoursPass(lambda: log.is_file() and "stand-in: on from step 0" in log.read_text())
    monkeypatch.setattr("workflows.reproduce.run_cell.time", clock)
    laboratory.write_site(stall_minutes=50)
    laboratory.run(laboratory.cells()[:1])
    state = laboratory.states()[laboratory.cells()[0].name]
    assert state.state == "failed"
    assert "stand-in: on from step 0" in state.reason


def test_missing_data_is_found_before_anything_starts(laboratory):
    (laboratory.folder / "data/b/test.parquet").unlink()
    with pytest.raises(GridRefused, match=r"b/test\.parquet.*srpo prepare"):
        laboratory.run()
    assert laboratory.steps_done() == []


def test_cost_is_measured_or_unknown(laboratory):
    def now():
        return cost(list(laboratory.states().values()), laboratory.load()[1])

    assert now().unknown == CELLS
    laboratory.run(select(laboratory.cells(), ["grpo a s1"]))
    # 5 steps of 100 s on 2 GPUs, twelve cells.
    assert now().spent == pytest.approx(1000 / 3600)
    assert now().to_come == pytest.approx(11 * 1000 / 3600)
    assert now().unknown == 0


def test_a_start_goes_on_from_a_whole_checkpoint_not_from_what_the_tracker_says(laboratory):
    """The step before training is validated again unless the checkpoint that a start goes on from was logged."""
    cell = laboratory.cells()[0]
    _, site = laboratory.load()
    skipped = "trainer.val_before_train=False"
    start = cell.folder / "srpo_run" / "20260101-000000"
    start.mkdir(parents=True)
    (start / "config.yaml").write_text("{}")
    (start / "metrics.jsonl").write_text(json.dumps({"step": 2, "data": {}}) + "\n")
    # verl's tracker names a save that has no marker, or an interrupted one: the run begins anew.
    (cell.folder / store.TRACKER).write_text("2")
    assert skipped not in cell.command(site)
    store.begin(store.step_folder(cell.folder, 2), 2)
    assert skipped not in cell.command(site)
    store.finish(store.step_folder(cell.folder, 2), step=2, run="run")
    (cell.folder / store.TRACKER).unlink()
    assert skipped in cell.command(site)


def test_of_a_cell_that_begins_anew_no_record_is_no_news(laboratory):
    """Its start takes the lines of the earlier one away before it logs its own."""
    cell = laboratory.cells()[0]
    _, site = laboratory.load()
    metrics = cell.folder / "srpo_run" / "20260101-000000" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    start = Start(job="1", backend="local", started=0.0, log_offset=0)
    watch = _Watch(cell, backend_of(site), start, threading.Event(), lambda *_: None, 0.0)
    metrics.write_text(json.dumps({"step": 1, "data": {"x": 1.0}}) + "\n")
    assert watch._read()
    metrics.write_text("")
    assert not watch._read()
