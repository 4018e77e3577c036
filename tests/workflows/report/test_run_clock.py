"""The clock of the paper's budgets counts training steps only, and goes on after a resume."""

import pytest

from tests.workflows.report.run_folders import config, line, write_start
from workflows.metrics_log import Record
from workflows.report.run_clock import parse_budgets, run_clock, say_seconds
from workflows.run_reader import read_run


def test_checkpoints_and_validation_are_not_counted(tmp_path):
    write_start(
        tmp_path,
        config("srpo", seed=0, steps=3),
        [
            line(0, **{"val-core/x/acc/mean@16": 0.4}),
            line(1, timing_s__step=10.0),
            line(2, timing_s__step=50.0, timing_s__save_checkpoint=38.0, timing_s__testing=500.0),
            line(3, timing_s__step=14.0),
        ],
    )
    clock = run_clock(read_run(tmp_path).records)
    assert clock.elapsed == {0: 0.0, 1: 10.0, 2: 22.0, 3: 36.0}
    assert (clock.total, clock.estimated) == (36.0, 0)
    assert clock.seconds_per_step(22.0) == 11.0
    assert clock.seconds_per_step(36.0) == 12.0
    assert clock.seconds_per_step(9.0) is None


def test_a_resumed_run_goes_on_and_counts_what_it_did_again_once(tmp_path):
    settings = config("srpo", seed=0, steps=4)
    first = [line(step, timing_s__step=10.0) for step in (1, 2, 3)]
    # verl validates the checkpoint of step 2 before it goes on with step 3.
    second = [line(2, **{"val-core/x/acc/mean@16": 0.5}), *(line(step, timing_s__step=7.0) for step in (3, 4))]
    write_start(tmp_path, settings, first, time="20260101-000000")
    write_start(tmp_path, settings, second, time="20260101-010000")
    run = read_run(tmp_path)
    assert run_clock(run.records).elapsed == {1: 10.0, 2: 20.0, 3: 27.0, 4: 34.0}
    assert run.records[1].held_out() == {"x": 0.5}


def test_steps_without_a_time_count_as_the_median_and_are_counted():
    clock = run_clock([Record(step, {"timing_s/step": seconds}) for step, seconds in ((3, 8.0), (4, 10.0), (6, 12.0))])
    assert clock.elapsed == {3: 28.0, 4: 38.0, 6: 60.0}
    assert clock.estimated == 3
    assert run_clock([Record(1, {"x": 1.0})]).elapsed == {}


def test_budgets_as_people_write_them():
    assert parse_budgets("10h,1h, 90s,2m,1.5h") == (90.0, 120.0, 3600.0, 5400.0, 36000.0)
    assert [say_seconds(s) for s in (45.0, 90.0, 3600.0, 36000.0)] == ["45 s", "1.5 min", "1 h", "10 h"]
    for text in ("", "1", "h", "1w", "-1h", "0s", "1h;5h"):
        with pytest.raises(ValueError, match="is not a time"):
            parse_budgets(text)
