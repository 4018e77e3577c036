"""Routing: Tables 6 and 7 of the paper, providers, exclusion, and what must not depend on order or names."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srpo_verl.core import RULES, group_statistics, route


def naive_demonstration(correct: list[bool], groups: list, exclude: list[bool], empty: list[bool]) -> list[int]:
    found = []
    for i in range(len(correct)):
        siblings = [
            j
            for j in range(len(correct))
            if j != i and groups[j] == groups[i] and correct[j] and not (exclude[j] or exclude[i] or empty[j])
        ]
        found.append(siblings[0] if siblings else -1)
    return found


# (verdict, group, excluded, feedback, nothing to read) per rollout; few groups, so that they collide.
ROLLOUT = st.tuples(
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.sampled_from(["a", "b", "c"]),
    st.booleans(),
    st.sampled_from([None, "", "  \n", "off by one"]),
    st.booleans(),
)
BATCH = st.lists(ROLLOUT, max_size=20)


def routed(batch, **options):
    scores = torch.tensor([r[0] for r in batch])
    exclude = torch.tensor([r[2] for r in batch], dtype=torch.bool)
    options["not_shown"] = torch.tensor([r[4] for r in batch], dtype=torch.bool)
    return route(scores, [r[1] for r in batch], exclude=exclude, feedback=[r[3] for r in batch], **options)


def test_table_6_first_correct_sibling_self_excluded():
    scores = torch.zeros(8)
    scores[[2, 5]] = 1.0
    routing = route(scores, ["x"] * 8)
    assert routing.demonstration.tolist() == [2, 2, 5, 2, 2, 2, 2, 2]
    assert routing.to_sdpo.tolist() == [i not in (2, 5) for i in range(8)]


@pytest.mark.parametrize(
    ("verdicts", "available", "to_sdpo"),
    [
        pytest.param([1, 1, 0], True, False, id="correct, another correct: GRPO"),
        pytest.param([1, 0, 0], False, False, id="the only correct one: GRPO"),
        pytest.param([0, 1, 0], True, True, id="wrong, a correct sibling: SDPO"),
        pytest.param([0, 0, 0], False, False, id="whole group wrong: GRPO"),
    ],
)
def test_table_7(verdicts, available, to_sdpo):
    """The first rollout is the one the row of the table speaks of; a solved other group must not help it."""
    routing = route(torch.tensor([*verdicts, 1.0, 1.0]), ["x"] * 3 + ["solved"] * 2)
    assert bool(routing.teacher_available[0]) is available
    assert bool(routing.to_sdpo[0]) is to_sdpo
    assert bool(routing.correct[0]) is bool(verdicts[0])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("incorrect", [False, False, True, False]),
        ("correct", [True, True, False, False]),
        ("all", [True, True, True, False]),
        ("none", [False, False, False, False]),
    ],
)
def test_rows_choose_among_the_informed(rows, expected):
    routing = route(torch.tensor([1.0, 1.0, 0.0, 0.0]), ["x", "x", "x", "y"], rule=RULES[rows])
    assert routing.to_sdpo.tolist() == expected
    assert routing.demonstration.tolist() == [1, 0, 0, -1], "the demonstration does not depend on the route"
    assert routing.teacher_available.tolist() == [True, True, True, False]


def test_feedback_serves_only_where_no_sibling_does():
    routing = route(
        torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]),
        ["x", "x", "y", "y", "y"],
        feedback=["seen", "lone but correct", "wrong unit", " \n\t", None],
    )
    assert routing.providers == ("sibling", "feedback")
    assert routing.provider.tolist() == [0, 1, 1, -1, -1]
    assert routing.demonstration.tolist() == [1, -1, -1, -1, -1]
    assert routing.to_sdpo.tolist() == [True, False, True, False, False]


def test_correctness_is_the_score_at_the_threshold():
    scores = torch.tensor([0.49, 0.5, 0.51, -1.0])
    assert route(scores, ["x"] * 4).correct.tolist() == [False, True, True, False]
    assert route(scores, ["x"] * 4, threshold=0.51).correct.tolist() == [False, False, True, False]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_uniform_groups_stay_in_grpo(value):
    """Their advantages are all zero: a route taken from the sign of the advantage would send them to SDPO."""
    assert not route(torch.full((8,), value), ["x"] * 8).to_sdpo.any()


def test_excluded_rollouts_neither_give_nor_take():
    scores = torch.tensor([float("nan"), 1.0, 0.0, 1.0])
    exclude = torch.tensor([True, True, False, False])
    routing = route(scores, ["x"] * 4, exclude=exclude, feedback=["text"] * 4, rule=RULES["all"])
    assert routing.demonstration.tolist() == [-1, -1, 3, -1]
    assert routing.to_sdpo.tolist() == [False, False, True, True]
    assert routing.provider.tolist() == [-1, -1, 0, 1]
    assert routing.correct.tolist() == [False, False, False, True]


@given(BATCH)
def test_against_the_definition(batch):
    routing = routed(batch)
    correct = [r[0] >= 0.5 for r in batch]
    exclude = [r[2] for r in batch]
    demonstration = naive_demonstration(correct, [r[1] for r in batch], exclude, [r[4] for r in batch])
    assert routing.demonstration.tolist() == demonstration
    for i, (_, _, out, feedback, _) in enumerate(batch):
        informed = demonstration[i] >= 0 or bool((feedback or "").strip())
        assert bool(routing.teacher_available[i]) == (informed and not out)
        assert bool(routing.to_sdpo[i]) == (informed and not out and not correct[i])


@given(BATCH, st.randoms(use_true_random=False))
def test_order_of_the_rollouts(batch, rng):
    """Everything but the demonstration moves with its rollout. Which sibling is FIRST depends on the order of the
    rollouts, so of the demonstration only this is kept: whether there is one, and that it is a correct other rollout of
    the group. A permutation that keeps the order within each group keeps the demonstration itself."""
    before = routed(batch)
    order = list(range(len(batch)))
    rng.shuffle(order)
    after = routed([batch[i] for i in order])
    for name in ("to_sdpo", "teacher_available", "correct", "provider"):
        assert getattr(after, name).tolist() == getattr(before, name)[order].tolist(), name
    for position, i in enumerate(order):
        found = after.demonstration[position].item()
        assert (found >= 0) == (before.demonstration[i].item() >= 0)
        if found >= 0:
            assert found != position
            assert batch[order[found]][1] == batch[i][1]
            assert batch[order[found]][0] >= 0.5

    stable = sorted(range(len(batch)), key=lambda i: batch[i][1])
    after = routed([batch[i] for i in stable])
    mapped = [stable[j] if j >= 0 else -1 for j in after.demonstration.tolist()]
    assert mapped == before.demonstration[stable].tolist()


@given(BATCH)
def test_names_of_the_groups_do_not_matter(batch):
    before = routed(batch)
    after = routed([(score, {"a": 7, "b": ("b", 1), "c": "a"}[group], *rest) for score, group, *rest in batch])
    assert after.to_sdpo.tolist() == before.to_sdpo.tolist()
    assert after.demonstration.tolist() == before.demonstration.tolist()


@given(BATCH)
def test_groups_can_be_routed_apart(batch):
    whole = routed(batch)
    for group in "abc":
        members = [i for i, rollout in enumerate(batch) if rollout[1] == group]
        part = routed([batch[i] for i in members])
        assert part.to_sdpo.tolist() == whole.to_sdpo[members].tolist()
        mapped = [members[j] if j >= 0 else -1 for j in part.demonstration.tolist()]
        assert mapped == whole.demonstration[members].tolist()


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.bool, torch.int64]
)
def test_dtypes_of_scores(dtype):
    assert route(torch.tensor([0, 1, 0]).to(dtype), [1, 1, 2]).to_sdpo.tolist() == [True, False, False]


@pytest.mark.parametrize(
    "groups",
    [
        np.array(["u", "u", "v"], dtype=object),
        np.array(["u", "u", "v"]),
        torch.tensor([4, 4, 2]),
        ("u", "u", "v"),
        [("u", 0), ("u", 0), None],
    ],
)
def test_kinds_of_group_labels(groups):
    assert route(torch.tensor([0.0, 1.0, 0.0]), groups).to_sdpo.tolist() == [True, False, False]


def test_empty_batch():
    routing = route(torch.empty(0), [])
    assert routing.to_sdpo.shape == routing.demonstration.shape == (0,)


def test_statistics():
    scores = torch.tensor([1, 1, 0, 0, 1, 0, 1, float("nan"), float("nan")])
    groups = ["solved", "solved", "lost", "lost", "mixed", "mixed", "single", "single", "ungraded"]
    exclude = torch.isnan(scores)
    statistics = group_statistics(scores, groups, exclude=exclude)
    assert (statistics.groups, statistics.all_correct, statistics.all_wrong, statistics.mixed) == (4, 0.5, 0.25, 0.25)
    assert group_statistics(scores >= 0.5, groups, exclude=exclude) == statistics
    solved_by_the_excluded = group_statistics(torch.tensor([1.0, 0.0]), "xx", exclude=torch.tensor([True, False]))
    assert solved_by_the_excluded.all_wrong == 1.0
    assert group_statistics(torch.empty(0), []) == type(statistics)(0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("scores", "groups", "options", "message"),
    [
        (torch.tensor([0.0, float("nan")]), "xx", {}, "rollout 1 is NaN"),
        (torch.zeros(2), "x", {}, "1 entries for 2 rollouts"),
        (torch.zeros(2, 3), "xx", {}, "shape"),
        (torch.zeros(2), [[1], [1]], {}, "hashable"),
        (torch.zeros(2), "xx", {"columns": [{}]}, "columns must be a sequence of 2"),
        (torch.zeros(2), "xx", {"feedback": ["a"]}, "feedback must be a sequence of 2"),
        (torch.zeros(2), "xx", {"feedback": "ab"}, "feedback must be a sequence of 2"),
        (torch.zeros(2), "xx", {"feedback": [None, 3.0]}, "rollout 1 is a float"),
        (torch.zeros(2), "xx", {"exclude": torch.zeros(3)}, "exclude must have one entry per rollout"),
        (torch.zeros(2), "xx", {"not_shown": torch.zeros(3)}, "not_shown must have one entry per rollout"),
    ],
)
def test_errors_say_what_to_change(scores, groups, options, message):
    with pytest.raises(ValueError, match=message):
        route(scores, groups, **options)


def test_thousands_of_groups_are_fast():
    count = 32_768
    scores = (torch.arange(count) % 3 == 0).double()
    started = time.process_time()
    routing = route(scores, [f"prompt-{i // 8}" for i in range(count)], feedback=["text"] * count)
    assert time.process_time() - started < 2.0, "quadratic work takes minutes here, linear work 0.03 s"
    assert routing.to_sdpo.sum() == (scores < 0.5).sum()
