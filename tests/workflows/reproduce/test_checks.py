from workflows.metrics_log import Record
from workflows.reproduce.spec.checks import Check, Collapse


def run(*values, metric="m"):
    return [Record(step, {metric: value}) for step, value in enumerate(values)]


def test_acceptance_is_judged_when_its_steps_are_there():
    check = Check(metric="m", steps=(1, 3), within=(0.3, 0.5))
    assert check.fails(run(9, 0.9, 0.9)) is None
    assert check.fails(run(9, 0.9, 0.9, 0.9)) == "m was 0.9 at steps 1-3, expected 0.3 to 0.5"
    assert check.fails(run(9, 0.9, 0.3, 0.3)) is None
    assert check.fails(run(9, 0.9, 0.9, 0.9, metric="other")) is None


def test_accuracy_is_the_held_out_one():
    records = [Record(0, {"val-core/x/acc/mean@16": 0.41}), Record(1, {"timing_s/step": 1.0})]
    assert Check(metric="accuracy", within=(0.40, 0.42)).fails(records) is None
    assert Check(metric="accuracy", within=(0.5, 0.6)).fails(records) is not None


def test_collapse_counts_measurements_in_a_row():
    collapse = Collapse(metric="m", drop=0.3, times=2)
    assert collapse.fails(run(0.5, 0.1, 0.5, 0.1)) is None
    assert collapse.fails(run(0.5, 0.1, 0.1)) == "m fell from 0.5 to 0.1 at step 2, 2 times in a row"
    assert Collapse(metric="m", below=0.2).fails(run(0.5, 0.1)) == "m was 0.1, below 0.2 at step 1"
    assert Collapse(metric="m", above=2).fails(run(0.5, 3.0)) == "m was 3, above 2 at step 1"
