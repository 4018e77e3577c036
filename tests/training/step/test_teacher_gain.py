"""Which rows the teacher is asked about, and the mean of what it says."""

import pytest
import torch

from srpo_verl.config import SRPOConfig, settings
from srpo_verl.core import TeacherPrompt
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from srpo_verl.training.step.teacher_gain import shown_siblings, teacher_gain


def plan_of(groups: dict[str, tuple[int, ...]]):
    rollouts = [
        Rollout(key=f"{uid}_{session}_0", score=float(score), response_length=3)
        for uid, scores in groups.items()
        for session, score in enumerate(scores)
    ]
    return build_plan(rollouts, SRPOConfig())


def test_the_siblings_that_are_shown_and_the_prompts_that_show_them():
    plan = plan_of({"a": (0, 1, 0, 1), "b": (0, 0, 0, 0), "c": (1, 1, 1, 1), "d": (0, 0, 0, 1)})
    prompts = {row: TeacherPrompt([int(plan.routing.demonstration[row])]) for row in plan.routed_rows()}
    assert shown_siblings(plan, prompts) == {1: TeacherPrompt([1]), 15: TeacherPrompt([15])}
    # Sent back to GRPO for want of a prompt: its sibling is shown to nobody.
    assert shown_siblings(plan.without([12, 13, 14]), prompts) == {1: TeacherPrompt([1])}
    # Without a prompt, or with one that does not show all of it: passed over.
    assert shown_siblings(plan, {0: prompts[0]}) == {1: TeacherPrompt([1])}
    cut = {**prompts, **dict.fromkeys((0, 2), TeacherPrompt([1], truncated=True))}
    assert shown_siblings(plan, cut) == {15: TeacherPrompt([15])}


def test_feedback_shows_no_sibling():
    rollouts = [
        Rollout(key=f"a_{session}_0", score=0.0, response_length=3, reward_info={"feedback": "wrong"})
        for session in range(2)
    ]
    plan = build_plan(rollouts, settings({"providers": ["sibling", "feedback"]}))
    assert plan.routed_rows() == [0, 1]
    assert shown_siblings(plan, dict.fromkeys((0, 1), TeacherPrompt([1]))) == {}


def test_mean_over_the_masked_in_tokens_of_all_siblings():
    teacher = [torch.tensor([-1.0, -2.0, -9.0]), torch.tensor([-0.5])]
    student = [torch.tensor([-2.0, -2.5, 0.0]), torch.tensor([-0.25])]
    masks = [torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0])]
    assert teacher_gain(teacher, student, masks) == pytest.approx((1.0 + 0.5 - 0.25) / 3)
    assert teacher_gain(teacher, student, [torch.zeros(3), torch.zeros(1)]) is None
