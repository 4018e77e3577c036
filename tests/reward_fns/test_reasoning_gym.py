"""reasoning_gym's data sets: prepared, and scored by their own scorers in worker processes."""

import ast
import json

import pyarrow.parquet
import pytest

from reward_fns import compute_score
from workflows.prepare.adapters.benchmark import PrepareError
from workflows.prepare.pipeline import prepare

reasoning_gym = pytest.importorskip("reasoning_gym")


def prepared(name, folder, **settings):
    reports = prepare(f"reasoning-gym:{name}", folder, dataset_kwargs={"train_rows": 6, "test_rows": 3, **settings})
    assert {split: report.rows for split, report in reports.items()} == {"train": 6, "test": 3}
    return {split: pyarrow.parquet.read_table(folder / f"{split}.parquet").to_pylist() for split in reports}


# Tuples in the metadata; no single answer; partial credit; text answers.
@pytest.mark.parametrize("name", ["rearc", "graph_color", "chain_sum", "letter_jumble"])
def test_the_answer_of_a_prepared_row_scores_as_in_the_data_set(name, tmp_path):
    splits = prepared(name, tmp_path)
    row = splits["train"][0]
    entry = ast.literal_eval(row["reward_model"]["ground_truth"])
    assert row["prompt"][0]["content"].startswith(entry["question"].strip()[:40])
    scorer = reasoning_gym.get_score_answer_fn(name)
    for answer in (entry["answer"], "no idea"):
        reply = f"<think>perhaps <answer>x</answer></think>I say <answer>{answer}</answer>"
        result = compute_score(row["data_source"], reply, row["reward_model"]["ground_truth"], row["extra_info"])
        assert result["infra_error"] == 0.0
        assert result["score"] == pytest.approx(scorer(str(answer), entry))
        assert result["acc"] == (1.0 if result["score"] == 1.0 else 0.0)
    assert compute_score(row["data_source"], "7", row["reward_model"]["ground_truth"], {})["format_ok"] == 0.0


def test_no_question_is_in_both_splits_and_the_settings_are_in_the_manifest(tmp_path):
    splits = prepared("chain_sum", tmp_path, min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    questions = [row["prompt"][0]["content"] for split in splits.values() for row in split]
    assert len(set(questions)) == 9
    source = json.loads((tmp_path / "manifest.json").read_text())["source"]["generated"]
    assert source["by"].startswith("reasoning-gym ")
    assert source["dataset_kwargs"]["max_terms"] == 2
    again = prepared("chain_sum", tmp_path / "again", min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    assert again == splits


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("chain_sums", {}, "Did you mean 'chain_sum'"),
        ("chain_sum", {"terms": 3}, "refuses them for chain_sum"),
        ("chain_sum", {"train_rows": 0}, "train_rows=0 must be a whole number"),
        ("chain_sum", {"max_terms": 2, "max_digits": 1, "train_rows": 5000}, "fewer than train_rows=5000"),
    ],
)
def test_what_cannot_be_generated_is_refused(name, settings, says, tmp_path):
    with pytest.raises(PrepareError, match=says):
        prepare(f"reasoning-gym:{name}", tmp_path / "out", dataset_kwargs=settings)
    assert not (tmp_path / "out").exists()


def test_settings_of_a_generated_data_set_are_for_one(tmp_path):
    with pytest.raises(PrepareError, match="gsm8k is not one"):
        prepare("gsm8k", tmp_path / "out", dataset_kwargs={"seed": 1})


def test_a_broken_row_is_no_verdict():
    for truth in ("{", "[]", "{'question': ''}", None):
        assert compute_score("reasoning_gym/chain_sum", "<answer>1</answer>", truth)["infra_error"] == 1.0
