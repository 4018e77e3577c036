"""Rewards on another scale than the allowed one stop the run; a grader's mistakes do not."""

import pytest

from srpo_verl.config import SRPOConfig
from srpo_verl.core import checked_verdict
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from srpo_verl.training.step.score_range import ScoreRange, ScoreRangeError

SRPO = SRPOConfig()


def batch(scores, srpo=SRPO):
    rows = []
    for number, given in enumerate(scores):
        score, info, problem = checked_verdict(given, None, allowed=srpo.score_range)
        info |= {"bad_score": problem} if problem else {}
        rows.append(Rollout(f"x_{number}_0", score, 5, reward_info=info))
    return build_plan(rows, srpo, group_size=len(rows))


@pytest.mark.parametrize("scores", [[1.0, -1.0, -1.0, -1.0], [-1.0] * 4, [1.0] * 18 + [-1.0] * 2])
def test_wrong_answers_of_minus_one_stop_the_run_and_say_what_to_set(scores):
    with pytest.raises(ScoreRangeError, match=r"srpo\.score_range=\[0\.0, 1\.0\].*Set srpo\.score_range .*\[-1,1\]"):
        ScoreRange(SRPO).look(batch(scores))


@pytest.mark.parametrize("scores", [[1.0] * 19 + [-1.0], [1.0, 0.0, -1.0, -1.0], [1.0] * 4, [None, None, 1.0]])
def test_single_mistakes_and_other_faults_of_a_grader_do_not(scores):
    ScoreRange(SRPO).look(batch(scores))


def test_after_a_wrong_answer_inside_the_range_nothing_stops_it():
    found = ScoreRange(SRPO)
    found.look(batch([1.0, 0.0]))
    found.look(batch([1.0, -1.0, -1.0]))


def test_the_range_that_is_advised_is_accepted():
    srpo = SRPOConfig(score_range=[-1.0, 1.0])
    plan = batch([1.0, -1.0, -1.0, -1.0], srpo)
    ScoreRange(srpo).look(plan)
    assert plan.routed.tolist() == [False, True, True, True]
