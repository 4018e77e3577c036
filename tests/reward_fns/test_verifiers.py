"""Single-turn environments of `verifiers`: prepared, and scored by their own rubrics in worker processes."""

import json
from importlib import metadata

import psutil
import pyarrow.parquet
import pytest

from reward_fns import compute_score
from reward_fns.graders import verifiers as grader
from reward_fns.result import BadSettings
from workflows.prepare.adapters.benchmark import PrepareError
from workflows.prepare.pipeline import prepare

NAME = "tests.reward_fns.verifiers_envs"
SOURCE = f"verifiers/{NAME}"
needs_package = pytest.mark.skipif(grader.unusable() is not None, reason=str(grader.unusable()))


def prepared(folder, **settings):
    reports = prepare(f"verifiers:{NAME}", folder, dataset_kwargs=settings)
    return {split: pyarrow.parquet.read_table(folder / f"{split}.parquet").to_pylist() for split in reports}, reports


def row_of(**settings):
    """The ground truth of one question, as `srpo prepare` writes it."""
    from workflows.prepare.adapters.verifiers import adapt, rows

    return adapt(rows(NAME, settings)["train"][2], "train").ground_truth


def score(solution, truth):
    return compute_score(SOURCE, solution, truth, {})


@needs_package
def test_a_prepared_row_has_the_environments_messages_and_its_gold_answer_is_right(tmp_path):
    splits, reports = prepared(tmp_path, rows=20)
    assert {split: (report.rows, report.problems) for split, report in reports.items()} == {
        "train": (18, []),
        "test": (2, []),
    }
    row = splits["train"][2]
    assert [(message["role"], message["content"]) for message in row["prompt"]] == [
        ("system", "Add up."),
        ("user", "1 + 1?"),
        ("assistant", "<answer>2</answer>"),
        ("user", "3 + 3?"),
    ]
    assert row["data_source"] == SOURCE
    made_by = json.loads((tmp_path / "manifest.json").read_text())["source"]["generated"]
    assert made_by == {"by": f"verifiers {metadata.version('verifiers')}", "dataset_kwargs": {"rows": 20}}
    gold = grader.render_gold(row["reward_model"]["ground_truth"], {"data_source": SOURCE})
    assert gold == "<thought>\n...\n</thought>\n<answer>\n6\n</answer>"


@needs_package
def test_the_score_is_the_rubrics_weighted_sum_and_its_first_function_says_who_is_right():
    truth = row_of()
    right = score("<think>2?</think><answer>6</answer>", truth)
    assert right["score"] == pytest.approx(1.0 + 0.5 + 0.25 * 0.5)
    assert (right["acc"], right["pred"], right["infra_error"]) == (1.0, "6", 0.0)
    wrong = score("<answer>7</answer>", truth)
    assert (wrong["score"], wrong["acc"], wrong["pred"]) == (pytest.approx(0.5 + 0.125), 0.0, "7")


@needs_package
def test_a_function_that_raises_counts_nothing_as_in_verifiers():
    found = score("no tags", row_of())
    assert (found["score"], found["acc"], found["infra_error"]) == (pytest.approx(0.125), 0.0, 0.0)


@needs_package
def test_rows_for_testing_are_the_environments_or_the_last_ones(tmp_path):
    splits, _ = prepared(tmp_path / "own", test_rows_of_its_own=3)
    assert [len(rows) for rows in splits.values()] == [8, 3]
    splits, _ = prepared(tmp_path / "held", test_rows=2)
    assert [len(rows) for rows in splits.values()] == [6, 2]
    assert splits["test"][-1]["prompt"][-1]["content"] == "8 + 8?"
    for settings, says in (
        ({"test_rows": 8}, "test_rows=8 must be a whole number below the 8 rows"),
        ({"test_rows": 1, "test_rows_of_its_own": 3}, "rows for testing of its own"),
        ({"colour": "red"}, "unexpected keyword argument 'colour'"),
    ):
        with pytest.raises(PrepareError, match=says):
            prepared(tmp_path / "refused", **settings)
    with pytest.raises(PrepareError, match="verifiers cannot load the environment 'no-such-thing'"):
        prepare("verifiers:no-such-thing", tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


REFUSED = {
    "several turns": r"\(Conversation\) takes more than one turn, or has tools",
    "tools": r"\(SingleTurnEnv\) takes more than one turn, or has tools",
    "group of environments": "is a group of environments: prepare each",
    "judge": "asks a judge model",
    "group": "scores a group of rollouts together",
    "unweighted": "without a reward function of positive weight",
    "none": "without a reward function of positive weight",
}


@needs_package
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_scored_answer_by_answer_is_refused_when_it_is_prepared_and_ends_a_run(kind, tmp_path):
    with pytest.raises(PrepareError, match=REFUSED[kind]):
        prepared(tmp_path / "out", kind=kind)
    truth = json.dumps({"env_args": {"kind": kind}, "input": {"prompt": "?"}})
    with pytest.raises(BadSettings, match=REFUSED[kind]):
        score("1", truth)


@needs_package
def test_an_environment_that_cannot_begin_gives_no_verdict():
    found = score("<answer>6</answer>", row_of(kind="broken"))
    assert (found["score"], found["infra_error"]) == (0.0, 1.0)


@needs_package
def test_maths_are_compared_in_the_worker_itself():
    truth = row_of(kind="maths")
    assert score(r"so \boxed{\frac{12}{2}}", truth)["score"] == 1.0
    assert score(r"so \boxed{7}", truth)["score"] == 0.0
    assert grader.render_gold(truth, {"data_source": SOURCE}) == r"\boxed{6}"
    servers = [child for child in psutil.Process().children() if "reward_fns.workers.server" in child.cmdline()]
    workers = [worker for server in servers for worker in server.children()]
    assert workers
    assert [worker.children() for worker in workers] == [[] for _ in workers]


@needs_package
@pytest.mark.slow
def test_an_answer_that_never_ends_is_wrong(monkeypatch):
    monkeypatch.setattr(grader, "_DEADLINE", 8.0)
    found = score("hang", row_of())
    assert (found["score"], found["timed_out"], found["infra_error"]) == (0.0, 1.0, 0.0)


@needs_package
def test_rows_that_no_chat_or_no_json_is_made_of_are_told_of():
    from workflows.prepare.adapters.verifiers import adapt

    user, system = {"role": "user", "content": "?"}, {"role": "system", "content": "!"}
    for prompt, says in (
        ("?", "the prompt is a text"),
        ([system], "the last message is the system's"),
        ([{"role": "user", "content": [{"type": "text", "text": "?"}]}], "'user' whose content is a list"),
        ([{"role": "tool", "content": "?"}, user], "a message of 'tool'"),
    ):
        with pytest.raises((ValueError, TypeError), match=says):
            adapt({"env_args": {}, "input": {"prompt": prompt}}, "train")
    with pytest.raises(ValueError, match="does not survive as JSON"):
        adapt({"env_args": {}, "input": {"prompt": [user], "answer": float("nan")}}, "train")


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (None, "verifiers is not installed: pip install"),
        ("0.4.0a1", "verifiers 0.4.0a1 is installed, and SingleTurnEnv"),
        ("0.1.9.post3", "verifiers 0.1.9.post3 is installed, and SingleTurnEnv"),
    ],
)
def test_without_a_package_that_fits_a_sentence_says_which(version, says, monkeypatch, tmp_path):
    def found(name):
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", found)
    with pytest.raises(PrepareError, match=says):
        prepare("verifiers:anything", tmp_path / "out")
    with pytest.raises(BadSettings, match=says):
        score("1", json.dumps({"env_args": {}, "input": {"prompt": "?"}}))


@pytest.mark.parametrize(
    "truth", ["{", "[]", '{"env_args": {}, "input": {}}', '{"env_args": [], "input": {"prompt": "?"}}', None]
)
def test_a_broken_row_is_no_verdict(truth):
    assert score("1", truth)["infra_error"] == 1.0
