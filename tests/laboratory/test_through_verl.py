"""The commands of the runs through verl are configs that compose; records come from a run's own metrics."""

import json
from pathlib import Path

import pytest

from laboratory.methods import algorithm
from laboratory.modes import MODES, row_of
from laboratory.through_verl import SMOLLM2_RATES, VerlRun, record_lines
from srpo_verl.config import settings
from tests.compose import compose


@pytest.mark.parametrize("kind", ["lab", "smollm2"])
@pytest.mark.parametrize("method", SMOLLM2_RATES)
@pytest.mark.parametrize("mode", MODES)
def test_commands_compose(kind, method, mode):
    run = VerlRun(kind, method, 3e-5, seed=4, steps=7, mode=mode)
    words = run.command(Path("runs/x"))
    _, folder, _, name, *overrides = words[words.index("--config-dir") :]
    config = compose(f"{folder}/{name}", overrides)
    ours, lab = settings(config.srpo), algorithm(method)
    assert (ours.route, ours.policy_gradient, ours.beta) == (lab.route, lab.policy_gradient, lab.beta)
    assert config.trainer.v1.trainer_mode == mode
    assert config.actor_rollout_ref.actor.optim.lr == 3e-5
    assert (config.data.seed, config.trainer.total_training_steps) == (4, 7)
    assert config.trainer.default_local_dir == f"runs/x/verl/{run.name}"
    assert (
        config.data.train_batch_size
        == config.actor_rollout_ref.actor.ppo_mini_batch_size
        == {"lab": 8, "smollm2": 4}[kind]
    )


def test_record_of_a_finished_run(tmp_path):
    start = tmp_path / "srpo_run" / "20260101-000000"
    start.mkdir(parents=True)
    (start / "config.yaml").write_text("trainer: {}\n")
    (start / "run.json").write_text("{}")
    logged = [
        {"step": 0, "data": {"val-core/tiny_arithmetic/acc/mean@16": 0.25}},
        {"step": 1, "data": {"srpo/accuracy": 0.123456789, "unwanted": 1.0}},
        {"step": 2, "data": {"srpo/accuracy": 0.5, "val-core/tiny_arithmetic/acc/mean@16": 0.75}},
    ]
    (start / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged))
    (tmp_path / "rollouts").mkdir()
    outputs = ["The correct answer is 4", "4", "Correctly: 4", "right"]
    (tmp_path / "rollouts" / "2.jsonl").write_text("".join(json.dumps({"output": o}) + "\n" for o in outputs))
    lines = record_lines(VerlRun("lab", "srpo", 1e-4, 0, 2), tmp_path)
    assert lines[1:] == [
        {"kind": "eval", "step": 0, "accuracy": 0.25},
        {"kind": "train", "step": 1, "srpo/accuracy": 0.12346},
        {"kind": "train", "step": 2, "srpo/accuracy": 0.5, "says_correct": 0.5},
        {"kind": "eval", "step": 2, "accuracy": 0.75},
    ]


def test_the_curve_of_a_record(tmp_path):
    lines = [{"kind": "run"}, {"kind": "eval", "step": 0, "accuracy": 0.25}]
    lines += [
        {"kind": "train", "step": step, "timing_s/step": seconds} for step, seconds in ((1, 9.0), (2, 1.0), (3, 2.0))
    ]
    lines += [{"kind": "eval", "step": 3, "accuracy": 0.75}]
    (tmp_path / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert row_of(tmp_path / "record.jsonl") == ({0: 0.25, 3: 0.75}, 2.0)
