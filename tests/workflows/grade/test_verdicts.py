"""What `srpo grade` makes of a reward function that gives no verdict, or knows other data sources than reward_fns."""

import pytest

from reward_fns import UnknownDataSource, compute_score
from workflows.grade.completions import Completion
from workflows.grade.verdicts import grade_all, of_mode, of_reward, why_undecided

OWN = [Completion("of_nobody", text, "5", {}, None) for text in ("4", "5", "0")]


def _graded(function):
    return grade_all(OWN, {"reward": of_reward(function), "strict": of_mode("strict")}, threads=1)


def test_a_source_that_only_ones_own_reward_knows():
    graded = _graded(lambda solution_str, ground_truth, **row: solution_str == ground_truth)
    assert [row.verdicts["reward"].score for row in graded] == [0.0, 1.0, 0.0]
    assert {row.verdicts["strict"].score for row in graded} == {None}
    assert why_undecided(graded) == ""


def test_why_a_reward_has_no_verdict_is_said():
    graded = _graded(lambda **row: None)
    assert all(row.undecided for row in graded)
    assert why_undecided(graded) == "no verdict of the reward on 3 of 3: its score is missing: None"


def test_one_answer_without_a_verdict_does_not_hide_the_others():
    graded = _graded(lambda solution_str, **row: 1 / int(solution_str))
    assert [row.undecided for row in graded] == [False, False, True]
    assert "on 1 of 3: the function raises ZeroDivisionError" in why_undecided(graded)


def test_a_reward_that_cannot_grade_here_is_an_error():
    with pytest.raises(UnknownDataSource):
        _graded(compute_score)
