"""Advantages, weights and metrics of a whole batch; what a variant may and may not do to them."""

import math

import pytest
import torch

from srpo_verl import register
from srpo_verl.config import SRPOConfig
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from srpo_verl.training.step.step_signals import RoutedTokens, StepView, step_signals, variant_metrics
from srpo_verl.variants import VariantError


def batch(srpo, scores=(0, 1, 0), lengths=None):
    """Plan, rewards and masks of one group."""
    lengths = lengths or [2] * len(scores)
    rollouts = [
        Rollout(f"x_{n}_0", float(s), length) for n, (s, length) in enumerate(zip(scores, lengths, strict=True))
    ]
    rewards = torch.tensor([float(score) for score in scores])
    return build_plan(rollouts, srpo), {"rewards": rewards, "masks": [torch.ones(n) for n in lengths]}


def tokens_of(entropy: dict[int, list[float]], **others) -> RoutedTokens:
    rows = [torch.tensor(values) for values in entropy.values()]
    zeros = [torch.zeros_like(row) for row in rows]
    fields = {"student_entropy": zeros, "teacher_log_probs": zeros, "student_log_probs": zeros, **others}
    return RoutedTokens(list(entropy), rows, **fields)


def signals_of(srpo, entropy, *, masks=None, scores=(0, 1, 0), **others):
    plan, given = batch(srpo, scores, lengths=[len(entropy.get(row, [0, 0])) for row in range(len(scores))])
    given |= {"masks": masks} if masks else {}
    return step_signals(plan, srpo, normalize_by_std=False, tokens=tokens_of(entropy, **others), **given)


def test_values_of_three_tokens():
    """H = (.1, .5, 1.2) with beta 1 gives (1.497610, 1.003878, 0.498511)."""
    found = signals_of(SRPOConfig(), {0: [0.1, 0.5], 2: [1.2]})
    assert [row.numel() for row in found.weights] == [2, 0, 1]
    expected = torch.tensor([1.497610, 1.003878, 0.498511])
    torch.testing.assert_close(torch.cat(found.weights), expected, atol=1e-6, rtol=0)
    assert found.routed_tokens == 3
    assert found.metrics["srpo/weight/max"] == pytest.approx(1.497610, abs=1e-6)


def test_masked_tokens_have_no_weight_and_do_not_enter_the_mean():
    masks = [torch.tensor([1.0, 0.0, 1.0]), torch.ones(2), torch.zeros(0)]
    found = signals_of(SRPOConfig(), {0: [0.3, 5.0, 0.3], 2: []}, masks=masks)
    assert found.weights[0].tolist() == pytest.approx([1.0, 0.0, 1.0])
    assert found.routed_tokens == 2


def test_every_turn_counts_alike_in_both_branches_and_the_means_stay():
    """Turns of 1 and 2 tokens distilled, of 2 and 1 reinforced; without entropy weights the factors are 3/2 and 3/4."""
    masks = [torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.ones(0)]
    srpo = SRPOConfig(turn_mean=True, beta=0.0)
    found = signals_of(srpo, {0: [0.3, 9.0, 0.3, 0.7], 1: [0.0] * 4, 2: []}, masks=masks, scores=(0, 1, 0))
    assert found.weights[0].tolist() == pytest.approx([1.5, 0.0, 0.75, 0.75])
    assert found.advantages[1].tolist() == pytest.approx([2 / 3 * 0.75, 2 / 3 * 0.75, 0.0, 2 / 3 * 1.5])


def test_turns_of_a_rollout_without_a_verdict_weigh_on_nobody():
    srpo = SRPOConfig(turn_mean=True, route="none")
    plan, given = batch(srpo, (0, 1, math.nan), lengths=[2, 2, 200])
    found = step_signals(plan, srpo, normalize_by_std=False, tokens=None, **given)
    assert [row[0].item() for row in found.advantages] == pytest.approx([-0.5, 0.5, 0.0])


def test_a_token_that_was_rejected_does_not_part_a_turn():
    """The turns are those of the rollout; of three tokens of one turn the middle one was rejected."""
    srpo = SRPOConfig(turn_mean=True, beta=0.0)
    plan, given = batch(srpo, (0, 1), lengths=[5, 1])
    given["masks"] = [torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]), torch.ones(1)]
    turns = [torch.tensor([0, 0, 0, -1, 1]), torch.tensor([0])]
    tokens = tokens_of({0: [0.1] * 5})
    found = step_signals(plan, srpo, normalize_by_std=False, tokens=tokens, turns=turns, **given)
    assert found.weights[0].tolist() == pytest.approx([0.75, 0.0, 0.75, 0.0, 1.5])


def test_rejected_tokens_are_counted_in_the_denominator_that_is_replaced():
    """verl divides by its 6 tokens, one of which was rejected; 2 are distilled."""
    srpo = SRPOConfig(denominator="distilled_tokens")
    plan, given = batch(srpo, (0, 1), lengths=[2, 4])
    given["masks"] = [torch.ones(2), torch.tensor([1.0, 1.0, 0.0, 1.0])]
    turns = [torch.zeros(2, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)]
    found = step_signals(plan, srpo, normalize_by_std=False, tokens=tokens_of({0: [0.1] * 2}), turns=turns, **given)
    assert found.denominator_scale == 6 / 2


def test_importance_weights_multiply():
    importance = [torch.tensor([2.0, 0.5]), torch.tensor([1.0, 1.0])]
    found = signals_of(SRPOConfig(), {0: [0.3, 0.3], 2: [0.3, 0.3]}, importance=importance)
    assert torch.cat(found.weights).tolist() == pytest.approx([2.0, 0.5, 1.0, 1.0])
    assert found.metrics["srpo/weight/max"] == pytest.approx(1.0), "the metric is of the entropy weights alone"


def test_advantages_are_zero_where_distilled_and_over_the_whole_group_elsewhere():
    found = signals_of(SRPOConfig(), {0: [0.1, 0.5], 2: [1.2, 0.1]})
    expected = [[0.0, 0.0], [2 / 3, 2 / 3], [0.0, 0.0]]
    assert [row.tolist() for row in found.advantages] == [pytest.approx(row) for row in expected]
    assert found.metrics["srpo/grpo/with_advantage"] == pytest.approx(1 / 3)


def test_advantage_mix_by_hand():
    srpo = SRPOConfig(route="incorrect", policy_gradient="all", advantage_mix=0.1)
    masks = [torch.ones(2), torch.tensor([1.0, 0.0])]
    found = signals_of(
        srpo,
        {1: [0.0, 0.0]},
        scores=(1, 0),
        masks=masks,
        teacher_log_probs=[torch.tensor([-0.5, -1.0])],
        student_log_probs=[torch.tensor([-2.0, -2.0])],
    )
    assert found.advantages[0].tolist() == pytest.approx([0.45, 0.45])
    assert found.advantages[1].tolist() == pytest.approx([-0.45 + 0.15, 0.0])


def test_nothing_routed():
    srpo = SRPOConfig()
    plan, given = batch(srpo, (0, 0))
    found = step_signals(plan, srpo, normalize_by_std=False, tokens=None, **given)
    assert (found.routed_tokens, [row.numel() for row in found.weights]) == (0, [0, 0])
    assert [row.tolist() for row in found.advantages] == [[0.0, 0.0]] * 2


def test_a_soft_route_splits_a_rollout_between_the_branches():
    """z = 1/4: a quarter of the divergence, three quarters of the advantage; the weights' mean of 1 is before it."""
    register.route("a quarter")(lambda rollouts, available, srpo: 0.25 * (~rollouts.correct).double())
    srpo = SRPOConfig(route="a quarter", beta=0.0)
    found = signals_of(srpo, {0: [0.1, 0.5], 2: [1.2, 0.1]})
    assert torch.cat(found.weights).tolist() == pytest.approx([0.25] * 4)
    assert found.advantages[0].tolist() == pytest.approx([-0.75 / 3] * 2)
    assert found.advantages[1].tolist() == pytest.approx([2 / 3] * 2)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (lambda tokens, srpo: tokens.teacher_entropy[:-1], r"must be a tensor \(4,\)"),
        (lambda tokens, srpo: -tokens.teacher_entropy, "4 of 4 raw weights are negative or not finite"),
        (lambda tokens, srpo: tokens.teacher_entropy / 0, "4 of 4 raw weights are negative or not finite"),
        (lambda tokens, srpo: 0 * tokens.teacher_entropy, "must be a positive number"),
        (lambda tokens, srpo: [1.0] * 4, "not list"),
        (lambda tokens, srpo: tokens.unknown, "AttributeError"),
    ],
)
def test_a_hostile_weighting_is_named(raw, message, request):
    name = f"hostile weighting {request.node.name}"
    register.weighting(name)(raw)
    with pytest.raises(VariantError, match=message) as caught:
        signals_of(SRPOConfig(weighting=name), {0: [0.1, 0.5], 2: [1.2, 0.1]})
    assert f"srpo.weighting={name}" in str(caught.value)


def test_a_weighting_of_both_sides_keeps_the_mean_of_one():
    @register.weighting("gap of entropies")
    def gap(tokens, srpo):
        return (tokens.student_entropy - tokens.teacher_entropy).clamp(min=0)

    student = [torch.tensor([1.1, 0.5]), torch.tensor([1.2, 3.1])]
    found = signals_of(
        SRPOConfig(weighting="gap of entropies"), {0: [0.1, 0.5], 2: [1.2, 0.1]}, student_entropy=student
    )
    assert torch.cat(found.weights).tolist() == pytest.approx([1.0, 0.0, 0.0, 3.0])


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (lambda rewards, srpo: rewards.rewards / 0, "3 finite numbers"),
        (lambda rewards, srpo: rewards.rewards[:1], "3 finite numbers"),
        (lambda rewards, srpo: 1.0, "3 finite numbers"),
    ],
)
def test_a_hostile_baseline_is_named(baseline, message, request):
    name = f"hostile baseline {request.node.name}"
    register.advantage(name)(baseline)
    srpo = SRPOConfig(route="none", policy_gradient="all", advantage=name)
    plan, given = batch(srpo)
    with pytest.raises(VariantError, match=message) as caught:
        step_signals(plan, srpo, normalize_by_std=False, tokens=None, **given)
    assert f"srpo.advantage={name}" in str(caught.value)


def test_excluded_rows_are_not_shown_to_a_baseline_and_get_nothing():
    seen = []

    @register.advantage("looks at everything")
    def one(rewards, srpo):
        seen.append(rewards.rewards.tolist())
        return torch.ones_like(rewards.rewards)

    srpo = SRPOConfig(route="none", policy_gradient="all", advantage="looks at everything")
    rollouts = [
        Rollout("x_0_0", 1.0, 2),
        Rollout("x_1_0", 7.0, 2, reward_info={"infra_error": 1}),
        Rollout("x_2_0", 0.0, 2),
        Rollout("y_0_0", 1.0, 2),
        Rollout("y_1_0", math.nan, 2),
        Rollout("pad_0_0", 1.0, 1, padding=True),
    ]
    rewards = torch.tensor([r.score for r in rollouts])
    plan = build_plan(rollouts, srpo)
    masks = [torch.ones(2)] * 5 + [torch.zeros(1)]
    found = step_signals(plan, srpo, rewards=rewards, masks=masks, normalize_by_std=False, tokens=None)
    assert seen == [[1.0, 0.0, 1.0]]
    # The last one that counts of its group has nothing to be compared with.
    assert [row[0].item() for row in found.advantages] == [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]


def test_leave_one_out_by_hand():
    srpo = SRPOConfig(route="none", policy_gradient="all", advantage="leave_one_out")
    plan, given = batch(srpo, (0, 1, 0))
    found = step_signals(plan, srpo, normalize_by_std=False, tokens=None, **given)
    assert [row[0].item() for row in found.advantages] == pytest.approx([-0.5, 1.0, -0.5])


def view_of(srpo):
    plan, given = batch(srpo)
    signals = step_signals(plan, srpo, normalize_by_std=False, tokens=None, **given)
    responses = [torch.tensor([n, n]) for n in range(3)]
    return StepView(plan, responses, given["masks"], None, signals, lambda ids: f"text {ids.tolist()}")


def test_a_metric_is_logged_under_its_name():
    @register.metric("longest")
    def longest(step, srpo):
        return {"tokens": max(len(row) for row in step.responses), "text": len(step.decode(step.responses[0]))}

    srpo = SRPOConfig(route="none", policy_gradient="all", metrics=["longest"])
    assert variant_metrics(view_of(srpo), srpo) == {"srpo/metric/longest/tokens": 2.0, "srpo/metric/longest/text": 11.0}


@pytest.mark.parametrize("answer", [{"x": math.nan}, {"x": "many"}, {"x": torch.zeros(2)}, 3.0])
def test_a_hostile_metric_is_named(answer, request):
    name = f"hostile metric {request.node.name}"
    register.metric(name)(lambda step, srpo: answer)
    srpo = SRPOConfig(route="none", policy_gradient="all", metrics=[name])
    with pytest.raises(VariantError, match="hostile metric"):
        variant_metrics(view_of(srpo), srpo)
