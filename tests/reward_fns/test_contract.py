"""The contract of ``compute_score``: fixed keys, plain types, an import that costs nothing, verl's own loader."""

import json
import subprocess
import sys
import threading

import pytest

import reward_fns
from reward_fns import compute_score, registry
from reward_fns.result import DEFAULTS, GraderUnavailable, make_result
from tests.patience import PROCESS

CASES = [
    ("tiny_arithmetic", "#### 12", "12", 1.0),
    ("tiny_arithmetic", "Answer: 12", "12", 1.0),
    ("tiny_arithmetic", r"\boxed{12}", "12", 1.0),
    ("tiny_arithmetic", "#### 13", "12", 0.0),
    ("smollm2_arithmetic", "7 + 5 = 12.", "12", 1.0),
    ("smollm2_arithmetic", "7 + 5 = 12, or 13", "12", 0.0),
    ("smollm2_arithmetic", "I do not know", "12", 0.0),
    ("gsm8k", "so\n#### 1,234", "1234", 1.0),
    ("sciknoweval", "<answer>\nA\n</answer>", "A", 1.0),
    ("sciknoweval", "<answer>B</answer>", "A", 0.0),
]


@pytest.mark.parametrize(("source", "solution", "gold", "expected"), CASES)
def test_verdicts_and_keys(source, solution, gold, expected):
    result = compute_score(source, solution, gold)
    assert tuple(result) == reward_fns.RESULT_KEYS
    assert result["score"] == result["acc"] == expected
    assert result["infra_error"] == 0.0
    for key, value in result.items():
        assert type(value) is type(DEFAULTS[key]), key
    json.dumps(result)


def test_import_is_light():
    code = (
        "import sys; before = {*sys.modules}; import reward_fns; loaded = {*sys.modules} - before;"
        "others = {m.partition('.')[0] for m in loaded} - sys.stdlib_module_names;"
        "assert others == {'reward_fns'}, others"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PROCESS)


def test_verl_loads_it_by_package_path():
    utils = pytest.importorskip("verl.utils.import_utils")
    assert utils.load_extern_object("pkg://reward_fns", "compute_score") is compute_score


def test_unknown_source_names_the_known_ones_and_the_nearest():
    with pytest.raises(reward_fns.UnknownDataSource) as error:
        compute_score("gsm9k", "", "")
    assert "Did you mean 'gsm8k'" in str(error.value)
    assert "sciknoweval*" in str(error.value)
    assert "srpo_verl.rewards" in str(error.value)


def test_register_needs_replace_to_take_a_name_over():
    with pytest.raises(ValueError, match="replace=True"):
        reward_fns.register("gsm8k")(lambda *_: 1)
    assert compute_score("gsm8k", "#### 3", "4")["score"] == 0.0


@pytest.fixture
def source():
    name = "contract_test_source"
    yield name
    registry.unregister(name)


def test_user_grader_gets_the_run_settings_and_declared_keys_reach_every_source(source):
    @reward_fns.register(source, extras={"my_metric": 0.0})
    def grader(solution, ground_truth, extra_info, *, bonus=0):
        return {"score": float(solution == ground_truth) + bonus, "my_metric": 7, "feedback": "see\x00this\ud800"}

    result = compute_score(source, "a", "a", {}, bonus=0.5)
    assert (result["score"], result["acc"], result["my_metric"]) == (1.5, 1.0, 7.0)
    assert "\x00" not in result["feedback"]
    result["feedback"].encode()
    other = compute_score("gsm8k", "#### 1", "1")
    assert list(other) == list(result)
    assert other["my_metric"] == 0.0


@pytest.mark.parametrize(
    ("error", "timed_out"),
    [
        (GraderUnavailable("sandbox down"), 0.0),
        (GraderUnavailable("late", timed_out=True), 1.0),
        (RuntimeError("bug"), 0.0),
    ],
)
def test_a_grader_that_cannot_decide_is_an_infra_error_not_a_wrong_answer(source, error, timed_out, caplog):
    @reward_fns.register(source)
    def grader(solution, ground_truth, extra_info):
        raise error

    result = compute_score(source, "a", "a")
    assert (result["infra_error"], result["score"], result["timed_out"]) == (1.0, 0.0, timed_out)
    assert result["error"] == f"{type(error).__name__}: {error}"
    assert str(error) in caplog.text


@pytest.mark.parametrize(
    "returned",
    [None, (1.0, "x"), [1.0], "1", {"acc": 1}, {"score": None}, {"score": "good"}, {"score": 1, "surprise": 2},
     float("nan"), {"score": float("inf")}, 10**400, 1j],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_what_is_no_verdict_on_any_completion_is_an_infra_error(source, returned):
    reward_fns.register(source)(lambda *_: returned)
    result = compute_score(source, "a", "a")
    assert (result["score"], result["infra_error"]) == (0.0, 1.0)
    assert result["error"]


def test_what_is_no_verdict_on_one_completion_alone_is_its_own_fault(source):
    reward_fns.register(source)(lambda solution, *_: None if solution == "a" else 1)
    result = compute_score(source, "a", "a")
    assert (result["score"], result["infra_error"]) == (0.0, 0.0)


@pytest.mark.parametrize(("solution", "infra"), [("a", 0.0), ("0", 1.0)])
def test_a_grader_that_exits_does_not_end_its_process(source, solution, infra):
    @reward_fns.register(source)
    def grader(completion, ground_truth, extra_info):
        if completion == solution:
            sys.exit(3)
        return 1

    result = compute_score(source, solution, "a")
    assert (result["score"], result["infra_error"]) == (0.0, infra)


@pytest.mark.parametrize("kind", ["float32", "float64", "int64", "bool_", "array"])
def test_scalars_of_numpy_are_numbers(source, kind):
    value = getattr(pytest.importorskip("numpy"), kind)(1)
    reward_fns.register(source)(lambda *_: value)
    assert compute_score(source, "a", "a")["score"] == 1.0


def test_no_feedback_is_no_text(source):
    reward_fns.register(source)(lambda *_: {"score": 1, "feedback": None, "pred": None})
    result = compute_score(source, "a", "a")
    assert (result["feedback"], result["pred"]) == ("", "")


def test_a_grader_that_returns_later_is_refused(source):
    async def asynchronous(*_):
        return 1

    def generator(*_):
        yield 1

    for function in (asynchronous, generator):
        with pytest.raises(TypeError, match="use def and return"):
            reward_fns.register(source)(function)


def test_undeclared_keys_and_nan_are_refused():
    with pytest.raises(KeyError, match="extras="):
        make_result({"score": 1, "surprise": 2})
    with pytest.raises(ValueError, match="finite"):
        make_result({"score": float("nan")})
    with pytest.raises(TypeError, match="must return"):
        make_result("1")


def test_settings_are_checked():
    with pytest.raises(ValueError, match="strict, paper"):
        compute_score("gsm8k", "#### 1", "1", mode="lenient")
    wrong = compute_score("sciknoweval", "none", "A")
    assert wrong["feedback"]
    assert compute_score("sciknoweval", "none", "A", feedback=False)["feedback"] == ""
    verl_kwargs = {"reward_router_address": "x", "reward_model_tokenizer": object()}
    assert compute_score("gsm8k", "#### 1", "1", **verl_kwargs)["score"] == 1.0


def test_bad_gold_is_never_a_pass():
    for source, gold in [("gsm8k", ""), ("sciknoweval", "AB"), ("sciknoweval", "")]:
        result = compute_score(source, "<answer></answer>", gold)
        assert (result["score"], result["infra_error"]) == (0.0, 1.0)


def test_from_many_threads():
    results = []
    threads = [
        threading.Thread(target=lambda i=i: results.append((i, compute_score("gsm8k", f"#### {i}", str(i % 10)))))
        for i in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 40
    assert all(result["score"] == float(i < 10) for i, result in results)
