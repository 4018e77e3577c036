from workflows.metrics_log import Record
from workflows.training_clock import step_seconds, training_clock, within

RECORDS = [
    Record(0, {"val-core/x/acc/mean@16": 0.4}),
    Record(1, {"timing_s/step": 10.0}),
    Record(2, {"timing_s/step": 15.0, "timing_s/save_checkpoint": 5.0, "timing_s/testing": 100.0}),
    Record(3, {"timing_s/step": 10.0}),
]


def test_validation_and_checkpoints_do_not_count():
    assert training_clock(RECORDS) == {0: 0.0, 1: 10.0, 2: 20.0, 3: 30.0}
    assert step_seconds(RECORDS[0]) is None


def test_what_had_ended_inside_a_budget():
    assert [record.step for record in within(RECORDS, 20)] == [0, 1, 2]
    assert [record.step for record in within(RECORDS, 19.9)] == [0, 1]
