"""The parts of other methods than SRPO, each against values worked out by hand."""

import json
import math

import pytest
import torch

from srpo_verl import core

# Two groups: right, wrong, wrong, right | wrong, wrong.
SCORES, GROUPS = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0], list("aaaabb")


def rollouts(scores=SCORES, groups=GROUPS, **others) -> core.Rollouts:
    return core.route(torch.tensor(scores), groups, **others).seen


def available(n=6) -> torch.Tensor:
    return torch.ones(n, dtype=torch.bool)


def test_rules():
    seen = rollouts(lengths=[5, 9, 9, 4, 3, 8])
    assert core.all_wrong(seen, available()).tolist() == [False] * 4 + [True] * 2
    assert core.positive_advantage(seen, available()).tolist() == [True, False, False, True, False, False]
    assert core.sign_routed(seen, available()).tolist() == [False, True, True, False, True, True]
    # Of equally long ones the first; only of those with something to be shown.
    assert core.longest_wrong(seen, available()).tolist() == [False, True, False, False, False, True]
    told = torch.tensor([True, False, True, True, False, False])
    assert core.longest_wrong(seen, told).tolist() == [False, False, True, False, False, False]


def test_equal_scores_are_distilled_by_their_sign_whether_right_or_wrong():
    """What tells RLCSD's SRPO from the paper's, which leaves both kinds of groups to GRPO."""
    seen = rollouts([1.0, 1.0, 0.0, 0.0], list("aabb"))
    assert core.sign_routed(seen, available(4)).tolist() == [True] * 4
    assert core.RULES["incorrect"](seen, available(4)).tolist() == [False, False, True, True]


def test_a_shaped_score_above_the_mean_of_a_wrong_group_has_a_positive_advantage():
    seen = rollouts([0.1, 0.3], list("aa"))
    assert core.positive_advantage(seen, available(2)).tolist() == [False, True]


def test_difficulty_is_shared_out():
    hard, middling, easy = core.difficulty_gates(torch.tensor([0.3, 0.5, 1.0]))
    torch.testing.assert_close(hard + middling + easy, torch.ones(3, dtype=torch.float64))
    # At 0.3: sigmoid(0) = 1/2, easy sigmoid(-5) = .006693, middling .5 x .993307; they sum to 1.003346.
    assert [round(float(gate[0]), 6) for gate in (hard, middling, easy)] == [0.498332, 0.494997, 0.006671]
    assert float(easy[2]) > 0.97


def test_siblings_of_one_kind_and_another():
    seen = rollouts(lengths=[5, 9, 9, 4, 3, 8])
    assert core.shortest_sibling(seen).tolist() == [3, 3, 3, 0, -1, -1]
    picks = {tuple(core.random_sibling(rollouts(step=step)).tolist()) for step in range(1, 9)}
    assert picks == {(3, 0, 0, 0, -1, -1), (3, 3, 3, 0, -1, -1)}, "one for the group, self excluded"
    again = [core.random_sibling(rollouts(step=7)).tolist() for _ in range(2)]
    assert again[0] == again[1]
    wrong = core.wrong_siblings(seen, passes=3)
    assert wrong.shape == (6, 3)
    assert [sorted(set(row) - {-1}) for row in wrong.tolist()] == [[1, 2], [2], [1], [1, 2], [5], [4]]


def test_nobody_is_shown_what_cannot_be_read():
    seen = rollouts(lengths=[5, 9, 9, 4, 3, 8], not_shown=torch.tensor([False, True, False, True, False, False]))
    assert core.shortest_sibling(seen).tolist() == [-1, 0, 0, 0, -1, -1]
    assert sorted(core.wrong_siblings(seen, passes=2)[0].tolist()) == [-1, 2]


def answers(step, scores, texts, questions) -> core.Rollouts:
    return rollouts(scores, questions, responses=texts, questions=questions, step=step)


def test_right_answers_are_kept_newest_first_and_within_limits():
    first = answers(1, [1.0, 1.0, 0.0, 1.0], ["x", "y", "bad", "r"], list("aaab"))
    state = core.with_answers({}, first, per_question=2)
    assert state == {"a": ["y", "x"], "b": ["r"]}
    second = answers(2, [1.0, 1.0, 1.0], ["x", "z", "<think>hm</think> c"], list("aac"))
    state = core.with_answers(state, second, per_question=2, questions=2)
    assert state == {"a": ["z", "x"], "c": ["<think>hm</think> c"]}, "the question answered longest ago goes"
    asking = answers(3, [0.0, 1.0, 0.0, 0.0], ["?", "z", "!", "-"], list("aacd"))
    assert core.past_answer(state, asking) == ["z", "x", "c", None], "nobody's own words, no thinking"
    assert core.past_answer(state, asking, remove_thinking=False)[2] == "<think>hm</think> c"


def test_pass_rates_fade_and_are_trusted_with_their_number():
    state = core.with_verdicts({}, answers(1, [1.0, 0.0, 0.0, 0.0], list("wxyz"), list("aaaa")))
    assert state == {"a": [1.0, 3.0, 1]}
    later = answers(3, [1.0, 1.0], list("uv"), list("aa"))
    # .85^2 = .7225: 2.7225 right, 2.1675 wrong; raw 3.7225 / 6.89; trust 4.89 / 12.89.
    rate = float(core.smoothed_pass_rates(state, later)[0])
    assert rate == pytest.approx(4.89 / 12.89 * 3.7225 / 6.89 + 8 / 12.89 * 0.5, abs=1e-12)
    assert core.with_verdicts(state, later)["a"] == pytest.approx([2.7225, 2.1675, 3])
    assert state == {"a": [1.0, 3.0, 1]}, "the last state is left as it was"
    again = json.loads(json.dumps(core.with_verdicts(state, later)))
    assert again == core.with_verdicts(state, later)


def test_evidence_by_hand():
    """e^.1 = 1.105171 within 1 +- .2; e^1 is not; a negative advantage turns the sign."""
    advantages, d = torch.tensor([2.0, 2.0, -2.0, 0.0]).double(), torch.tensor([0.1, 1.0, 0.1, 3.0]).double()
    found = core.evidence_advantages(advantages, d, strength=0.5, clip=0.2)
    expected = [2 * (0.5 + 0.5 * 1.105171), 2 * (0.5 + 0.5 * 1.2), -2 * (0.5 + 0.5 * math.exp(-0.1)), 0.0]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert core.evidence_advantages(advantages, d, strength=0.0, clip=0.2).tolist() == advantages.tolist()


def test_contrast_by_hand():
    """tanh(.02 / .02) = .761594; the verdict's sign is kept; small shifts, NaN and zeros change nothing."""
    advantages = torch.tensor([1.0, 0.2, -1.0, -0.2, 1.0, 1.0, 0.0]).double()
    evidence = torch.tensor([0.02, -1.0, 0.02, 1.0, 0.0005, torch.nan, 1.0]).double()
    expected = [1 + 0.380797, 0.0, -1 + 0.380797, 0.0, 1.0, 1.0, 0.0]
    assert core.contrast_advantages(advantages, evidence).tolist() == pytest.approx(expected, abs=1e-6)


def test_the_bonus_is_for_what_the_teacher_would_not_have_said():
    """The student's log-prob is above the teacher's by .1 (within the margin), .5 and 5 nats, and below it."""
    found = core.rebellious_bonus(torch.tensor([-0.1, -0.5, -5.0, 2.0]).double())
    assert found.tolist() == pytest.approx([0.0, math.exp(0.3) - 1, 1.0, 0.0])


def test_question_weights_by_hand():
    seen = rollouts([1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0], list("aabbbbcc"))
    share = torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0])
    spread = core.pass_rate_spread(seen, share)
    raw = [0.5, 0.5, *[math.sqrt(3) / 4] * 4, 0.0, 0.0]
    assert spread.tolist() == pytest.approx([value / (sum(raw) / 6) for value in raw])
    assert float(spread[:6].mean()) == pytest.approx(1.0)
    assert core.frontier_weights(seen, share).tolist() == pytest.approx([1, 1, *[0.75] * 4, 0, 0])
    nobody = rollouts([1.0, 1.0], list("aa"))
    assert core.pass_rate_spread(nobody, torch.ones(2)).tolist() == [0.0, 0.0]


def test_schedules():
    assert [core.linear_decay(step, 50) for step in (1, 26, 51, 90)] == [1.0, 0.5, 0.0, 0.0]
    assert core.linear_decay(99, 0) == 1.0
    sdpg = [core.trapezoid(k, warmup_steps=50, decay_start=50, decay_steps=350) for k in (1, 25, 50, 225, 399, 401)]
    assert sdpg == pytest.approx([0.02, 0.5, 1.0, 0.5, 1 / 350, 0.0])
    assert core.trapezoid(7) == 1.0


STUDENT, TEACHER = (torch.tensor([p]).double().log() for p in ([0.643914, 0.236883, 0.119203], [0.1, 0.8, 0.1]))


def test_a_clip_per_entry():
    """KL(T || S) = -.186239 + .973636 - .017566 by bucket; at most .05 of each."""
    entries = [t * math.log(t / s) for s, t in zip([0.643914, 0.236883, 0.119203], [0.1, 0.8, 0.1], strict=True)]
    assert entries == pytest.approx([-0.186239, 0.973636, -0.017566], abs=1e-6)
    clipped = core.generalized_jsd(0.0, entry_clip=0.05)(STUDENT, TEACHER)
    assert float(clipped) == pytest.approx(-0.186239 + 0.05 - 0.017566, abs=1e-5)
    for alpha in (0.0, 0.3, 1.0):
        loose = core.generalized_jsd(alpha, entry_clip=10.0)(STUDENT, TEACHER)
        torch.testing.assert_close(loose, core.generalized_jsd(alpha)(STUDENT, TEACHER), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="entry_clip must be positive"):
        core.generalized_jsd(0.5, entry_clip=0.0)


def test_an_entry_beyond_the_clip_has_no_gradient():
    student = STUDENT.clone().requires_grad_()
    core.generalized_jsd(0.0, entry_clip=0.05)(student, TEACHER).sum().backward()
    assert student.grad[0, 1] == 0
    assert student.grad[0, 0] == pytest.approx(-0.1)


def test_mixed_kl_is_the_mean_of_both():
    one, other = core.generalized_jsd(0.0)(STUDENT, TEACHER), core.generalized_jsd(1.0)(STUDENT, TEACHER)
    torch.testing.assert_close(core.mixed_kl(0.25)(STUDENT, TEACHER), 0.75 * one + 0.25 * other)
    with pytest.raises(ValueError, match="alpha must lie"):
        core.mixed_kl(1.5)


def test_the_barycenter_is_the_teacher_where_nothing_attenuates():
    """alpha_max 0: reverse KL. Disagreement moves the target, and the gradient is of the first student alone."""
    plain = core.barycenter_divergence(0.0, 50.0)(STUDENT, TEACHER)
    torch.testing.assert_close(plain, core.generalized_jsd(1.0)(STUDENT, TEACHER))
    s, t = STUDENT[0].exp().tolist(), TEACHER[0].exp().tolist()
    jsd = sum(
        0.5 * a * math.log(2 * a / (a + b)) + 0.5 * b * math.log(2 * b / (a + b)) for a, b in zip(s, t, strict=True)
    )
    a = 0.3 * (1 / (1 + math.exp(-50 * jsd)) - 0.5)
    raw = [y ** (1 - a) * x**a for x, y in zip(s, t, strict=True)]
    expected = sum(x * math.log(x / (y / sum(raw))) for x, y in zip(s, raw, strict=True))
    assert float(core.barycenter_divergence(0.15, 50.0)(STUDENT, TEACHER)) == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError, match="alpha_max"):
        core.barycenter_divergence(1.2, 1.0)
