"""The example's environment: prepared as its README has it, and its rubric's weights."""

import pyarrow.parquet
import pytest

from reward_fns import compute_score
from reward_fns.graders.verifiers import unusable
from workflows.prepare.pipeline import prepare

pytestmark = pytest.mark.skipif(unusable() is not None, reason=str(unusable()))


def test_its_questions_are_the_tiny_models_and_its_rubric_reads_the_last_line(tmp_path):
    settings = {"train": 6, "test": 2}
    reports = prepare("verifiers:examples.verifiers_env.tiny_arithmetic_env", tmp_path, dataset_kwargs=settings)
    assert {split: (report.rows, report.problems) for split, report in reports.items()} == {
        "train": (6, []),
        "test": (2, []),
    }
    row = pyarrow.parquet.read_table(tmp_path / "train.parquet").to_pylist()[0]
    assert row["prompt"][0]["content"].startswith("Compute (")
    truth = row["reward_model"]["ground_truth"]
    scores = {}
    for answer in range(5):
        found = compute_score(row["data_source"], f"1\n2\n3\n#### {answer}", truth)
        scores[found["acc"], round(found["score"], 6)] = scores.get((found["acc"], round(found["score"], 6)), 0) + 1
    assert scores == {(1.0, 1.2): 1, (0.0, 0.2): 4}
