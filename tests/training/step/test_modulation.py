"""Modulators, question weights, contrasts and who else the teacher is asked about; what a hostile one cannot do."""

import math

import pytest
import torch

from srpo_verl import register
from srpo_verl.config import settings
from srpo_verl.training.step.routed_tokens import RoutedTokens, mean_log_prob
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from srpo_verl.training.step.step_metrics import routing_metrics
from srpo_verl.training.step.step_signals import step_signals
from srpo_verl.variants import VariantError


def rows(*scores, **others):
    return [Rollout(f"x_{n}_0", float(score), 2, **others) for n, score in enumerate(scores)]


def tokens_of(rows_, gap=0.1, contrast=None) -> RoutedTokens:
    def twos(value):
        return [torch.full((2,), value) for _ in rows_]

    return RoutedTokens(rows_, twos(0.5), twos(0.5), twos(-1.0 + gap), twos(-1.0), contrast_log_probs=contrast)


def signals(srpo, scores=(1, 0, 0), masks=None, tokens=None, **others):
    plan = build_plan(rows(*scores), srpo, **others)
    masks = masks or [torch.ones(2) for _ in scores]
    rewards = torch.tensor([float(score) for score in scores])
    tokens = tokens or tokens_of(plan.asked_rows())
    return plan, step_signals(plan, srpo, rewards=rewards, masks=masks, normalize_by_std=False, tokens=tokens)


def asking(name, **others):
    return settings({"route": "none", "asked": "all", "policy_gradient": "all", "modulator": name, **others})


def test_the_teacher_is_asked_about_more_than_is_distilled():
    plan = build_plan(rows(1, 1, 0), settings({"asked": "correct"}))
    assert plan.routed.tolist() == [False, False, True]
    assert plan.asked.tolist() == [True, True, True]
    assert routing_metrics(plan)["srpo/routed_share"] == pytest.approx(1 / 3)
    assert plan.without([0]).asked.tolist() == [False, True, True]
    alone = build_plan(rows(1, 0), settings({"asked": "all"}))
    assert alone.asked.tolist() == [False, True], "nobody is its own teacher"


def test_only_what_is_distilled_has_weights_and_makes_their_mean():
    srpo = settings({"asked": "correct", "modulator": "reversed_evidence"})
    _, found = signals(srpo, scores=(1, 1, 0))
    assert [row.numel() for row in found.weights] == [2, 2, 2]
    assert [row.tolist() for row in found.weights] == [[0, 0], [0, 0], [1, 1]]
    assert found.routed_tokens == 2


def test_evidence_on_every_token_that_was_asked_about():
    """A = 2/3, -1/3, -1/3; rollout 0 has no sibling. l = .5 in step 1, .25 in step 26; d = .1."""
    for step, strength in ((1, 0.5), (26, 0.25)):
        _, found = signals(asking("evidence"), step=step)
        scaled = -1 / 3 * (1 - strength + strength * math.exp(-0.1))
        expected = [[2 / 3] * 2, [scaled] * 2, [scaled] * 2]
        assert [row.tolist() for row in found.advantages] == [pytest.approx(row, abs=1e-6) for row in expected]


def test_masked_tokens_keep_no_advantage_whatever_a_modulator_says(request):
    sizes = []

    def all_ones(tokens, srpo):
        sizes.append(len(tokens))
        tokens.advantages.zero_()
        tokens.rollouts.correct.fill_(True)
        return torch.ones(len(tokens))

    name = f"ones of {request.node.name}"
    register.modulator(name)(all_ones)
    masks = [torch.ones(2), torch.tensor([1.0, 0.0]), torch.zeros(2)]
    plan, found = signals(asking(name), masks=masks)
    assert sizes == [1]
    assert [row.tolist() for row in found.advantages] == [pytest.approx([2 / 3] * 2), [1.0, 0.0], [0.0, 0.0]]
    assert plan.routing.correct.tolist() == [True, False, False]


def test_a_rollout_without_a_policy_gradient_gets_none_from_a_modulator(request):
    name = f"ones of {request.node.name}"
    register.modulator(name)(lambda tokens, srpo: torch.ones(len(tokens)))
    srpo = settings({"route": "incorrect", "asked": "all", "modulator": name})
    _, found = signals(srpo, scores=(1, 1, 0))
    assert [row.tolist() for row in found.advantages] == [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    "answer",
    [
        lambda tokens: tokens.advantages / 0,
        lambda tokens: tokens.advantages[1:],
        lambda tokens: 1.0,
        lambda tokens: torch.full((len(tokens),), 1e300, dtype=torch.float64),
    ],
)
def test_a_hostile_modulator_is_named(answer, request):
    name = f"hostile modulator {request.node.name}"
    register.modulator(name)(lambda tokens, srpo: answer(tokens))
    with pytest.raises(VariantError, match="4 finite numbers") as caught:
        signals(asking(name))
    assert f"srpo.modulator={name}" in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [lambda n: -torch.ones(n), lambda n: torch.ones(n) / 0, lambda n: torch.ones(n + 1), lambda n: [1.0] * n],
)
def test_a_hostile_question_weight_is_named(answer, request):
    name = f"hostile weight {request.node.name}"
    register.question_weight(name)(lambda rollouts, share, srpo: answer(len(rollouts)))
    with pytest.raises(VariantError, match="3 numbers that are finite and not negative") as caught:
        signals(settings({"question_weight": name}))
    assert f"srpo.question_weight={name}" in str(caught.value)


def test_a_question_weight_and_a_coefficient_multiply_and_the_mean_of_one_is_before_them():
    distillation = {"coefficient": 0.5, "warmup_steps": 4}
    srpo = settings({"question_weight": "frontier_weights", "beta": 0.0, "distillation": distillation})
    _, found = signals(srpo, scores=(1, 0, 0, 0), step=2)
    assert torch.cat(found.weights).tolist() == pytest.approx([0.75 * 0.5 * 0.5] * 6)
    assert found.metrics["srpo/weight/max"] == 1.0
    assert found.metrics["srpo/coefficient"] == pytest.approx(0.25)


def test_excluded_rollouts_are_nowhere(request):
    seen = []

    def looks(tokens, srpo):
        seen.append((tokens.rollouts.scores.tolist(), tokens.rollout.tolist()))
        return tokens.advantages

    name = f"looks of {request.node.name}"
    register.modulator(name)(looks)
    batch = [
        Rollout("x_0_0", 1.0, 2),
        Rollout("x_1_0", 1.0, 2, reward_info={"infra_error": 1}),
        Rollout("x_2_0", 0.0, 2),
        Rollout("pad_0_0", 1.0, 1, padding=True),
    ]
    srpo = asking(name)
    plan = build_plan(batch, srpo)
    masks = [torch.ones(2)] * 3 + [torch.zeros(1)]
    rewards = torch.tensor([row.score for row in batch])
    tokens = tokens_of(plan.asked_rows())
    step_signals(plan, srpo, rewards=rewards, masks=masks, normalize_by_std=False, tokens=tokens)
    assert seen == [([1.0, 0.0], [1, 1])]


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (lambda n: torch.arange(n)[:, None], "to itself"),
        (lambda n: torch.full((n, 2), n), "outside 0"),
        (lambda n: torch.arange(n), r"int64 \(2, M\)"),
    ],
)
def test_a_hostile_contrast_is_refused(shown, says, request):
    name = f"contrast {request.node.name}"
    register.provider(name)(lambda rollouts, srpo: shown(len(rollouts)))
    with pytest.raises(VariantError, match=says):
        build_plan(rows(1, 0), asking("contrast", contrast=name))


def test_a_contrast_names_rows_of_the_batch_in_any_order():
    batch = [Rollout(f"x_{n}_0", float(score), 2) for n, score in ((3, 0), (1, 1), (0, 0), (2, 1))]
    plan = build_plan(batch, asking("contrast", contrast="wrong_siblings"))
    assert [sorted(set(row) - {-1}) for row in plan.routing.contrast.tolist()] == [[2], [0, 2], [0], [0, 2]]
    shown = plan.showing(1, "wrong_siblings")
    assert shown.asked.tolist() == [False, True, False, True]
    assert shown.routing.providers == ("wrong_siblings",)


def test_the_mean_over_passes_is_of_probabilities():
    passes = [torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -2.0])]
    found = mean_log_prob(passes, like=passes[0])
    assert found.tolist() == pytest.approx([math.log((math.exp(-1) + math.exp(-3)) / 2), -2.0])
    assert mean_log_prob([], like=passes[0]).isnan().tolist() == [True, True]


def test_a_rollout_without_a_contrast_keeps_its_advantage():
    srpo = asking("contrast", contrast="wrong_siblings")
    contrast = [torch.full((2,), torch.nan), torch.full((2,), -2.0)]
    _, found = signals(srpo, scores=(1, 1, 0), tokens=tokens_of([0, 1], contrast=contrast))
    assert found.advantages[0].tolist() == pytest.approx([1 / 3] * 2)
    assert found.advantages[1].tolist() == pytest.approx([1 / 3 + 0.5] * 2, abs=1e-6)


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"modulator": "evidence", "route": "none", "policy_gradient": "all"}, "srpo.asked"),
        ({"modulator": "evidence", "policy_gradient": "none"}, "acts through the policy gradient"),
        ({"modulator": "evidence", "policy_gradient": "all", "advantage_mix": 0.1}, "choose one of them"),
        ({"contrast": "wrong_siblings"}, "srpo.contrast is for a modulator"),
        ({"entry_clip": -1.0}, "srpo.entry_clip"),
        ({"distillation": {"decay_steps": -1}}, "srpo.distillation.decay_steps"),
        ({"distillation": {"coefficient": float("inf")}}, "srpo.distillation.coefficient"),
        ({"modulator": "x"}, "srpo.modulator='x' is not one of evidence"),
        ({"question_weight": "x"}, "srpo.question_weight='x' is not one of pass_rate_spread"),
        ({"states": ["x"]}, "srpo.states='x' is not one of past_answers"),
        ({"states": ["pass_rates", "pass_rates"]}, "none twice"),
        ({"route": "difficulty"}, "add pass_rates to srpo.states"),
        ({"providers": ["sibling", "past_answer"]}, "add past_answers to srpo.states"),
        ({"asked": "x"}, "srpo.asked='x' is not one of incorrect"),
        ({"contrast": "x", "modulator": "contrast", "asked": "all"}, "srpo.contrast='x' is not one of sibling"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_a_sentence(node, says):
    with pytest.raises(ValueError) as caught:
        settings(node)
    assert says in str(caught.value)
