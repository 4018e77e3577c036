import json

import pytest

from workflows.metrics_log import Record
from workflows.run_reader import find_runs, merge, read_run


def write_start(place, name, steps, **config):
    start = place / "srpo_run" / name
    start.mkdir(parents=True)
    (start / "config.yaml").write_text(json.dumps(config))
    (start / "run.json").write_text(json.dumps({"versions": {"verl": name}}))
    lines = [json.dumps({"step": step, "data": {"x": value}}) for step, value in steps.items()]
    (start / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))


def test_a_later_start_replaces_the_steps_it_did_again(tmp_path):
    write_start(tmp_path, "20260101-000000", {1: 1.0, 2: 2.0, 3: 3.0}, srpo={"beta": 1.0})
    write_start(tmp_path, "20260101-010000", {2: 20.0}, srpo={"beta": 0.5})
    run = read_run(tmp_path)
    assert [(record.step, record.data["x"]) for record in run.records] == [(1, 1.0), (2, 20.0)]
    assert run.starts == 2
    assert run.get("srpo.beta") == 0.5
    assert run.get("srpo.gamma", "none") == "none"
    assert run.record["versions"]["verl"] == "20260101-010000"


def test_validating_a_checkpoint_again_does_not_lose_its_step():
    before = [Record(1, {"timing_s/step": 5.0}), Record(2, {"timing_s/step": 6.0}), Record(3, {"timing_s/step": 7.0})]
    after = [Record(2, {"val-core/x/acc/mean@2": 0.5}), Record(3, {"timing_s/step": 8.0})]
    assert [record.data for record in merge([before, after])] == [
        {"timing_s/step": 5.0},
        {"timing_s/step": 6.0, "val-core/x/acc/mean@2": 0.5},
        {"timing_s/step": 8.0},
    ]


def test_lines_of_one_step_are_one_record():
    (record,) = merge([[Record(3, {"a": 1.0}), Record(3, {"b": 2.0})]])
    assert record.data == {"a": 1.0, "b": 2.0}


def test_runs_are_found_and_a_folder_without_one_is_refused(tmp_path):
    write_start(tmp_path / "grid" / "one", "20260101-000000", {1: 1.0})
    write_start(tmp_path / "grid" / "demo" / "checkpoints", "20260101-000000", {1: 1.0})
    assert find_runs([tmp_path]) == [tmp_path / "grid" / "demo", tmp_path / "grid" / "one"]
    with pytest.raises(FileNotFoundError, match=r"trainer\.default_local_dir"):
        read_run(tmp_path / "grid")


def test_what_a_run_dumped_is_looked_for_where_the_run_is_now(tmp_path):
    """At its old place another run may be."""
    old, now = tmp_path / "run", tmp_path / "run.before"
    config = {"trainer": {"default_local_dir": str(old), "rollout_data_dir": f"{old}/mine"}, "srpo": {"dump_dir": "/x"}}
    write_start(now, "20260101-000000", {1: 1.0}, **config)
    run = read_run(now)
    assert run.dump_places("trainer.rollout_data_dir")[:2] == [now / "mine", now / "rollouts"]
    assert [str(place) for place in run.dump_places("srpo.dump_dir")[:2]] == ["/x", f"{now}/teacher_prompts"]
    assert run.dump_places("srpo.inspect_dir")[0] == now / "inspect"
