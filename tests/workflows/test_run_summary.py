"""What the summary of a run says of its steps, its stages and its folder."""

import io
from pathlib import Path

from rich.console import Console

from srpo_verl.training.durable import checkpoint_store
from workflows.metrics_log import Record
from workflows.run_summary import places, show, summarise
from workflows.train.folder import TrainFiles
from workflows.verl_run import TRAINING, VALIDATING, RunOutcome


def summary(*seconds, testing=0.0, stages=()):
    records = [Record(n, {"timing_s/step": s, "timing_s/testing": testing}) for n, s in enumerate(seconds, 1)]
    return summarise(RunOutcome(records, dict(stages)), config_name="srpo_tiny", seed=1)


def shown(found):
    console = Console(record=True, width=120, file=io.StringIO())
    show(found, TrainFiles(Path("/nowhere")), console)
    return console.export_text()


def test_the_seconds_per_step_say_that_the_first_is_left_out():
    assert "2.0 (median without the first)" in shown(summary(40.0, 2.0, 2.0))
    assert "40.0 (of the only one)" in shown(summary(40.0))


def test_checkpoints_are_named_only_where_there_are_some(tmp_path):
    files = TrainFiles(tmp_path)
    assert "checkpoints" not in places(files)
    checkpoint_store.begin(tmp_path / "global_step_2", 2)
    assert "checkpoints" not in places(files)
    checkpoint_store.finish(tmp_path / "global_step_2", step=2, run="run")
    assert places(files)["checkpoints"] == tmp_path


def test_the_stages_of_a_resumed_run_are_those_of_its_last_start():
    earlier = [Record(n, {"timing_s/step": 5.0, "timing_s/testing": 20.0}) for n in (1, 2)]
    last = [Record(3, {"timing_s/step": 5.0, "timing_s/testing": 3.0})]
    outcome = RunOutcome(last, {TRAINING: 9.0})
    found = summarise(outcome, config_name="srpo_tiny", seed=1, records=[*earlier, *last])
    assert found.stage_seconds == {TRAINING: 6.0, VALIDATING: 3.0}
    assert found.steps == 3


def test_a_validation_is_again_only_after_a_first_one():
    first = summary(5.0, testing=3.0, stages={VALIDATING: 4.0, TRAINING: 9.0}).stage_seconds
    assert first == {VALIDATING: 4.0, TRAINING: 6.0, "validating again": 3.0}
    assert summary(5.0, testing=3.0, stages={TRAINING: 9.0}).stage_seconds == {TRAINING: 6.0, VALIDATING: 3.0}
