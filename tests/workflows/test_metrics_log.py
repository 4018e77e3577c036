"""The metrics file is followed while it grows, and held-out accuracy is found under verl's names."""

import json

import pytest

from workflows.metrics_log import MetricsLog, Record, read_metrics, read_what_can_be_read


def test_an_incomplete_line_is_left_for_later(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    assert log.read_new() == []
    line = json.dumps({"step": 1, "data": {"a": 0.5, "note": "text"}}) + "\n"
    path.write_text(line + line[:10])
    assert log.read_new() == [Record(1, {"a": 0.5})]
    assert log.read_new() == []
    path.write_text(line + line)
    assert log.read_new() == [Record(1, {"a": 0.5})]


def test_held_out_accuracy_by_source():
    record = Record(
        0,
        {
            "val-core/tiny/acc/mean@4": 0.25,
            "val-core/tiny/acc/best@4/mean": 0.9,
            "val-core/tiny/acc/maj@4/mean": 0.5,
            "val-core/tiny/reward/mean@4": 0.1,
            "val-core/openai/gsm8k/reward/mean@1": 0.75,
            "val-aux/tiny/format/mean@4": 1.0,
        },
    )
    assert record.held_out() == {"openai/gsm8k": 0.75, "tiny": 0.25}
    assert record.accuracy() == 0.5
    assert Record(1, {"srpo/accuracy": 1.0}).accuracy() is None


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"trainer\.logger"):
        read_metrics(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match="not a line of verl's file logger"):
        read_metrics(tmp_path / "bad.jsonl")


def test_a_whole_line_counts_without_its_end_and_half_a_line_does_not(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "data": {"a": 0.5}}) for step in (1, 2)]
    path.write_text("\n".join(lines))
    assert read_what_can_be_read(path) == ([Record(1, {"a": 0.5}), Record(2, {"a": 0.5})], [])
    path.write_text("\n".join(lines)[:-3])
    records, problems = read_what_can_be_read(path)
    assert records == [Record(1, {"a": 0.5})]
    assert problems == ["metrics.jsonl: its last line is half written and is left out"]


def test_numbers_that_no_float_holds_are_not_finite(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "data": {{"a": 1{"0" * 400}, "b": 2}}}}\n{{"step": Infinity, "data": {{}}}}\n')
    records, problems = read_what_can_be_read(path)
    assert records == [Record(1, {"b": 2})]
    assert problems == [
        "metrics.jsonl: lines that cannot be read and are left out: 2",
        "metrics.jsonl: 1 values of a are not finite",
    ]
