"""A reward function that a run could not use is found before it starts."""

import pandas as pd
import pytest

import reward_fns
from workflows.compose_config import compose_config
from workflows.doctor.check import Status
from workflows.doctor.reward_checks import check_reward


def row(source, gold="1", **columns):
    prompt = [{"role": "user", "content": "?"}]
    return {"data_source": source, "prompt": prompt, "reward_model": {"ground_truth": gold}, **columns}


@pytest.fixture
def checked(tmp_path):
    def check(*rows, **overrides):
        file = tmp_path / "data.parquet"
        pd.DataFrame(list(rows)).to_parquet(file)
        named = "reward.custom_reward_function"
        keys = {"path": f"{named}.path", "name": f"{named}.name", "kwargs": f"+{named}.reward_kwargs"}
        given = [f"{keys[key]}={value}" for key, value in overrides.items()]
        files = [f"data.train_files={file}", f"data.val_files={file}", "platform=cpu"]
        return list(check_reward(compose_config("srpo", [*files, *given])))

    return check


@pytest.fixture
def sums():
    @reward_fns.register("sums of the doctor")
    def grade(solution, ground_truth, extra_info, *, need_marker=False):
        return float(solution == ground_truth)

    yield
    reward_fns.registry.unregister("sums of the doctor")


def test_graders_that_give_verdicts(checked, sums):
    found = checked(row("gsm8k"), row("sums of the doctor"), row("sums of the doctor"))
    assert [one.status for one in found] == [Status.OK] * 2
    # Both files are the same here.
    assert found[0].found == "data source 'gsm8k': 2 rows, reward_fns.graders.math gives a verdict"
    assert "4 rows" in found[1].found
    assert __name__ in found[1].found


def test_a_data_source_that_no_grader_knows(checked, sums):
    (found,) = checked(row("sums of the doctr"))
    assert found.status is Status.FAIL
    assert "Did you mean 'sums of the doctor'?" in found.found


def test_a_mistyped_setting_of_ones_own_grader(checked, sums):
    assert checked(row("sums of the doctor"), kwargs="{need_marker: true}")[0].status is Status.OK
    (found,) = checked(row("sums of the doctor"), kwargs="{need_markr: true}")
    assert found.status is Status.FAIL
    assert "need_markr" in found.found


def test_one_row_with_a_bad_gold_answer_says_nothing_of_the_grader(checked):
    assert checked(row("mcq", gold="no letter"), row("mcq", gold="A"))[0].status is Status.OK
    (found,) = checked(row("mcq", gold="no letter"))
    assert found.status is Status.FAIL
    assert "BadGroundTruth" in found.found


def test_rows_without_a_source_or_gold_are_the_preflights_to_say(checked):
    assert checked(row(""), row("gsm8k", gold=None), row("gsm8k", gold="1"))[0].status is Status.OK
    assert checked(row("gsm8k", gold=None), row("", gold="1")) == []


def test_the_first_rows_of_each_source_wherever_they_are(checked, sums):
    asked = []

    @reward_fns.register("late")
    def grade(solution, ground_truth, extra_info):
        asked.append((ground_truth, extra_info["place"]))
        raise ValueError("never")

    try:
        others = [row("gsm8k", extra_info={"place": 0})] * 40
        late = [row("late", gold=str(n), extra_info={"place": n}) for n in range(5)]
        _, found = checked(*others, *late, *others)
    finally:
        reward_fns.registry.unregister("late")
    assert "10 rows" in found.found
    assert "ValueError: never" in found.found
    assert list(dict.fromkeys(asked)) == [("0", 0), ("1", 1), ("2", 2)]


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        ("def compute_score(data_source, solution_str, ground_truth, extra_info): return 0.0", Status.OK, ""),
        ("async def compute_score(**arguments): return {'score': 0.0}", Status.OK, ""),
        ("def compute_score(extra_info, **arguments): return extra_info['level']", Status.WARN, "KeyError: 'level'"),
        ("def compute_score(**arguments): return None", Status.WARN, "its score is missing: None"),
        ("def compute_score(**arguments): return -1.0", Status.WARN, "its score is out of range: -1.0"),
        ("def compute_score(**arguments): raise SystemExit(0)", Status.WARN, "the function raises SystemExit: 0"),
        ("def other(): ...", Status.FAIL, "custom_reward_function: the reward compute_score of "),
    ],
)
def test_a_function_of_ones_own(checked, tmp_path, code, status, says):
    (tmp_path / "mine.py").write_text(code)
    (found,) = checked(row("anything"), path=tmp_path / "mine.py")
    assert found.status is status
    assert says in found.found


def test_the_agents_own_reward_is_told_of_turns(tmp_path):
    file = tmp_path / "data.parquet"
    pd.DataFrame([row("tiny_agent")]).to_parquet(file)
    config = compose_config("srpo_agent_tiny", [f"data.train_files={file}", f"data.val_files={file}"])
    assert [one.status for one in check_reward(config)] == [Status.OK]
