"""No verdicts, and rewards on another scale than the allowed one, stop the run; a grader's mistakes do not."""

import math

import pytest

from srpo_verl.config import SRPOConfig
from srpo_verl.core import checked_verdict
from srpo_verl.training.step.first_verdicts import FirstVerdicts, NoVerdictError, ScoreRangeError
from srpo_verl.training.step.routing_plan import Rollout, build_plan

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
        FirstVerdicts(SRPO).look(batch(scores))


@pytest.mark.parametrize("scores", [[1.0] * 19 + [-1.0], [1.0, 0.0, -1.0, -1.0], [1.0] * 4, [None, None, 1.0]])
def test_single_mistakes_and_other_faults_of_a_grader_do_not(scores):
    FirstVerdicts(SRPO).look(batch(scores))


def test_after_a_wrong_answer_inside_the_range_nothing_stops_it():
    found = FirstVerdicts(SRPO)
    found.look(batch([1.0, 0.0]))
    found.look(batch([1.0, -1.0, -1.0]))


def test_the_range_that_is_advised_is_accepted():
    srpo = SRPOConfig(score_range=[-1.0, 1.0])
    plan = batch([1.0, -1.0, -1.0, -1.0], srpo)
    FirstVerdicts(srpo).look(plan)
    assert plan.routed.tolist() == [False, True, True, True]


def raised(count, *, decided=0):
    """A batch whose grader raised for `count` answers."""
    info = {"infra_error": 1.0, "error": "KeyError: 'answer'"}
    rows = [
        Rollout(f"x_{number}_0", 0.0, 5, reward_info=info if number < count else {})
        for number in range(count + decided)
    ]
    return build_plan(rows, SRPO, group_size=len(rows))


def test_a_batch_without_a_verdict_stops_the_run_and_says_why():
    with pytest.raises(NoVerdictError, match=r"none of 8 answers got a verdict.*: KeyError: 'answer'\. Mend"):
        FirstVerdicts(SRPO).look(raised(8))
    with pytest.raises(NoVerdictError, match="its score is not a number"):
        FirstVerdicts(SRPO).look(batch(["1", "0"]))
    with pytest.raises(NoVerdictError, match=r"its score is missing \(and 1 other reasons\)"):
        FirstVerdicts(SRPO).look(batch([None, None, math.nan]))


def test_one_verdict_is_enough_and_an_outage_later_is_the_guards_to_watch():
    found = FirstVerdicts(SRPO)
    found.look(raised(1))
    found.look(raised(7, decided=1))
    found.look(raised(8))


def test_padding_is_no_answer():
    rows = [Rollout("x_0_0", 1.0, 5), Rollout("x_1_0", 0.0, 5, padding=True), Rollout("x_2_0", 0.0, 5, padding=True)]
    FirstVerdicts(SRPO).look(build_plan(rows, SRPO, group_size=3))


def test_a_data_source_of_the_validation_without_a_verdict_stops_the_run():
    sources = ["sums", "sums", "proofs", "proofs"]
    infos = {
        "infra_error": [0.0, 1.0, 1.0, 1.0],
        "error": ["", "a", "no prover", "no prover"],
        "reward": [1.0, 0, 0, 0],
    }
    with pytest.raises(NoVerdictError, match=r"none of 2 answers to questions of the data source proofs .*: no prover"):
        FirstVerdicts(SRPO).look_at_validation(sources, infos)


def test_a_data_source_that_had_a_verdict_once_may_fail_later():
    found = FirstVerdicts(SRPO)
    found.look_at_validation(["sums"] * 2, {"infra_error": [0.0, 1.0]})
    found.look_at_validation(["sums"] * 2, {"infra_error": [1.0, 1.0]})


def test_a_reward_function_that_tells_nothing_beside_its_score_is_welcome():
    FirstVerdicts(SRPO).look_at_validation(["sums"] * 2, {"reward": [0.0, 0.0]})
    FirstVerdicts(SRPO).look_at_validation(["sums"] * 2, {"infra_error": [None, None], "reward": [0.0, 0.0]})
