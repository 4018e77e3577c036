"""A reward function asked outside a run: what it says, and everything that is no verdict."""

import re

import pytest

from reward_fns import UnknownDataSource, compute_score
from reward_fns.result import BadSettings
from workflows.reward_call import DEFAULT, ask, load_reward


def asked(reward, answer="5", extra=None, **options):
    return ask(reward, source="of_nobody", answer=answer, gold="5", extra=extra, **options)


def _raises(error):
    def reward(**row):
        raise error

    return reward


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        (_raises(RuntimeError("boom")), "the function raises RuntimeError: boom"),
        (_raises(SystemExit(0)), "the function raises SystemExit: 0"),
        (lambda **row: None, "its score is missing: None"),
        (lambda **row: (1.0, "x"), "its score is not a number: (1.0, 'x')"),
        (lambda **row: float("nan"), "its score is not finite: nan"),
        (lambda **row: {"acc": 1}, "its score is missing: {'acc': 1}"),
        (lambda **row: {"score": 1.0, "acc": "yes"}, "its score is not a number: {'acc': 'yes', 'score': 1.0}"),
        (lambda **row: {"score": 0, "infra_error": 1}, "the gold answer or the sandbox cannot be used"),
        (lambda **row: {"score": 0, "infra_error": 1, "error": "no network"}, "no network"),
        (lambda **row: {"score": None, "infra_error": 1, "error": "no network"}, "no network"),
    ],
)
def test_what_is_no_verdict_is_said(reward, says):
    assert asked(reward).why == says


@pytest.mark.parametrize("given", [1, 1.0, True, {"score": 1.0}, {"score": 1.0, "acc": None, "infra_error": 0.0}])
def test_what_is_a_verdict(given):
    reply = asked(lambda **row: given)
    assert (reply.score, reply.why) == (1.0, "")
    assert "acc" not in reply.info


def test_a_score_that_the_run_would_not_take():
    assert asked(lambda **row: -1.0).why == ""
    assert asked(lambda **row: -1.0, allowed=[0.0, 1.0]).why == "its score is out of range: -1.0"
    assert asked(lambda **row: -1.0, allowed=[-1.0, 1.0]).score == -1.0


def test_what_the_function_is_told():
    told, extra = {}, {"level": 3}

    def reward(**row):
        told.update(row)
        row["extra_info"]["level"] = 4
        return 0.0

    asked(reward, "4", extra)
    assert told == {"data_source": "of_nobody", "solution_str": "4", "ground_truth": "5", "extra_info": {"level": 4}}
    assert extra == {"level": 3}


@pytest.mark.parametrize("error", [BadSettings("wrong"), UnknownDataSource("unknown")])
def test_a_reward_that_cannot_grade_here_is_an_error(error):
    with pytest.raises(type(error)):
        asked(_raises(error))
    with pytest.raises(UnknownDataSource):
        asked(compute_score)


def test_functions_are_loaded_as_verl_loads_them(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "def plain(solution_str, ground_truth, bonus=0.0, **row):\n"
        "    return float(solution_str == ground_truth) + bonus\n"
        "async def slow(**row):\n"
        "    return {'score': 0.5}\n"
    )
    assert asked(load_reward(str(mine), "plain")).score == 1.0
    assert asked(load_reward(str(mine), "plain", {"bonus": 0.25})).score == 1.25
    assert asked(load_reward(str(mine), "slow")).score == 0.5
    assert ask(load_reward(DEFAULT), source="gsm8k", answer="#### 5", gold="5", extra=None).score == 1.0


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def other(): ...", r"cannot be imported \(AttributeError: .*compute_score"),
        ("import no_such_module_here", r"cannot be imported \(ModuleNotFoundError: No module named 'no_such_module"),
        ("def compute_score(:", r"cannot be imported \(SyntaxError: invalid syntax"),
        ("raise ValueError('set MY_KEY first')", r"cannot be imported \(ValueError: set MY_KEY first\)$"),
        ("import sys; sys.exit('no key')", r"cannot be imported \(SystemExit: no key\)$"),
        ("compute_score = 1.0", r"is no function but 1\.0$"),
    ],
)
def test_a_file_without_a_reward_says_why(tmp_path, code, says):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(ValueError, match=rf"^the reward compute_score of .*mine\.py {says}"):
        load_reward(str(tmp_path / "mine.py"))


def test_a_package_without_a_reward_says_why(tmp_path, monkeypatch):
    for path in ("/nowhere.py", str(tmp_path)):
        with pytest.raises(ValueError, match=f"^the reward f of {re.escape(path)} cannot be imported"):
            load_reward(path, "f")
    with pytest.raises(ValueError, match="absolute path of the folder that it is in on PYTHONPATH"):
        load_reward("pkg://no_such_module", "f")
    (tmp_path / "reward_that_exits.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"\(SystemExit: 0\)$"):
        load_reward("pkg://reward_that_exits", "f")
