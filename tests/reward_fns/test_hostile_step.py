"""Group safety in real steps: hostile completions of every kind are wrong, none is left out, siblings are unharmed."""

import json

import pytest

from tests.patience import STACK_TEST
from tests.reward_fns.hostile_reward import HOSTILE
from tests.stack.launch import run
from tests.training import tiny_model

pytestmark = [pytest.mark.stack, pytest.mark.timeout(STACK_TEST)]


def test_hostile_completions_in_a_real_step(tmp_path):
    folder = tmp_path / "verdicts"
    folder.mkdir()
    result = run(
        tmp_path / "run",
        tiny_model.build(tmp_path / "model"),
        steps=2,
        overrides=["reward.custom_reward_function.path=pkg://tests.reward_fns.hostile_reward"],
        environment={"HOSTILE_FOLDER": str(folder)},
    )
    assert result.returncode == 0, result.log[-4000:]
    verdicts = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert len(verdicts) >= 2 * len(HOSTILE)
    for verdict in verdicts:
        assert verdict["infra_error"] == 0.0, verdict
        assert verdict["score"] == float(not verdict["hostile"]), verdict
    for step in result.steps:
        assert step["srpo/infra_errors"] == 0
        assert step["critic/score/mean"] == pytest.approx(0.5)
