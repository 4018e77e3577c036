"""Methods of other papers end to end: two runs that have all their parts between them; each one by itself at night."""

import json
import math

import pandas as pd
import pytest

from srpo_verl.config import FAMILY
from tests.patience import STACK_TEST
from tests.stack.launch import run

pytestmark = [pytest.mark.stack, pytest.mark.timeout(STACK_TEST)]

# Four groups of eight fair coins in each step, and the same four questions in every step.
GROUP, QUESTIONS = 8, 4


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.parquet"
    rows = [
        {
            "data_source": "checksum",
            "prompt": [{"role": "user", "content": f"{n} + {n}?"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(2 * n)},
            "extra_info": {"index": n, "split": "train", "solution": f"twice {n} is {2 * n}"},
        }
        for n in range(QUESTIONS)
    ]
    pd.DataFrame(rows).to_parquet(path)
    return [
        f"data.train_files={path}",
        "trainer.total_epochs=10",
        f"actor_rollout_ref.rollout.n={GROUP}",
        "srpo.teacher_gain_freq=0",
    ]


def check_steps(result, count=2):
    assert result.returncode == 0, result.log[-4000:]
    assert len(result.steps) == count
    for step in result.steps:
        assert all(math.isfinite(value) for value in step.values())
        assert step["training/rollout_probs_diff_max"] < 1e-5
        assert step["actor/grad_norm"] > 0


def test_states_soft_routes_question_weights_a_schedule_and_a_clip(data, stack_model, tmp_path):
    """DRIFT, with what SC-SDPO, SSOPD, SDPG and OPSD add: the parts of five methods in one run."""
    overrides = [
        *data,
        "srpo.providers=[sibling,past_answer,reference]",
        "srpo.question_weight=pass_rate_spread",
        "srpo.distillation.warmup_steps=4",
        "srpo.alpha=0",
        "srpo.entry_clip=0.05",
        "srpo.grad_norm_freq=1",
        "trainer.save_freq=2",
    ]
    folder = tmp_path / "run"
    result = run(folder, stack_model, config="drift", steps=2, overrides=overrides)
    check_steps(result)
    for place, step in enumerate(result.steps):
        assert step["srpo/coefficient"] == pytest.approx((place + 1) / 4)
        assert 0 < step["srpo/routed_share"] < 1
        assert step["srpo/grad_norm/sdpo"] > 0
    # The teacher is asked about right answers too, which are not distilled.
    assert {line["score"] for line in result.teacher_prompts} == {0.0, 1.0}
    states = json.loads((folder / "checkpoints/global_step_2/srpo_states.json").read_text())
    assert len(states["pass_rates"]) == QUESTIONS
    assert all(right + wrong > GROUP for right, wrong, _ in states["pass_rates"].values()), "both steps count"
    assert all(step == 2 for *_, step in states["pass_rates"].values())
    assert 0 < len(states["past_answers"]) <= QUESTIONS


def test_a_contrast_and_a_teacher_that_is_refreshed(data, stack_model, tmp_path):
    """RLCSD: no divergence at all, further passes of the teacher, a copy of the actor."""
    passes = ["srpo.options.wrong_siblings.passes=2", "srpo.options.snapshot.every=2"]
    result = run(tmp_path / "run", stack_model, config="rlcsd", steps=2, overrides=[*data, *passes])
    check_steps(result)
    assert [step["srpo/routed_share"] for step in result.steps] == [0, 0]
    assert result.steps[0]["srpo/teacher_distance"] > 0
    assert result.steps[1]["srpo/teacher_distance"] == 0
    assert "timing_s/srpo_teacher" in result.steps[0]
    assert result.teacher_prompts


@pytest.mark.nightly
@pytest.mark.parametrize("config", FAMILY)
def test_two_real_steps(config, data, stack_model, tmp_path):
    result = run(tmp_path / "run", stack_model, config=config, steps=2, overrides=data)
    assert result.returncode == 0, result.log[-4000:]
    for step in result.steps:
        assert all(math.isfinite(value) for value in step.values())
    assert result.teacher_prompts or config == "i_sdpo"
