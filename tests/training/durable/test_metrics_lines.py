"""The metrics of the starts before this one end with the step of the checkpoint, every step once."""

import json

import pytest

from srpo_verl.training.durable.metrics_lines import METRICS, SUPERSEDED, settle


@pytest.fixture
def starts(tmp_path):
    """`starts({name: steps})` writes a start's metrics; what is in the files is `read()`."""

    def write(lines, end=""):
        for name, steps in lines.items():
            place = tmp_path / "srpo_run" / name
            place.mkdir(parents=True)
            text = "".join(json.dumps({"step": step, "data": {"training/global_step": step}}) + "\n" for step in steps)
            (place / METRICS).write_text(text + end)

    return write


def read(root, name, file=METRICS):
    lines = (root / "srpo_run" / name / file).read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_steps_after_the_checkpoint_are_taken_out_and_kept_beside(starts, tmp_path):
    starts({"1": [1, 2, 3], "2": [3, 4, 5]}, end='{"step": 6, "da')
    assert settle(tmp_path, 3) == [4, 5]
    assert (read(tmp_path, "1"), read(tmp_path, "2")) == ([1, 2, 3], [3])
    superseded = (tmp_path / "srpo_run" / "2" / SUPERSEDED).read_bytes().splitlines()
    assert [json.loads(line)["step"] for line in superseded[:2]] == [4, 5]
    assert superseded[2] == b'{"step": 6, "da'
    assert settle(tmp_path, 3) == []


def test_a_step_that_was_saved_and_not_logged_is_added(starts, tmp_path):
    starts({"1": [1, 2]})
    settle(tmp_path, 3, {"srpo/accuracy": 0.5})
    settle(tmp_path, 3, {"srpo/accuracy": 0.5})
    assert read(tmp_path, "1") == [1, 2, 3]


def test_the_validation_of_a_checkpoint_is_no_line_of_its_step(starts, tmp_path):
    starts({"1": [1]})
    with (tmp_path / "srpo_run" / "1" / METRICS).open("a") as file:
        file.write(json.dumps({"step": 2, "data": {"val-core/x/acc/mean@1": 0.5}}) + "\n")
    settle(tmp_path, 2, {"training/global_step": 2.0})
    assert read(tmp_path, "1") == [1, 2, 2]


def test_a_run_that_begins_anew_has_none(starts, tmp_path):
    starts({"1": [0, 1, 2]})
    assert settle(tmp_path, None) == [0, 1, 2]
    assert read(tmp_path, "1") == []
