"""Reward functions in TRL's form, and verl's default, give our result for every sample."""

import pytest

from reward_fns import RESULT_KEYS
from reward_fns.adapters import trl, verl_default
from reward_fns.result import BadSettings

HERE = f"{__name__}:"


def accuracy(completions, solution, **kwargs):
    return [float(completion[0]["content"] == gold) for completion, gold in zip(completions, solution, strict=True)]


def brevity(prompts, completions, **kwargs):
    return [
        -len(completion[0]["content"]) / len(prompt) for prompt, completion in zip(prompts, completions, strict=True)
    ]


async def only_maths(completions, topic, **kwargs):
    return [1.0 if name == "maths" else None for name in topic]


def as_array(completions, **kwargs):
    return pytest.importorskip("numpy").array([0.5])


def of_texts(completions, **kwargs):
    return [float(len(text)) for text in completions]


def of_the_trainer(completions, completion_ids):
    return [0.0]


def two_values(completions, **kwargs):
    return [0.0, 1.0]


NOT_A_FUNCTION = 3


def grade(solution, *names, extra_info=None, gold="7", **settings):
    functions = [HERE + name for name in names]
    return trl.compute_score("any", solution, gold, extra_info, functions=functions, **settings)


def test_the_score_is_the_weighted_sum_and_the_first_function_says_who_is_right():
    extra = {"prompt": "1234567890", "topic": "maths"}
    result = grade("7", "accuracy", "brevity", "only_maths", extra_info=extra, weights=[2.0, 1.0, 0.5])
    assert result["score"] == pytest.approx(2.0 - 0.1 + 0.5)
    assert result["acc"] == 1.0
    assert (result["trl/accuracy"], result["trl/brevity"], result["trl/only_maths"]) == (1.0, -0.1, 1.0)
    wrong = grade("8", "accuracy", "only_maths", extra_info=extra)
    assert (wrong["score"], wrong["acc"]) == (1.0, 0.0)


def test_every_sample_has_the_same_keys():
    one = grade("7", "accuracy", "only_maths", extra_info={"topic": "maths"})
    other = grade("8", "accuracy", "only_maths", extra_info={"topic": "history"})
    undecided = grade("8", "only_maths", "only_maths", extra_info={"topic": "history"})
    assert one.keys() == other.keys()
    assert set(RESULT_KEYS) < set(one)
    assert other["infra_error"] == 0.0
    assert undecided["infra_error"] == 1.0, "nobody has a verdict: not a wrong answer"


def test_completions_as_text():
    assert grade("abc", "of_texts", conversational=False)["score"] == 3.0


@pytest.mark.parametrize(
    ("names", "settings", "says"),
    [
        (["nowhere"], {}, "cannot be imported as module:function"),
        (["NOT_A_FUNCTION"], {}, "is a int, not a function"),
        (["brevity"], {}, "missing a required argument: 'prompts'"),
        (["of_the_trainer"], {}, "TRL's own trainer"),
        (["accuracy"], {"weights": [1.0, 2.0]}, "1 functions and 2 weights"),
        ([], {}, "0 functions"),
    ],
)
def test_what_cannot_work_stops_the_run(names, settings, says):
    with pytest.raises(BadSettings, match=says):
        grade("7", *names, **settings)


def test_a_function_may_return_an_array():
    assert grade("7", "as_array")["score"] == 0.5


def test_a_function_must_return_one_value():
    with pytest.raises(TypeError, match="one number or None per completion"):
        grade("7", "two_values")


def test_verls_own_scores_stay_as_they_are():
    right = verl_default.compute_score("openai/gsm8k", "so it is #### 72", "72")
    assert (right["score"], right["acc"]) == (1.0, 1.0)
    dapo = verl_default.compute_score("math_dapo", "Answer: 5", "6")
    assert (dapo["score"], dapo["acc"], dapo["pred"]) == (-1.0, 0.0, "5")
    assert set(right) == set(dapo) == set(RESULT_KEYS)
    with pytest.raises(BadSettings, match="sandbox"):
        verl_default.compute_score("apps", "print(1)", "{}")
    with pytest.raises(NotImplementedError):
        verl_default.compute_score("unheard_of", "x", "x")
