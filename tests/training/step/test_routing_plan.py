"""Routing of a batch as verl has it: shuffled, padded, several outputs per session, verdicts that are missing."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srpo_verl import core
from srpo_verl.config import SRPOConfig
from srpo_verl.training.step.routing_plan import Rollout, build_plan, rollout_of
from srpo_verl.training.step.step_metrics import routing_metrics, tool_metrics

SRPO = SRPOConfig()


def rollout(key, score, **options):
    return Rollout(key=key, score=score, response_length=5, **options)


def group(uid, scores):
    return [rollout(f"{uid}_{session}_0", float(score)) for session, score in enumerate(scores)]


def test_table_6_whatever_the_order_of_the_rows():
    """correct = {y2, y5}: the failed y0 and y7 both learn from y2."""
    rows = group("x", [0, 0, 1, 0, 0, 1, 0, 0])
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        plan = build_plan(rows, SRPO)
        place = {row.key: index for index, row in enumerate(rows)}
        for session in (0, 1, 3, 4, 6, 7):
            row = place[f"x_{session}_0"]
            assert plan.routed[row]
            assert rows[int(plan.routing.demonstration[row])].key == "x_2_0"
        assert rows[int(plan.routing.demonstration[place["x_2_0"]])].key == "x_5_0"
        assert not plan.routed[place["x_2_0"]]
        assert not plan.routed[place["x_5_0"]]


def test_sessions_are_ordered_by_number_not_by_text():
    rows = [rollout("x_10_0", 1.0), rollout("x_2_0", 1.0), rollout("x_0_0", 0.0)]
    plan = build_plan(rows, SRPO)
    assert int(plan.routing.demonstration[2]) == 1


def test_padding_rows_are_nobodys_sibling():
    real = group("x", [0, 0])
    copies = [rollout(f"pad_{n}_0", 1.0, padding=True, reward_info={"acc": 1.0}) for n in range(2)]
    plan = build_plan([*real, *copies], SRPO)
    assert not plan.routed.any()
    assert plan.counted.tolist() == [True, True, False, False]
    assert plan.groups.groups == 1
    rewards = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert plan.advantages(rewards, SRPO, normalize_by_std=False).tolist() == [0, 0, 0, 0]


def test_the_verdict_is_acc_and_shaped_scores_do_not_change_it():
    rows = [
        rollout("x_0_0", 0.9, reward_info={"acc": 0.0}),
        rollout("x_1_0", 0.2, reward_info={"acc": True}),
        rollout("x_2_0", 0.7, reward_info={"acc": None}),
    ]
    plan = build_plan(rows, SRPO)
    assert plan.routing.correct.tolist() == [False, True, True]
    assert plan.routed.tolist() == [True, False, False]


@pytest.mark.parametrize(
    "bad",
    [
        {"score": float("nan")},
        {"score": float("inf")},
        {"score": 0.0, "reward_info": {"infra_error": 1.0}},
        {"score": 1.0, "reward_info": {"acc": "yes"}},
        {"score": 1.0, "reward_info": {"acc": float("nan")}},
    ],
)
def test_an_undecided_verdict_counts_nowhere(bad):
    rows = [*group("x", [1, 0, 0]), rollout("x_3_0", **bad)]
    plan = build_plan(rows, SRPO)
    assert plan.routed.tolist() == [False, True, True, False]
    advantages = plan.advantages(torch.tensor([1.0, 0.0, 0.0, bad["score"]]), SRPO, normalize_by_std=False)
    torch.testing.assert_close(advantages, torch.tensor([2 / 3, -1 / 3, -1 / 3, 0.0]))
    assert routing_metrics(plan)["srpo/infra_errors"] == 1


def test_several_outputs_per_session_count_once_and_share_the_advantage():
    """Only the last output of a session is compared and routed; the others get its advantage."""
    rows = [
        rollout("x_0_0", 1.0),
        rollout("x_0_1", 1.0),
        rollout("x_1_0", 0.0),
        rollout("x_1_1", 0.0),
        rollout("x_1_2", 0.0),
    ]
    plan = build_plan(rows, SRPO)
    assert plan.counted.tolist() == [False, True, False, False, True]
    assert plan.routed.tolist() == [False, False, False, False, True]
    assert int(plan.routing.demonstration[4]) == 1
    advantages = plan.advantages(torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]), SRPO, normalize_by_std=False)
    assert advantages.tolist() == [0.5, 0.5, -0.5, -0.5, -0.5]


def test_what_tools_said_to_failed_calls_is_shown_where_no_sibling_is_correct():
    srpo = SRPOConfig(providers=["sibling", "tool_feedback"])
    failed = core.turns_to_json([core.Turn("assistant", "x"), core.Turn("tool", "no such tool", failed=True)])
    turns = {"x_0_0": failed, "x_1_0": "[]", "y_0_0": failed, "y_1_0": "[]"}
    rows = [
        Rollout(key, float(key == "x_1_0"), 5, columns={"srpo_turns": text}, tool_counts=counts)
        for (key, text), counts in zip(
            turns.items(),
            (
                {"calls": 3, "failed": 2, "no_answer": 1},
                {"calls": 1, "failed": 0, "no_answer": 0},
                {"calls": 1, "failed": 1, "no_answer": 0},
                {"calls": 0, "failed": 0, "no_answer": 0},
            ),
            strict=True,
        )
    ]
    plan = build_plan(rows, srpo)
    assert plan.routed.tolist() == [True, False, True, False]
    assert [plan.shown(row) for row in range(4)] == [None, None, "Turn 1: no such tool", None]
    assert tool_metrics(plan) == {
        "srpo/tools/calls": 1.25,
        "srpo/tools/failed": 3.0,
        "srpo/tools/no_answer": 1.0,
        "srpo/tools/with_failure": 0.5,
    }
    assert tool_metrics(build_plan([Rollout("x_0_0", 0.0, 5)], SRPOConfig())) == {}


def test_feedback_only_when_asked_for():
    rows = [rollout(f"x_{n}_0", 0.0, reward_info={"feedback": text}) for n, text in enumerate(["Wrong sign.", " "])]
    assert not build_plan(rows, SRPO).routed.any()
    plan = build_plan(rows, SRPOConfig(providers=["sibling", "feedback"]))
    assert plan.routed.tolist() == [True, False]
    assert plan.routing.demonstration.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("response", "mask", "without_text"),
    [
        ([7, 8, 2], [1, 1, 1], False),
        ([7, 8, 2], [0, 0, 0], True),  # tool output
        ([7, 8, 2], [0, 0, 1], True),  # tool output, then the end
        ([2, 2, 2], [1, 1, 1], True),  # padding
        ([], [], True),
    ],
)
def test_a_row_without_text_of_the_model_is_compared_and_never_shown(response, mask, without_text):
    ids, ones = torch.tensor(response, dtype=torch.long), torch.tensor(mask, dtype=torch.long)

    def row(key, score):
        return rollout_of(key, {}, score, ids, ones, None, special_ids=torch.tensor([0, 1, 2]))

    assert row("x_0_0", 1.0).without_text == without_text
    as_demonstration = build_plan([row("x_0_0", 1.0), rollout("x_1_0", 0.0)], SRPO)
    assert as_demonstration.counted.tolist() == [True, True]
    assert as_demonstration.routed.tolist() == [False, not without_text]
    # It is distilled as any wrong answer, if there is a token of the model's to distil.
    as_wrong = build_plan([row("y_0_0", 0.0), rollout("y_1_0", 1.0)], SRPO)
    assert as_wrong.routed.tolist() == [sum(mask) > 0, False]


def test_seven_answers_that_only_end_and_a_right_one_are_learnt_from():
    """The mean is over all G (arXiv 2604.02288, 2.1): an answer that only ends is wrong, not absent."""
    rows = [rollout(f"x_{n}_0", 0.0, without_text=True) for n in range(7)] + [rollout("x_7_0", 1.0)]
    plan = build_plan(rows, SRPO, group_size=8)
    assert plan.routed.tolist() == [True] * 7 + [False]
    values = plan.policy_gradient_advantages(torch.tensor([0.0] * 7 + [1.0]), SRPO, normalize_by_std=False)
    assert values.tolist() == [0.0] * 7 + [0.875]


def test_earlier_outputs_of_a_distilled_session_have_no_policy_gradient():
    rows = [rollout("x_0_0", 1.0), rollout("x_0_1", 1.0), rollout("x_1_0", 0.0), rollout("x_1_1", 0.0)]
    plan = build_plan(rows, SRPO)
    rewards = torch.tensor([1.0, 1.0, 0.0, 0.0])
    values = plan.policy_gradient_advantages(rewards, SRPO, normalize_by_std=False)
    assert values.tolist() == [0.5, 0.5, 0.0, 0.0]
    half = replace(plan, routing=replace(plan.routing, share=0.5 * plan.routing.share))
    values = half.policy_gradient_advantages(rewards, SRPO, normalize_by_std=False)
    assert values.tolist() == [0.5, 0.5, -0.25, -0.25]


@pytest.mark.parametrize("normalize_by_std", [False, True])
@pytest.mark.parametrize(
    ("rows", "group_size", "expected"),
    [
        # Its siblings never arrived, were not graded, or are padding: nothing to compare with.
        ([("x_0_0", {})], 8, 0.0),
        ([("x_0_0", {}), ("x_1_0", {"reward_info": {"infra_error": 1.0}})], 2, 0.0),
        ([("x_0_0", {}), ("x_1_0", {"padding": True})], 2, 0.0),
        ([("x_0_0", {}), ("x_0_1", {})], 8, 0.0),
        # Sampled alone, of one output or of two: as verl has it, the reward itself.
        ([("x_0_0", {})], 1, 1.0),
        ([("x_0_0", {}), ("x_0_1", {})], 1, 1.0),
    ],
)
def test_the_advantage_of_a_lone_survivor(rows, group_size, expected, normalize_by_std):
    plan = build_plan([rollout(key, 1.0, **options) for key, options in rows], SRPO, group_size=group_size)
    values = plan.advantages(torch.ones(len(rows)), SRPO, normalize_by_std=normalize_by_std)
    assert float(values[0]) == pytest.approx(expected, abs=1e-5)


def test_rows_can_be_taken_out_of_the_route():
    plan = build_plan(group("x", [1, 0, 0]), SRPO)
    assert plan.without([1]).routed.tolist() == [False, False, True]
    assert plan.routed.tolist() == [False, True, True]


def test_metrics_by_route():
    metrics = routing_metrics(build_plan([*group("x", [1, 0, 0, 0]), *group("y", [0, 0, 0, 0])], SRPO))
    assert metrics["srpo/routed_share"] == 3 / 8
    assert metrics["srpo/accuracy"] == 1 / 8
    assert (metrics["srpo/groups/mixed"], metrics["srpo/groups/all_wrong"]) == (0.5, 0.5)
    assert (metrics["srpo/sdpo/accuracy"], metrics["srpo/grpo/accuracy"]) == (0.0, 0.2)


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=5), st.randoms())
def test_shuffling_rows_changes_nothing(groups, rng):
    rows = [row for number, scores in enumerate(groups) for row in group(f"u{number}", scores)]
    shuffled = rng.sample(rows, len(rows))
    one, other = build_plan(rows, SRPO), build_plan(shuffled, SRPO)

    def table(plan):
        return {
            row.key: (
                bool(plan.routed[index]),
                plan.rollouts[int(plan.routing.demonstration[index])].key
                if plan.routing.demonstration[index] >= 0
                else None,
            )
            for index, row in enumerate(plan.rollouts)
        }

    assert table(one) == table(other)
    assert one.groups == other.groups
